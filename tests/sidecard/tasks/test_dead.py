"""Deliveries that were given up are listed, and made after all when an operator asks: whole, in order, whoever dies."""

import json

import msgpack
import pytest

from sidecard.push import Outcome
from sidecard.tasks import dead as dead_module
from sidecard.tasks import replicas
from sidecard.tasks.cursor import Backoff, Cursor, cursor_key
from sidecard.tasks.dead import ask_for, dead_letters, request_key, taken
from sidecard.tasks.mail import mark
from sidecard.tasks.retention import Keep, Retention
from sidecard.tasks.state import Webhook
from sidecard.testing import FakeWebhooks, MemoryStore, started
from tests.sidecard.tasks.shop import Shop, answer, settled, until
from tests.sidecard.tasks.test_outbox import DOWN, URL, append, begin, delivered, push, told, webhook
from tests.sidecard.tasks.test_replicas import Cluster

EVENTS = ["SUBMITTED", "WORKING", "+", "COMPLETED"]
IMPATIENT = Backoff(first=0.001, most=0.002, patience=0.01)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Nobody waits long to be seen, alive or dead."""
    monkeypatch.setattr(dead_module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(replicas, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(replicas, "DEAD_SECONDS", 0.3)


def unreachable(delivered_before=1, *urls):
    """Receivers that take so many events, and then fail for long."""
    webhooks = FakeWebhooks()
    for url in urls or (URL,):
        webhooks.answers[url] = [*[Outcome(delivered=True)] * delivered_before, *[DOWN] * 10_000]
    return webhooks


async def given_up(engine, shop, skill="buy", message_id="m1", **fields):
    task_id = await begin(engine, shop, skill, message_id, **fields)
    await settled(engine, task_id)
    await until(lambda: mark(task_id) in engine.journal.slot.outbox.all)
    await delivered(engine)
    return task_id


async def asked_for(store, *task_ids):
    letters = [letter for letter in await dead_letters(store) if not task_ids or letter.task_id in task_ids]
    assert await ask_for(store, letters)
    return letters


@pytest.mark.parametrize("atomic", [True, False])
async def test_what_was_given_up_is_listed_and_told_after_all(atomic):
    """From the event on that could not be delivered, in order, without a restart; then it is listed no more."""
    shop, store, webhooks = Shop(), MemoryStore(atomic=atomic), unreachable()
    hook = webhook("bills", f"{URL}?token=secret")
    webhooks.answers[hook.url] = webhooks.answers.pop(URL)
    async with started(shop.agent, store, webhooks=webhooks, backoff=IMPATIENT) as engine:
        assert await dead_letters(store) == []
        task_id = await given_up(engine, shop, hook=hook)
        (letter,) = await dead_letters(store)
        assert (letter.task_id, letter.config_id, letter.url) == (task_id, "bills", URL)
        assert (letter.waiting, letter.problem) == (3, "down")
        assert letter.attempts > 1
        assert letter.since > 1_700_000_000_000
        webhooks.answers.clear()
        await asked_for(store)
        assert await taken(store, [letter], 5)
        await until(lambda: told(webhooks, hook.url) == EVENTS)
        await delivered(engine)
        assert await dead_letters(store) == []
        assert not engine.journal.slot.outbox.all
        assert not engine.outbox.dead
    ids = [webhook_id for _, webhook_id, _ in webhooks.received]
    assert len(set(ids)) == 4


async def test_an_agent_that_is_not_running_does_it_when_it_starts():
    """What it was asked stays in the store until it is seen to, and is not there afterwards."""
    shop, store, webhooks = Shop(), MemoryStore(), unreachable()
    async with started(shop.agent, store, webhooks=webhooks, backoff=IMPATIENT) as engine:
        await given_up(engine, shop)
    async with started(shop.agent, store, webhooks=webhooks, backoff=IMPATIENT) as engine:
        await delivered(engine)
        assert told(webhooks) == EVENTS[:1]
    letters = await asked_for(store)
    assert not await taken(store, letters, 0.05)
    webhooks.answers.clear()
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        await until(lambda: told(webhooks) == EVENTS)
        await delivered(engine)
        assert await taken(store, letters, 5)


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("writes", range(1, 8))
async def test_a_crash_meanwhile_loses_nothing(writes, atomic):
    """After so many writes of the process that saw the request: the next one does what is left of it."""

    class Dies(MemoryStore):
        left = -1

        async def write(self, creates, upserts, deletes=()):
            self.down = self.down or self.left == 0
            self.left -= 1
            await super().write(creates, upserts, deletes)

    shop, store, webhooks = Shop(), Dies(atomic=atomic), unreachable()
    async with started(shop.agent, store, webhooks=webhooks, backoff=IMPATIENT) as engine:
        await given_up(engine, shop)
    await asked_for(store)
    webhooks.answers.clear()
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        store.left = writes
        await until(lambda: told(webhooks)[-1:] == EVENTS[-1:] or store.down)
        after = MemoryStore(atomic=atomic)
        after.data = dict(store.data)
        store.left, store.down = -1, False
    async with started(shop.agent, after, webhooks=webhooks) as engine:
        await until(lambda: told(webhooks)[-1:] == EVENTS[-1:])
        await until(lambda: request_key(0) not in after.data)
        await delivered(engine)
    assert list(dict.fromkeys(told(webhooks))) == EVENTS
    assert await dead_letters(after) == []


async def test_only_what_is_asked_for_is_told():
    """Another webhook of the task, and other tasks, stay given up and listed."""
    other = "https://other.example/"
    shop, store, webhooks = Shop(), MemoryStore(), unreachable(1, URL, other)
    async with started(shop.agent, store, webhooks=webhooks, backoff=IMPATIENT) as engine:
        first = await begin(engine, shop, "choose", "m1")
        await append(engine, first, push("other", other))
        await answer(engine, shop, first, "red")
        await settled(engine, first)
        second = await given_up(engine, shop, message_id="m2")
        await until(lambda: mark(first) in engine.journal.slot.outbox.all)
        await delivered(engine)
        letters = {(letter.task_id, letter.config_id): letter for letter in await dead_letters(store)}
        assert set(letters) == {(first, "w"), (first, "other"), (second, "w")}
        webhooks.answers.clear()
        assert await ask_for(store, [letters.pop((first, "w"))])
        await until(lambda: told(webhooks)[-1] == "COMPLETED")
        await delivered(engine)
        left = {(letter.task_id, letter.config_id) for letter in await dead_letters(store)}
        assert left == set(letters)
        assert len(told(webhooks, other)) == 1


async def test_a_webhook_that_is_set_anew_or_deleted_is_listed_no_more():
    """Its caller has seen to it."""
    shop, store, webhooks = Shop(), MemoryStore(), unreachable(1, URL, "https://b.example/")
    async with started(shop.agent, store, webhooks=webhooks, backoff=IMPATIENT) as engine:
        task_id = await begin(engine, shop, "choose", hook=webhook())
        await settled(engine, task_id)
        await until(lambda: mark(task_id) in engine.journal.slot.outbox.all)
        await append(engine, task_id, push(url="https://new.example/"))
        await answer(engine, shop, task_id, "red")
        await settled(engine, task_id)
        await delivered(engine)
        assert told(webhooks, "https://new.example/")[-1] == "COMPLETED"
        assert not engine.journal.slot.outbox.all
        again = await begin(engine, shop, "choose", "m2", hook=webhook(url="https://b.example/"))
        await settled(engine, again)
        await until(lambda: mark(again) in engine.journal.slot.outbox.all)
        await append(engine, again, ["unpush", "w"])
        await answer(engine, shop, again, "red")
        await settled(engine, again)
        assert await dead_letters(store) == []


async def test_a_receiver_that_is_gone_for_good_is_no_dead_letter():
    """It said so itself."""
    shop, store, webhooks = Shop(), MemoryStore(), FakeWebhooks()
    webhooks.answers[URL] = [Outcome(gone=True, problem="gone")]
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        await settled(engine, await begin(engine, shop, "buy"))
        await delivered(engine)
        assert not engine.journal.slot.outbox.all
        assert await dead_letters(store) == []


@pytest.mark.parametrize("atomic", [True, False])
async def test_who_takes_a_replica_over_keeps_its_list_and_does_what_it_was_asked(atomic):
    """Of one that died with the request unseen; its list is the survivor's at once."""
    cluster = Cluster(atomic=atomic)
    shop, webhooks = Shop(), unreachable()
    store = MemoryStore(atomic=atomic)
    store.data = cluster.data
    async with cluster.stack:
        one = await cluster.replica(shop, sender=webhooks, backoff=IMPATIENT)
        task_id = await given_up(one, shop)
        cluster.kill(one)
        letters = await asked_for(store)
        webhooks.answers.clear()
        two = await cluster.replica(shop, sender=webhooks, backoff=IMPATIENT)
        await until(lambda: told(webhooks) == EVENTS)
        await delivered(two)
        assert await taken(store, letters, 5)
        assert await dead_letters(store) == []
        webhooks.answers[URL] = [DOWN] * 10_000
        task_id = await given_up(two, shop, message_id="m2")
        cluster.kill(two)
        three = await cluster.replica(shop, sender=webhooks, backoff=IMPATIENT)
        await until(lambda: mark(task_id) in three.journal.slot.outbox.all)
        await delivered(three)
        (letter,) = await dead_letters(store)
        assert (letter.slot, letter.task_id) == (three.journal.slot.number, task_id)


