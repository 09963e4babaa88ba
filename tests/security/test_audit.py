"""Attacks on the audit by somebody who can write the agent's store, but has none of its keys."""

import msgpack
import pytest

from sidecard.seals import Seals
from sidecard.tasks import slots, trail
from sidecard.tasks.act import Act
from sidecard.tasks.audit_log import End, in_order, read_audit
from sidecard.tasks.slot_entry import SlotEntry, SlotHead, slot_key
from sidecard.tasks.trail import Link, Page, audit_key, chained, origin
from sidecard.testing import MemoryStore, Publisher, caller, message, started
from tests.sidecard.tasks.shop import Shop

PUBLISHER = Publisher("shop", "other")
RECORDS = 12


def vouching(agent="shop"):
    return PUBLISHER.vouching(agent, lambda *_: True)


def seals(agent="shop"):
    return Seals(agent, PUBLISHER.name, PUBLISHER.trust)


async def work(store, start, count, by="c"):
    """So many messages, each with its record."""
    shop = Shop()
    async with started(shop.agent, store, vouching=vouching()) as engine:
        for n in range(start, start + count):
            sent = message(message_id=f"{by}{n}", data={"what": "hat"})
            act = Act("SendMessage", caller=f"{by}{n}")
            await engine.intake.create(caller(shop.agent, "ada"), "", shop.skill("look"), sent, act=act)


@pytest.fixture
async def store(monkeypatch):
    """An agent's store, the agent gone: twelve records in pages."""
    monkeypatch.setattr(slots, "CHECKPOINT_ENTRIES", 3)
    store = MemoryStore()
    await work(store, 0, RECORDS)
    return store


async def verified(store, ends=(), by=None):
    """The callers on record, and what is wrong with them."""
    trails = await read_audit(store, verify=True, seals=by or seals(), ends=ends)
    return [one.act.caller for one in in_order(trails)], [problem for one in trails for problem in one.problems]


def pages_of(store):
    head = SlotHead.unpack(store.data[slot_key(0)]).audit
    return {n: Page.unpack(store.data[audit_key(0, n)]) for n in range(head.first, head.last + 1)}


def rebuild(store, records, seal=lambda page, number, digest: page.seal):
    """Write these records in place of all, in pages and a chain as the agent would, each page with what `seal` gives.

    So nothing but the seals can tell.
    """
    pages, digest, number, left = pages_of(store), origin(0), 0, list(records)
    last = max(pages)
    for n, page in pages.items():
        count = len(left) if n == last else min(len(page.records), len(left))
        some, left = left[:count], left[count:]
        before, digest = digest, chained(digest, some)
        made = Page(number + 1, page.newest, before, some)
        number += len(some)
        store.data[audit_key(0, n)] = Page(made.first, made.newest, before, some, seal(page, number, digest)).pack()
    version, *values, mark = msgpack.unpackb(store.data[slot_key(0)])
    store.data[slot_key(0)] = msgpack.packb([version, *values, [number, digest, mark[2], mark[3]]])


def every(store):
    return [record for page in pages_of(store).values() for record in page.records]


def removed(records):
    return [*records[:4], *records[5:]]


def reordered(records):
    return [records[1], records[0], *records[2:]]


def rewritten(records):
    values = msgpack.unpackb(records[4])
    values[2] = "eve"
    return [*records[:4], msgpack.packb(values), *records[5:]]


def added(records):
    return [*records[:4], records[4], *records[4:]]


FORGERIES = [removed, reordered, rewritten, added]


def kept(page, number, digest):
    return page.seal


def none(page, number, digest):
    return ""


def others(page, number, digest):
    """By another agent of the same publisher, in its own name and in the shop's."""
    return Seals("other", PUBLISHER.name, PUBLISHER.trust, vouching("other").key).make(0, number, digest, 1)


def in_its_name(page, number, digest):
    return Seals("shop", PUBLISHER.name, PUBLISHER.trust, vouching("other").key).make(0, number, digest, 1)


def of_another_slot(page, number, digest):
    return Seals("shop", PUBLISHER.name, PUBLISHER.trust, vouching().key).make(1, number, digest, 1)


def a_question(page, number, digest):
    """Something else that the shop did sign."""
    from sidecard.extension import Asked

    return vouching().sign_question(Asked(question="q", scope="s"), "Yes?", tenant="", subject="ada")


SEALS = [kept, none, others, in_its_name, of_another_slot, a_question]


async def unnoticed(store):
    """How many forgeries of a chain made anew, under how many kinds of seals, pass for whole."""
    snapshot, passed = dict(store.data), []
    for forge in FORGERIES:
        for seal in SEALS:
            store.data = dict(snapshot)
            rebuild(store, forge(every(store)), seal)
            _, problems = await verified(store)
            if not problems:
                passed.append((forge.__name__, seal.__name__))
    store.data = snapshot
    return passed


async def test_a_chain_made_anew_is_noticed(store):
    """Records taken out, put in, in another order, altered: the digests all fit, and the agent has not signed them."""
    callers, problems = await verified(store)
    assert (callers, problems) == ([f"c{n}" for n in range(RECORDS)], [])
    rebuild(store, every(store))
    assert (await verified(store))[1] == [], "the attack itself makes a chain as the agent does"
    assert await unnoticed(store) == []


