"""The topic hears every event of every task, in order, at least once; who has no topic pays nothing for it."""

import asyncio

import pytest
from a2a.utils.proto_utils import to_stream_response
from google.protobuf.json_format import MessageToDict

from sidecard.push import Outcome
from sidecard.tasks import dead as dead_module
from sidecard.tasks import outbox as outbox_module
from sidecard.tasks.cursor import Cursor, topic_key
from sidecard.tasks.dead import ask_for, dead_letters
from sidecard.tasks.delivery import AT_ONCE, OWN_MOST_SECONDS, Delivery
from sidecard.tasks.events import event_of
from sidecard.tasks.loading import read_log
from sidecard.tasks.mail import Mail, hook_of_topic
from sidecard.tasks.retention import Keep, Retention
from sidecard.tasks.tombstone import Tombstone
from sidecard.telemetry import WebhookMetrics
from sidecard.testing import FakeAgents, FakeTopic, FakeWebhooks, MemoryStore, caller, message, started
from tests.sidecard.tasks.shop import Shop, answer, idle, send, settled, until
from tests.sidecard.tasks.test_costs import CountingStore
from tests.sidecard.tasks.test_dead import IMPATIENT
from tests.sidecard.tasks.test_outbox import DOWN, FAST, begin, delivered, short, told, webhook
from tests.sidecard.tasks.test_replicas import Cluster

EVENTS = ["SUBMITTED", "WORKING", "+", "COMPLETED"]


def heard(topic, task_id=None):
    """What was published, in short; of one task."""
    return [short(event["data"]) for event in topic.published if task_id in (None, event["subject"])]


def first_heard(topic, task_id=None):
    """The same, as a consumer sees it that knows what it has seen."""
    seen = {event["id"]: event for event in topic.published if task_id in (None, event["subject"])}
    sequences = [event["sequence"] for event in seen.values()]
    assert task_id is None or sequences == sorted(sequences)
    return [short(event["data"]) for event in seen.values()]


@pytest.mark.parametrize("atomic", [True, False])
async def test_every_event_of_every_task_is_published_in_order(atomic):
    """Whether or not it has webhooks; then nothing of it is left in the store, nor listed."""
    shop, store, topic, webhooks = Shop(), MemoryStore(atomic=atomic), FakeTopic(), FakeWebhooks()
    async with started(shop.agent, store, topic=topic, webhooks=webhooks) as engine:
        plain = await send(engine, shop, "look", "m1")
        with_webhook = await begin(engine, shop, "buy", "m2")
        stream = await send(engine, shop, "talk", "m3", data={"what": "x", "count": 300})
        asking = await send(engine, shop, "choose", "m4")
        await settled(engine, asking)
        await delivered(engine)
        assert topic_key(asking) in store.data
        await answer(engine, shop, asking, "red")
        for task_id in (plain, with_webhook, stream, asking):
            await settled(engine, task_id)
        await delivered(engine)
    assert heard(topic, plain) == heard(topic, with_webhook) == told(webhooks) == EVENTS
    assert heard(topic, stream) == ["SUBMITTED", "WORKING", *(f"{n} " for n in range(300)), "done", "COMPLETED"]
    assert heard(topic, asking)[-4:] == ["INPUT_REQUIRED", "WORKING", "+", "COMPLETED"]
    assert len({event["id"] for event in topic.published}) == len(topic.published)
    assert not [key for key in store.data if key.endswith(":topic")]


async def test_without_a_topic_nothing_is_paid():
    """The same operations and bytes as ever, and no list."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store, webhooks=FakeWebhooks()) as engine:
        await settled(engine, await send(engine, shop, "buy"))
        assert not engine.journal._due
    assert not [key for key in store.data if key.startswith(("outbox:", "push:"))]


@pytest.mark.parametrize(("skill", "writes", "reads"), [("look", 1, 1), ("buy", 1, 5)])
async def test_what_publishing_costs_at_the_store(skill, writes, reads):
    """A write when it is told, shared with what else is written then; a read per entry; one when it goes on later."""
    shop, counted = Shop(), {}
    for topic in (None, FakeTopic()):
        store = CountingStore()
        async with started(shop.agent, store, topic=topic) as engine:
            await settled(engine, await send(engine, shop, "look", "warm-up"))
            await idle(engine)
            await until(lambda engine=engine: not engine.journal.slot.outbox.all)
            before = store.writes, store.reads
            await settled(engine, await send(engine, shop, skill, "m2"))
            await idle(engine)
            await until(lambda engine=engine: not engine.outbox and not engine.journal.slot.outbox.all)
            counted[topic is not None] = store.writes - before[0], store.reads - before[1]
    assert counted[True][0] - counted[False][0] <= writes
    assert counted[True][1] - counted[False][1] <= reads


async def test_what_fails_is_tried_again_before_anything_else():
    """In its order; another task's events need not wait."""
    shop, topic = Shop(), FakeTopic()
    topic.answers = [DOWN, DOWN, Outcome(delivered=True), DOWN]
    async with started(shop.agent, MemoryStore(), topic=topic, backoff=FAST) as engine:
        await settled(engine, await send(engine, shop, "buy"))
        await delivered(engine)
    assert heard(topic) == EVENTS