async def test_a_list_is_handed_over_by_a_replica_that_stops():
    """Though nothing is due: somebody has to see what is asked."""
    cluster = Cluster()
    shop, webhooks = Shop(), unreachable()
    async with cluster.stack:
        one = await cluster.replica(shop, sender=webhooks, backoff=IMPATIENT)
        two = await cluster.replica(shop, sender=webhooks, backoff=IMPATIENT)
        task_id = await given_up(one, shop)
        await one.stop(0)
        await until(lambda: two.journal.slot.outbox.all == {mark(task_id)})


@pytest.mark.parametrize("asked", [b"x", b"", b"\xc1", b"\x91\xa1x", msgpack.packb([["gone", ["w"]]])])
async def test_what_makes_no_sense_is_dropped(asked):
    """It holds up nothing, and what is asked next is done."""
    shop, store, webhooks = Shop(), MemoryStore(), unreachable()
    async with started(shop.agent, store, webhooks=webhooks, backoff=IMPATIENT) as engine:
        await given_up(engine, shop)
        store.data[request_key(0)] = asked
        await until(lambda: request_key(0) not in store.data)
        webhooks.answers.clear()
        await asked_for(store)
        await until(lambda: told(webhooks) == EVENTS)


async def test_a_broken_log_holds_up_no_other_task():
    """It is said, and what else was asked is done."""
    shop, store, webhooks = Shop(), MemoryStore(), unreachable()
    async with started(shop.agent, store, webhooks=webhooks, backoff=IMPATIENT) as engine:
        broken, task_id = await given_up(engine, shop), await given_up(engine, shop, message_id="m2")
        await asked_for(store, broken, task_id)
        store.data[f"log:{broken}:2"] = store.data[f"log:{task_id}:2"]
        webhooks.answers.clear()
        await until(lambda: told(webhooks)[-1:] == EVENTS[-1:])
        await until(lambda: request_key(0) not in store.data)


