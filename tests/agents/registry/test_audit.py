"""What operators do, and apps enrol, is in the registry's audit: stored by the write that changes something."""

import asyncio
import itertools
import json

import pytest

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.signature import sign
from sidecard.tasks import act as acts_module
from sidecard.tasks import ledger, sightings, slots
from sidecard.tasks.act import REFUSED, Act
from sidecard.tasks.audit_log import in_order, read_audit
from sidecard.tasks.ledger import Deed, Ledger
from tests.agents.registry.conftest import KEY, FakeStore
from tests.agents.registry.test_server import card, enrol

OPERATOR = {"dapr-caller-app-id": "desk"}
STRANGER = {"dapr-caller-app-id": "orchestrator"}
DAY = 86_400_000


async def recorded(store):
    """Everything in the audit, which is whole."""
    trails = await read_audit(store, verify=True)
    assert [trail.problems for trail in trails] == [[] for _ in trails]
    return [one.act for one in in_order(trails)]


def said(acts):
    return [(act.caller, act.operation, act.skill, act.outcome) for act in acts]


async def revoke(client, mark, headers=OPERATOR):
    return await client.put("/revoked", json={"mark": mark}, headers=headers)


def revoked(sidecar):
    kept = sidecar.state.get("revoked")
    return [one["mark"] for one in json.loads(kept[0])["revoked"]] if kept else []


async def test_what_operators_do_is_recorded_by_whom_and_by_which_right(client, sidecar, store):
    """In order: enrolling, revoking, restoring, dismissing; what changes nothing is not."""
    sidecar.cards["flights"] = sign(card(), KEY)
    await enrol(client)
    for _ in range(2):
        await revoke(client, "manager")
    for _ in range(2):
        await client.delete("/revoked", params={"mark": "manager"}, headers=OPERATOR)
    assert [(await client.delete("/estate/flights", headers=OPERATOR)).status_code for _ in range(2)] == [204, 404]
    acts = await recorded(store)
    assert said(acts) == [
        ("flights", "Enrol", "flights http://127.0.0.1:8102", "ok"),
        ("desk", "Revoke", "caller:manager", "ok"),
        ("desk", "Restore", "caller:manager", "ok"),
        ("desk", "Dismiss", "flights", "ok"),
    ]
    assert {(act.identity, act.right) for act in acts[1:]} == {("sidecar:desk", "scope estate:operate")}
    assert acts[0].right == "its own app-id, its card by key flights-1"


async def test_a_heart_beat_is_not_recorded_and_another_card_is(client, sidecar, store):
    """So the audit tells when an agent began to serve which card, and does not grow while it does."""
    sidecar.cards["flights"] = sign(card(), KEY)
    for _ in range(3):
        await enrol(client)
    assert len(await recorded(store)) == 1
    changed = card()
    changed.description = "Does more."
    sidecar.cards["flights"] = sign(changed, KEY)
    await enrol(client)
    assert len(await recorded(store)) == 2


async def test_who_is_no_operator_is_recorded_and_so_is_who_enrols_another(client, store, monkeypatch):
    """Within a second, counted by kind."""
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 0.01)
    for _ in range(3):
        assert (await revoke(client, "manager", STRANGER)).status_code == 403
    assert (await enrol(client, "flights", caller="expenses")).status_code == 403
    async with asyncio.timeout(5):
        while len(acts := await recorded(store)) < 2:  # noqa: ASYNC110 -- it is the store that changes
            await asyncio.sleep(0.01)
    assert said(acts) == [
        ("orchestrator", "Revoke", "", f"{REFUSED}no operator"),
        ("expenses", "Enrol", "flights", f"{REFUSED}another app's name"),
    ]
    assert acts[0].count == 3


@pytest.mark.parametrize("fault", ["refused", "not reached"])
async def test_nothing_changes_without_its_record(client, sidecar, store, monkeypatch, fault):
    """They are one write, whatever becomes of that: both are there, or neither is."""
    monkeypatch.setattr(ledger, "ATTEMPTS", 2)
    sidecar.cards["flights"] = sign(card(), KEY)

    def fails():
        raise {"refused": TaskConflict, "not reached": StoreUnavailable}[fault]("no")

    store.before_write = fails
    assert (await revoke(client, "manager")).status_code == 503
    assert (await enrol(client)).status_code == 503
    assert revoked(sidecar) == await recorded(store) == (await client.get("/agents")).json() == []
    store.before_write = lambda: None
    await revoke(client, "manager")
    assert (revoked(sidecar), len(await recorded(store))) == (["caller:manager"], 1)