@pytest.mark.parametrize("die_after", range(8))
@pytest.mark.parametrize("atomic", [True, False])
async def test_a_crash_loses_no_event_and_no_order(die_after, atomic):
    """Cut off from its store after so many events: the next process repeats some, under the same ids."""

    class Dies(FakeTopic):
        async def publish(self, *event):
            if len(self.published) == die_after:
                store.down = True
            return await super().publish(*event)

    shop, topic, later = Shop(), Dies(), FakeTopic()
    store, after = MemoryStore(atomic=atomic), MemoryStore(atomic=atomic)
    async with started(shop.agent, store, topic=topic) as engine:
        task_id = await send(engine, shop, "talk", data={"what": "x", "count": 3})
        await until(lambda: len(topic.published) >= die_after)
        await until(lambda: store.down or len(topic.published) == 7)
        after.data, later.published = dict(store.data), list(topic.published)
        store.down, die_after = False, -1
    async with started(shop.agent, after, topic=later) as engine:
        await settled(engine, task_id)
        await until(lambda: not engine.outbox and not engine.journal.slot.outbox.all)
    assert first_heard(later, task_id) == await logged(after, task_id)


async def logged(store, task_id):
    """All events of a task, by its log."""
    folded, entries = await read_log(store, task_id)
    places = [(n, i, record) for n, entry in enumerate(entries, 1) for i, record in enumerate(entry.records)]
    events = [event_of(record, folded.meta, (n, i)) for n, i, record in places]
    return [short(MessageToDict(to_stream_response(event))) for event in events if event is not None]


async def test_a_dead_replicas_events_are_published_by_who_takes_it_over(monkeypatch):
    """None is lost, whatever the dead one had published."""
    cluster, shop, topic = Cluster(), Shop(), FakeTopic()
    topic.hold = asyncio.Event()
    async with cluster.stack:
        one = await cluster.replica(shop, topic=topic)
        tasks = [await send(one, shop, "look", f"m{n}") for n in range(50)]
        await asyncio.gather(*(settled(one, task_id) for task_id in tasks))
        assert one.journal.slot.outbox.all == set(tasks)
        cluster.kill(one)
        await one.outbox.stop(0)
        topic.hold.set()
        two = await cluster.replica(shop, topic=topic)
        await until(lambda: len(topic.published) >= 50 * len(EVENTS))
        await until(lambda: not two.journal.slot.outbox.all)
    for task_id in tasks:
        assert first_heard(topic, task_id) == EVENTS


async def test_two_replicas_that_both_write_a_task_publish_it_whole():
    """One runs it, the other cancels it: what a consumer has not seen comes in order."""
    cluster, shop, topic = Cluster(), Shop(), FakeTopic()
    async with cluster.stack:
        one, two = await cluster.replica(shop, topic=topic), await cluster.replica(shop, topic=topic)
        task_id = await send(one, shop, "choose")
        await settled(one, task_id)
        await answer(two, shop, task_id, "red")
        await settled(two, task_id)
        await until(lambda: not one.journal.slot.outbox.all and not two.journal.slot.outbox.all)
    assert first_heard(topic, task_id) == [
        *["SUBMITTED", "WORKING", "WORKING", "INPUT_REQUIRED", "WORKING", "+", "COMPLETED"]
    ]


async def test_webhooks_wait_while_only_the_topic_is_allowed(caplog):
    """They are told when their operator allows them again, and the topic hears nothing twice."""
    shop, store, topic, webhooks = Shop(), MemoryStore(), FakeTopic(), FakeWebhooks()
    webhooks.hold["https://example.org/hook"] = asyncio.Event()
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        task_id = await begin(engine, shop, "choose")
        await settled(engine, task_id)
    async with started(shop.agent, store, topic=topic) as engine:
        await answer(engine, shop, task_id, "red")
        await settled(engine, task_id)
        await until(lambda: heard(topic)[-1:] == ["COMPLETED"])
        await until(lambda: not engine.outbox)
        assert engine.journal.slot.outbox.all == {task_id}
    assert "told no more" not in caplog.text
    webhooks.hold.clear()
    async with started(shop.agent, store, webhooks=webhooks, topic=topic) as engine:
        await delivered(engine)
    assert told(webhooks) == heard(topic)
    assert len({event["id"] for event in topic.published}) == len(topic.published)