async def test_what_others_have_asked_is_not_overwritten():
    """The second is told to come again."""
    shop, store, webhooks = Shop(), MemoryStore(), unreachable()
    async with started(shop.agent, store, webhooks=webhooks, backoff=IMPATIENT) as engine:
        await given_up(engine, shop)
    letters = await asked_for(store)
    asked_first = store.data[request_key(0)]
    assert not await ask_for(store, letters)
    assert store.data[request_key(0)] == asked_first


async def test_marks_of_tasks_that_have_expired_go():
    """Such a task is not held up by them, is listed no more, and its mark goes with the next start."""
    shop, store, webhooks = Shop(), MemoryStore(), unreachable()
    async with started(shop.agent, store, webhooks=webhooks, backoff=IMPATIENT) as engine:
        task_id = await given_up(engine, shop)
        later = engine._clock() + 40 * 86_400_000
        retention = Retention(engine.journal, engine.slots, Keep(), lambda: later)
        while await retention.step() and store.data[f"log:{task_id}:1"].startswith(b"expired:") is False:
            pass
        assert await dead_letters(store) == []
        await asked_for(store)
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        await until(lambda: not engine.journal.slot.outbox.all)
        assert not engine.outbox.dead


async def test_nobody_looks_while_nothing_was_given_up():
    """The store is asked once at the start, and then no more."""

    class Counting(MemoryStore):
        asked = 0

        async def read(self, keys):
            self.asked += request_key(0) in keys
            return await super().read(keys)

    shop, store, webhooks = Shop(), Counting(), FakeWebhooks()
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        for n in range(20):
            await settled(engine, await begin(engine, shop, "buy", f"m{n}"))
            await delivered(engine)
        assert store.asked == 1


def test_a_revived_cursor_keeps_its_place():
    """And has all its patience again."""
    cursor = Cursor((5, 2), (1, 2), attempts=3, failing_since=1, next_at=2, over="dead", problem="down")
    assert cursor.revived() == Cursor((5, 2), (1, 2))
    assert Cursor.of(Webhook(b"", (1, 2), (1, 2)), cursor.revived().pack()) == cursor.revived()
    assert json.dumps(cursor_key("t", "w")) != json.dumps(mark("t"))