async def test_a_lost_answer_is_asked_for(client, sidecar, store, monkeypatch):
    """What is stored is not stored twice, nor said to have failed."""
    write = FakeStore.write

    async def loses(self, *args, **named):
        await write(self, *args, **named)
        raise StoreUnavailable("the answer was lost")

    monkeypatch.setattr(FakeStore, "write", loses)
    assert (await revoke(client, "manager")).status_code == 200
    assert (revoked(sidecar), len(await recorded(store))) == (["caller:manager"], 1)


async def test_with_two_writes_a_change_would_be_there_without_its_record(client, sidecar, store, monkeypatch):
    """The twin: the record in a write of its own is missing when that one fails."""
    write = FakeStore.write

    async def apart(self, creates, upserts, deletes=(), *, swaps=None):
        await write(self, [], {}, [], swaps=swaps)
        raise StoreUnavailable("died in between")

    with monkeypatch.context() as broken:
        broken.setattr(FakeStore, "write", apart)
        broken.setattr(ledger, "ATTEMPTS", 1)
        await revoke(client, "manager")
    assert (revoked(sidecar), await recorded(store)) == (["caller:manager"], [])


@pytest.mark.parametrize("atomic", [True, False])
async def test_replicas_that_write_at_once_lose_nothing(client, another, sidecar, store, atomic):
    """Each revocation is on the list and in the audit, once; what came to nothing is in neither."""
    store.atomic = another.store.atomic = atomic
    both = itertools.cycle((client, another))
    answers = await asyncio.gather(*(revoke(next(both), f"client:c{n:02}") for n in range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(revoked(sidecar)) == 12
    await revoke(client, "manager")  # takes back what was recorded last and came to nothing
    await revoke(another, "app:flights")
    acts = await recorded(store)
    assert sorted(act.skill for act in acts) == sorted(revoked(sidecar))


@pytest.mark.parametrize("atomic", [True, False])
async def test_records_go_into_pages_and_are_forgotten_when_they_are_old(client, sidecar, store, monkeypatch, atomic):
    """As an agent's are: by checkpoints, for as many days as the audit is kept."""
    monkeypatch.setattr(slots, "CHECKPOINT_ENTRIES", 4)
    store.atomic = atomic
    for n in range(10):
        await revoke(client, f"client:c{n}")
    assert len(await recorded(store)) == 10
    assert [key for key in sidecar.state if key.startswith("audit:")]
    kept = Ledger(lambda: store, keep_days=7)
    await kept.forget()
    assert len(await recorded(store)) == 10
    monkeypatch.setattr(ledger, "now", lambda: acts_module.now() + 8 * DAY)
    await kept.forget()
    assert len(await recorded(store)) < 4
    assert not [key for key in sidecar.state if key.startswith("audit:")]


async def test_refusals_wait_for_a_store_that_is_down_and_are_bounded(sidecar, store, monkeypatch):
    """None is lost at first; of more than there is room for the number is kept."""
    monkeypatch.setattr(sightings, "MOST", 10)
    kept = Ledger(lambda: store)
    sidecar.up = False
    for n in range(15):
        kept.refused(Act("Revoke", caller=f"c{n}", outcome=f"{REFUSED}no operator"))
    with pytest.raises(StoreUnavailable):
        await kept.flush()
    sidecar.up = True
    await kept.close()
    acts = await recorded(store)
    assert (len(acts), acts[-1].outcome, acts[-1].count) == (11, "dropped", 5)


async def test_what_is_decided_is_decided_anew_when_somebody_was_first(store):
    """By what is there then; nothing to do is nothing recorded."""
    first, second = Ledger(lambda: store), Ledger(lambda: store)
    await first.do(nothing)
    asked = 0

    async def decide():
        nonlocal asked
        asked += 1
        if asked == 1:
            await second.do(done)
            return Deed(Act("Revoke", caller="late"))
        return None

    assert not await first.do(decide)
    assert asked == 2
    assert [act.caller for act in await recorded(store)] == ["first"]


async def nothing():
    return None


async def done():
    return Deed(Act("Revoke", caller="first"))