async def test_a_topic_that_was_given_up_is_a_dead_letter(monkeypatch):
    """Listed without an address, published after all when asked for; and its cursor expires with its task."""
    monkeypatch.setattr(dead_module, "LOOK_SECONDS", 0.01)
    shop, store, topic = Shop(), MemoryStore(), FakeTopic()
    topic.answers = [Outcome(delivered=True), *[DOWN] * 10_000]
    async with started(shop.agent, store, topic=topic, backoff=IMPATIENT) as engine:
        task_id = await send(engine, shop, "buy")
        await settled(engine, task_id)
        await delivered(engine)
        await until(lambda: engine.outbox.dead)
        (letter,) = await dead_letters(store)
        assert (letter.task_id, letter.config_id, letter.url, letter.waiting) == (task_id, "", "", 3)
        read = await Retention(engine.journal, engine.slots, Keep(), engine._clock)._read(task_id)
        assert topic_key(task_id) in Tombstone(0, 0, "", read.n, tuple(read.beside)).rest(task_id)
        topic.answers.clear()
        assert await ask_for(store, [letter])
        await until(lambda: heard(topic) == EVENTS)
        await delivered(engine)
    assert not [key for key in store.data if key.endswith(":topic")]


async def test_a_broker_that_is_down_fills_no_memory(monkeypatch):
    """What is beyond a number waits on the list, over a restart too, and is published when there is room."""
    monkeypatch.setattr(outbox_module, "MOST_WAITING", 10)
    shop, store, topic = Shop(), MemoryStore(), FakeTopic()
    topic.hold = asyncio.Event()
    async with started(shop.agent, store, topic=topic) as engine:
        tasks = [await send(engine, shop, "look", f"m{n}") for n in range(100)]
        await asyncio.gather(*(settled(engine, task_id) for task_id in tasks))
        assert len(engine.outbox) == 10
    async with started(shop.agent, store, topic=topic, webhooks=FakeWebhooks()) as engine:
        await until(lambda: len(engine.outbox) == 10)
        tasks.append(await begin(engine, shop, "look", "with a webhook"))
        await settled(engine, tasks[-1])
        assert tasks[-1] in engine.outbox._mail  # nobody waits for the topic to tell webhooks
        topic.hold.set()
        await delivered(engine)
    assert all(first_heard(topic, task_id) == EVENTS for task_id in tasks)


async def test_webhooks_that_hang_hold_up_no_topic():
    """Though they have all the places that webhooks have."""
    shop, topic, webhooks = Shop(), FakeTopic(), FakeWebhooks()
    async with started(shop.agent, MemoryStore(), topic=topic, webhooks=webhooks) as engine:
        for n in range(AT_ONCE["all"]):
            url = f"https://slow{n}.example/"
            webhooks.hold[url] = asyncio.Event()
            sent = message("", f"m{n}", data={"what": "hat"})
            await engine.intake.create(caller(shop.agent, f"owner {n}"), "", shop.skill("look"), sent, webhook(url=url))
        await until(lambda: len(webhooks.attempts) == AT_ONCE["all"])
        await settled(engine, await send(engine, shop, "look", "plain"))
        await until(lambda: heard(topic).count("COMPLETED") == AT_ONCE["all"] + 1)


async def test_the_topic_is_tried_again_soon():
    """It is one broker for all tasks: when that is back, nobody waits for an hour, as for a webhook."""
    topic = FakeTopic()
    topic.answers = [DOWN]
    delivery = Delivery(None, topic, FakeAgents(), WebhookMetrics("shop"), clock=lambda: 1_000)
    meta = {"task": "t", "context": "c", "skill": "look", "tenant": "", "owner": "ada", "trace": ""}
    event = event_of(["status", 1, 1, b"", "", 0], meta, (1, 0))
    cursor = Cursor((1, 0), (0, 0), attempts=30, failing_since=1)
    assert not await delivery.attempt(Mail("t", meta), hook_of_topic("t"), cursor, event, 1)
    assert 0 < cursor.next_at - 1_000 <= OWN_MOST_SECONDS * 1_000