async def test_without_seals_a_chain_made_anew_passes_for_whole(store):
    """The twin: the chain alone says nothing on who made it."""
    for forge in FORGERIES:
        snapshot = dict(store.data)
        rebuild(store, forge(every(store)))
        trails = await read_audit(store, verify=True)
        assert [one.problems for one in trails] == [[]]
        store.data = snapshot


@pytest.mark.parametrize("forge", FORGERIES)
async def test_an_agent_that_starts_on_a_forged_audit_does_not_sign_for_it(store, forge, caplog):
    """It says so, and signs for its own records alone: verifying tells for as long as the others are kept."""
    rebuild(store, forge(every(store)))
    forged = len(every(store))
    await work(store, 0, 6, by="d")
    assert "not as this agent has sealed it" in caplog.text
    _, problems = await verified(store)
    assert problems == [f"records 1 to {forged} were there without a signature of shop when it started"]


async def test_without_that_look_the_agent_signs_what_was_forged(store, monkeypatch):
    """The twin."""
    rebuild(store, rewritten(every(store)))
    monkeypatch.setattr(trail.Trail, "_vouched", lambda *_: 1)
    await work(store, 0, 6, by="d")
    callers, problems = await verified(store)
    assert ("eve" in callers, problems) == (True, [])


async def test_what_the_agent_goes_on_with_stays_signed_from_the_first_record(store):
    """Over restarts; the seal of the last page vouches for all."""
    for start in range(RECORDS, RECORDS + 12, 4):
        await work(store, start, 4)
    callers, problems = await verified(store)
    assert (len(callers), problems) == (RECORDS + 12, [])


def truncate(store):
    """Take the last page away, with the records in it, and have the head speak of the one before."""
    pages = pages_of(store)
    last = max(pages)
    page = pages[last]
    del store.data[audit_key(0, last)]
    version, *values, mark = msgpack.unpackb(store.data[slot_key(0)])
    store.data[slot_key(0)] = msgpack.packb([version, *values, [page.first - 1, page.before, mark[2], last - 1]])
    return len(page.records)


async def test_a_truncated_audit_is_noticed_by_who_knows_an_end_of_it(store):
    """The store alone can't tell that it is an older one. An end that was written down elsewhere tells."""
    [whole] = await read_audit(store)
    end = End(0, whole.number, whole.digest.hex())
    assert await verified(store, [end]) == ([f"c{n}" for n in range(RECORDS)], [])
    gone = truncate(store)
    assert (await verified(store))[1] == [], "which docs/security.md says"
    first = RECORDS - gone + 1
    assert (await verified(store, [end]))[1] == [f"records {first} to {RECORDS}, which there were, are gone"]
    await work(store, 0, RECORDS, by="d")
    assert (await verified(store))[1] == []
    assert (await verified(store, [end]))[1] == [f"up to record {RECORDS} it is not what it was"]


async def test_an_end_is_still_in_the_chain_later(store):
    """In pages and behind them; an empty one is in every chain."""
    ends = [End(0, 0, origin(0).hex())]
    for start in range(RECORDS, RECORDS + 5):
        [now] = await read_audit(store)
        ends.append(End(0, now.number, now.digest.hex()))
        await work(store, start, 1)
    assert (await verified(store, ends))[1] == []


async def test_what_is_under_no_seal_yet_is_said(store, monkeypatch):
    """An entry that no page has taken up can be altered with its chain; it is told apart from what is signed."""
    shop = Shop()
    async with started(shop.agent, store, vouching=vouching()) as engine:
        sent = message(message_id="new", data={"what": "hat"})
        act = Act("SendMessage", caller="new")
        await engine.intake.create(caller(shop.agent, "ada"), "", shop.skill("look"), sent, act=act)
        [now] = await read_audit(store, verify=True, seals=seals())
        assert (now.number, now.sealed, now.problems) == (RECORDS + 1, RECORDS, [])
        n = engine.journal.slot.n
        entry = SlotEntry.unpack(store.data[slot_key(0, n)])
        forged = [entry.link.records[0].replace(b"new", b"eve")]
        before = engine.journal.slot.trail.paged.digest
        values = msgpack.unpackb(store.data[slot_key(0, n)])
        values[7] = [forged, Link(forged, chained(before, forged)).digest]
        store.data[slot_key(0, n)] = msgpack.packb(values)
        callers, problems = await verified(store)
        assert (callers[-1], problems) == ("eve", [])
        monkeypatch.setattr(trail, "SEAL_SECONDS", -1.0)
        assert engine.journal.slot.due
        await work_more(engine, shop)
        callers, problems = await verified(store)
        assert ("new" in callers, "eve" in callers, problems) == (True, False, []), "a running agent knows better"


async def work_more(engine, shop):
    sent = message(message_id="more", data={"what": "hat"})
    await engine.intake.create(
        caller(shop.agent, "ada"), "", shop.skill("look"), sent, act=Act("SendMessage", caller="more")
    )
