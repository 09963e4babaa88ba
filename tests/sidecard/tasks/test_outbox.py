"""Webhooks are told of every event, in order, at least once: whatever fails, and whoever dies in between."""

import asyncio
import json
import random

import pytest
from a2a.types import Artifact, Part, TaskPushNotificationConfig, TaskState

from sidecard.egress import Destinations
from sidecard.push import Outcome, Webhooks
from sidecard.tasks import outbox as outbox_module
from sidecard.tasks.cursor import Backoff, Cursor, cursor_key
from sidecard.tasks.delivery import AT_ONCE
from sidecard.tasks.mail import is_mark
from sidecard.tasks.state import Webhook
from sidecard.testing import FakeWebhooks, MemoryStore, caller, message, started
from tests.sidecard.receiver import BUSY, receiving
from tests.sidecard.tasks.shop import Shop, answer, idle, send, settled, until

S = TaskState
FAST = Backoff(first=0.002, most=0.02, chance=random.Random(1))
URL = "https://example.org/hook"
DOWN = Outcome(problem="down")


def webhook(config_id="w", url=URL, **fields):
    return TaskPushNotificationConfig(id=config_id, url=url, **fields)


async def begin(engine, shop, skill, message_id="m1", *, hook=None, data=None):
    """Send a first message that comes with a webhook."""
    sent = message("", message_id, data=data or {"what": "hat"})
    return await engine.intake.create(caller(shop.agent), "", shop.skill(skill), sent, hook or webhook())


async def append(engine, task_id, *records):
    async with engine.borrow(task_id) as live:
        live.append(*records)
        await live.commit()


def push(config_id="w", url=URL):
    return ["push", config_id, webhook(config_id, url).SerializeToString()]


def told(webhooks, url=URL):
    """What a receiver was told, in short: states, and the texts of artifacts."""
    return [short(json.loads(body)) for to, _, body in webhooks.received if to == url]


def short(event):
    if "statusUpdate" in event:
        return event["statusUpdate"]["status"]["state"].removeprefix("TASK_STATE_")
    return "".join(part.get("text", "+") for part in event["artifactUpdate"]["artifact"]["parts"])


def nothing_due(engine):
    return not engine.outbox and all(map(is_mark, engine.journal.slot.outbox.all))


async def delivered(engine):
    """Return once all that the tasks do by themselves is done and told."""
    await idle(engine)
    await until(lambda: nothing_due(engine))
    await idle(engine)
    assert not engine.outbox._delivery._turns._places
    assert not engine.journal._due


@pytest.mark.parametrize(
    ("skill", "events"),
    [
        ("look", ["SUBMITTED", "WORKING", "+", "COMPLETED"]),
        ("buy", ["SUBMITTED", "WORKING", "+", "COMPLETED"]),
        ("picky", ["SUBMITTED", "WORKING", "REJECTED"]),
        ("broken", ["SUBMITTED", "WORKING", "FAILED"]),
    ],
)
async def test_a_webhook_that_came_with_the_message_is_told_everything(skill, events):
    """From the first event to the last, also of a task that ended with its first entry; then nothing is left."""
    shop, webhooks, store = Shop(), FakeWebhooks(), MemoryStore()
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        task_id = await begin(engine, shop, skill)
        await delivered(engine)
        assert told(webhooks) == events
        ids = [webhook_id for _, webhook_id, _ in webhooks.received]
        assert len(set(ids)) == len(ids)
        assert all(
            json.loads(body)[next(iter(json.loads(body)))]["taskId"] == task_id for *_, body in webhooks.received
        )


async def test_tasks_without_webhooks_pay_nothing():
    """No list, no cursor."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store, webhooks=FakeWebhooks()) as engine:
        await settled(engine, await send(engine, shop, "buy"))
    assert not [key for key in store.data if key.startswith(("outbox:", "push:"))]


async def test_a_webhook_is_told_what_happens_after_it_was_registered():
    """Each from its own beginning; one that is deleted is told no more, and made again begins anew."""
    shop, webhooks = Shop(), FakeWebhooks()
    async with started(shop.agent, MemoryStore(), webhooks=webhooks) as engine:
        task_id = await begin(engine, shop, "choose", hook=webhook("first", "https://a.example/"))
        await settled(engine, task_id)
        await append(engine, task_id, push("second", "https://b.example/"), push("third", "https://c.example/"))
        await delivered(engine)
        await append(engine, task_id, ["unpush", "third"])
        await answer(engine, shop, task_id, "red")
        await settled(engine, task_id)
        await delivered(engine)
    before = ["SUBMITTED", "WORKING", "WORKING", "INPUT_REQUIRED"]
    assert told(webhooks, "https://a.example/") == [*before, "WORKING", "+", "COMPLETED"]
    assert told(webhooks, "https://b.example/") == ["WORKING", "+", "COMPLETED"]
    assert told(webhooks, "https://c.example/") == []


async def test_what_fails_is_tried_again_before_anything_else():
    """The same event under the same id, until the receiver takes it; nothing overtakes it."""
    shop, webhooks = Shop(), FakeWebhooks()
    webhooks.answers[URL] = [DOWN, DOWN, Outcome(delivered=True), DOWN]
    async with started(shop.agent, MemoryStore(), webhooks=webhooks, backoff=FAST) as engine:
        await begin(engine, shop, "buy")
        await delivered(engine)
    assert told(webhooks) == ["SUBMITTED", "WORKING", "+", "COMPLETED"]
    ids = [webhook_id for _, webhook_id in webhooks.attempts]
    assert ids == [ids[0]] * 3 + [ids[3]] * 2 + ids[5:]
    assert len(set(ids)) == 4


async def test_a_restart_goes_on_delivering():
    """What was due when the process died, to the webhook that was behind; what is delivered is not repeated."""
    shop, store, webhooks = Shop(), MemoryStore(), FakeWebhooks()
    webhooks.hold["https://slow.example/"] = asyncio.Event()
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        task_id = await begin(engine, shop, "choose", hook=webhook("slow", "https://slow.example/"))
        await append(engine, task_id, push("quick"))
        await settled(engine, task_id)
        await answer(engine, shop, task_id, "red")
        await settled(engine, task_id)
        await until(lambda: told(webhooks)[-1:] == ["COMPLETED"])
        assert engine.journal.slot.outbox.all == {task_id}
        quick = told(webhooks)
    assert not told(webhooks, "https://slow.example/")
    webhooks.hold.clear()
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        await delivered(engine)
    events = ["SUBMITTED", "WORKING", "WORKING", "INPUT_REQUIRED", "WORKING", "+", "COMPLETED"]
    assert told(webhooks, "https://slow.example/") == events
    assert told(webhooks) == quick
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        await delivered(engine)
    assert told(webhooks, "https://slow.example/") == events


@pytest.mark.parametrize("die_after", range(6))
async def test_a_crash_repeats_and_loses_no_order(die_after):
    """Cut off from its store after so many deliveries: the next process repeats at most what had no cursor yet."""
    shop, webhooks = Shop(), FakeWebhooks()
    store = MemoryStore()
    webhooks.answers[URL] = [Outcome(delivered=True)] * die_after
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        task_id = await begin(engine, shop, "talk", data={"what": "x", "count": 3})
        await settled(engine, task_id)
        await until(lambda: len(webhooks.received) >= die_after)
        crashed = MemoryStore()
        crashed.data = dict(store.data)
        before = list(webhooks.received)
    webhooks.received = list(before)
    async with started(shop.agent, crashed, webhooks=webhooks) as engine:
        await delivered(engine)
    first_seen = list(dict.fromkeys((webhook_id, body) for _, webhook_id, body in webhooks.received))
    events = [short(json.loads(body)) for _, body in first_seen]
    assert events == ["SUBMITTED", "WORKING", "0 ", "1 ", "2 ", "done", "COMPLETED"]


async def test_a_stop_stores_how_far_each_webhook_is():
    """Also in the middle of a turn: the next process repeats nothing."""

    class Blocks(FakeWebhooks):
        async def send(self, config, webhook_id, body):
            if len(self.received) == 2:
                await asyncio.Event().wait()
            return await super().send(config, webhook_id, body)

    shop, store, first, second = Shop(), MemoryStore(), Blocks(), FakeWebhooks()
    async with started(shop.agent, store, webhooks=first) as engine:
        await begin(engine, shop, "look")
        await until(lambda: len(first.received) == 2)
    async with started(shop.agent, store, webhooks=second) as engine:
        await delivered(engine)
    assert told(first) + told(second) == ["SUBMITTED", "WORKING", "+", "COMPLETED"]


async def test_a_slow_receiver_holds_up_nobody_else():
    """However many tasks wait for it: other receivers are told at once, and only so many wait at once."""
    shop, webhooks = Shop(), FakeWebhooks()
    slow = "https://slow.example/"
    webhooks.hold[slow] = asyncio.Event()
    async with started(shop.agent, MemoryStore(), webhooks=webhooks) as engine:
        for n in range(100):
            await begin(engine, shop, "look", f"slow{n}", hook=webhook(url=slow))
        for n in range(10):
            await begin(engine, shop, "look", f"quick{n}")
        await until(lambda: told(webhooks).count("COMPLETED") == 10)
        assert len(webhooks.attempts) - len(webhooks.received) == AT_ONCE["receiver"]
        webhooks.hold[slow].set()
        await delivered(engine)
        assert told(webhooks, slow).count("COMPLETED") == 100


async def test_one_owners_receivers_hold_up_no_other_owner():
    """Though it has as many as there are places in all."""
    shop, webhooks = Shop(), FakeWebhooks()
    async with started(shop.agent, MemoryStore(), webhooks=webhooks) as engine:
        for n in range(AT_ONCE["all"]):
            url = f"https://slow{n}.example/"
            webhooks.hold[url] = asyncio.Event()
            await begin(engine, shop, "look", f"slow{n}", hook=webhook(url=url))
        sent = message("", "m1", data={"what": "hat"})
        await engine.intake.create(caller(shop.agent, "bob"), "", shop.skill("look"), sent, webhook())
        await until(lambda: told(webhooks)[-1:] == ["COMPLETED"])


async def test_events_are_read_from_the_log_and_turns_are_short():
    """A stream of thousands comes whole and in order, a turn at a time, with a cursor after each."""
    shop, webhooks, store = Shop(), FakeWebhooks(), MemoryStore()
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        task_id = await begin(engine, shop, "talk", data={"what": "x", "count": 2_000})
        await settled(engine, task_id)
        await delivered(engine)
    assert told(webhooks)[2:-2] == [f"{n} " for n in range(2_000)]
    assert cursor_key(task_id, "w") in store.data


async def test_a_deleted_webhook_hears_no_word_more():
    """Also when it was being tried, and the task leaves the outbox."""
    shop, webhooks = Shop(), FakeWebhooks()
    webhooks.hold[URL] = asyncio.Event()
    async with started(shop.agent, MemoryStore(), webhooks=webhooks) as engine:
        task_id = await begin(engine, shop, "choose")
        await settled(engine, task_id)
        await until(lambda: webhooks.attempts)
        await append(engine, task_id, ["unpush", "w"])
        webhooks.hold[URL].set()
        await delivered(engine)
    assert not webhooks.received


async def test_a_webhook_that_is_set_anew_goes_on_where_it_was():
    """At its new address, at once, also after the old one was gone."""
    shop, webhooks = Shop(), FakeWebhooks()
    webhooks.answers[URL] = [Outcome(delivered=True), Outcome(gone=True, problem="gone")]
    async with started(shop.agent, MemoryStore(), webhooks=webhooks) as engine:
        task_id = await begin(engine, shop, "choose")
        await settled(engine, task_id)
        await delivered(engine)
        assert told(webhooks) == ["SUBMITTED"]
        await append(engine, task_id, push(url="https://new.example/"))
        await answer(engine, shop, task_id, "red")
        await settled(engine, task_id)
        await delivered(engine)
    missed = ["WORKING", "WORKING", "INPUT_REQUIRED", "WORKING", "+", "COMPLETED"]
    assert told(webhooks, "https://new.example/") == missed
    assert len([url for url, _ in webhooks.attempts if url == URL]) == 2


async def test_an_entry_that_is_stored_while_a_webhook_is_given_up_leaves_nothing_listed():
    """What is noted of it then speaks of the entry before."""

    class Gated(MemoryStore):
        gate, waits = None, False

        async def write(self, creates, upserts, deletes=()):
            if self.gate and any(key.startswith("log:") for key, _ in creates):
                self.waits = True
                await self.gate.wait()
            await super().write(creates, upserts, deletes)

    shop, webhooks, store = Shop(), FakeWebhooks(), Gated()
    webhooks.hold[URL] = asyncio.Event()
    webhooks.answers[URL] = [Outcome(gone=True, problem="gone")]
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        task_id = await begin(engine, shop, "choose")
        await settled(engine, task_id)
        await until(lambda: webhooks.attempts)
        store.gate = asyncio.Event()
        async with engine.borrow(task_id) as live:
            live.append(live.status(S.TASK_STATE_WORKING))
            await until(lambda: store.waits)
            webhooks.hold[URL].set()
            await until(lambda: engine.journal._told)
            store.gate.set()
            await live.stored()
        await delivered(engine)
        assert not engine.journal.slot.outbox.all


@pytest.mark.parametrize(
    ("outcome", "patience", "over"), [(Outcome(gone=True, problem="gone"), 60, "gone"), (DOWN, 0.05, "dead")]
)
async def test_a_webhook_is_given_up(outcome, patience, over, caplog):
    """Gone for good, or not reached for as long as we are patient: said, stored with its place, and not due again."""
    shop, webhooks, store = Shop(), FakeWebhooks(), MemoryStore()
    webhooks.answers[URL] = [Outcome(delivered=True), *[outcome] * 1000]
    backoff = Backoff(first=0.002, most=0.02, patience=patience)
    async with started(shop.agent, store, webhooks=webhooks, backoff=backoff) as engine:
        task_id = await begin(engine, shop, "buy")
        await settled(engine, task_id)
        await delivered(engine)
    assert told(webhooks) == ["SUBMITTED"]
    assert "is told no more" in caplog.text
    kept = Cursor.of(Webhook(b"", (1, 2), (1, 2)), store.data[cursor_key(task_id, "w")])
    assert (kept.over, kept.place[0], kept.problem) == (over, 2, outcome.problem)
    attempts = len(webhooks.attempts)
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        await delivered(engine)
    assert len(webhooks.attempts) == attempts


async def test_patience_and_waits_outlive_a_restart():
    """A receiver that asked for peace has it, whoever runs."""
    shop, webhooks, store = Shop(), FakeWebhooks(), MemoryStore()
    webhooks.answers[URL] = [Outcome(problem="busy", retry_after=0.3)]
    async with started(shop.agent, store, webhooks=webhooks, backoff=FAST) as engine:
        await begin(engine, shop, "look")
        await until(lambda: any(key.startswith("push:") for key in store.data))
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with started(shop.agent, store, webhooks=webhooks, backoff=FAST) as engine:
        await delivered(engine)
    assert told(webhooks) == ["SUBMITTED", "WORKING", "+", "COMPLETED"]
    assert loop.time() - began > 0.15


async def test_a_store_that_is_down_delays_deliveries_and_repeats_none():
    """They go on when it is back."""
    shop, webhooks, store = Shop(), FakeWebhooks(), MemoryStore()
    webhooks.hold[URL] = asyncio.Event()
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        await begin(engine, shop, "look")
        await until(lambda: webhooks.attempts)
        store.down = True
        webhooks.hold[URL].set()
        await until(lambda: len(webhooks.received) == 4)
        store.lose_answers = 1
        store.down = False
        await delivered(engine)
    assert told(webhooks) == ["SUBMITTED", "WORKING", "+", "COMPLETED"]


async def test_deliveries_wait_while_the_operator_allows_none(caplog):
    """The task stays listed, this is said at each start, and it goes on when they are allowed again."""
    shop, webhooks, store = Shop(), FakeWebhooks(), MemoryStore()
    webhooks.hold[URL] = asyncio.Event()
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        await begin(engine, shop, "look")
    async with started(shop.agent, store) as engine:
        await until(lambda: "1 tasks wait" in caplog.text)
        assert not engine.outbox, "it waits on the list, not in memory"
    webhooks.hold.clear()
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        await delivered(engine)
    assert told(webhooks) == ["SUBMITTED", "WORKING", "+", "COMPLETED"]


async def test_an_entry_that_is_written_while_the_last_one_is_settled_stays_due(monkeypatch):
    """The list can't lose a task between two of its entries, however they and the cursors meet in batches."""
    monkeypatch.setattr(outbox_module, "TURN_EVENTS", 1)
    shop, webhooks, store = Shop(), FakeWebhooks(), MemoryStore()
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        tasks = [await begin(engine, shop, "choose", f"m{n}", hook=webhook()) for n in range(20)]
        for task_id in tasks:
            await settled(engine, task_id)
        for task_id in tasks:
            async with engine.borrow(task_id) as live:
                for _ in range(5):
                    live.append(
                        [
                            "artifact",
                            Artifact(artifact_id="a", parts=[Part(text="x")]).SerializeToString(),
                            False,
                            True,
                            "",
                            0,
                        ]
                    )
                    await asyncio.sleep(0)
                    assert task_id in engine.journal.slot.outbox.all or live._pending or task_id in engine.outbox._mail
                await live.stored()
        await delivered(engine)
    assert len(told(webhooks)) == 20 * 9


def test_waits_grow_and_vary_and_respect_what_was_asked():
    """Doubled up to an hour, less up to a half by chance; a receiver's own wish counts up to a day."""
    backoff = Backoff(chance=random.Random(3))
    delays = [[backoff.delay(attempts) for _ in range(50)] for attempts in range(1, 30)]
    for attempts, some in enumerate(delays, 1):
        grown = min(3600, 2 ** (attempts - 1))
        assert grown / 2 <= min(some) < max(some) <= grown
    assert backoff.delay(1, 120) == 120
    assert backoff.delay(1, 10**9) == 86_400
    assert backoff.delay(10**6) <= 3600


def test_a_cursor_goes_on_unless_the_webhook_was_made_again():
    """Set anew it keeps its place and is tried at once; deleted and made again it begins there."""
    cursor = Cursor((5, 2), (1, 2), attempts=3, failing_since=1, next_at=2, over="dead", problem="down")
    assert Cursor.of(Webhook(b"", (1, 2), (1, 2)), cursor.pack()) == cursor
    assert Cursor.of(Webhook(b"", (1, 2), (7, 0)), cursor.pack()) == Cursor((5, 2), (7, 0))
    assert Cursor.of(Webhook(b"", (8, 0), (8, 0)), cursor.pack()) == Cursor((8, 1), (8, 0))
    assert Cursor.of(Webhook(b"", (8, 0), (8, 0)), None) == Cursor((8, 1), (8, 0))


async def test_a_real_receiver_gets_everything_in_order_over_http():
    """From a receiver that is busy now and then, over two processes of the agent."""
    shop, store = Shop(), MemoryStore()
    async with receiving() as receiver:
        hook = webhook(url=f"{receiver.origin}/hook", token="mine")
        receiver.answers = [BUSY, BUSY]
        for _ in range(2):
            webhooks = Webhooks(Destinations.parse(receiver.origin))
            async with started(shop.agent, store, webhooks=webhooks, backoff=FAST) as engine:
                task_id = await begin(engine, shop, "choose", hook=hook)
                await settled(engine, task_id)
                if len(receiver.requests) > 4:
                    await answer(engine, shop, task_id, "red")
                    await settled(engine, task_id)
                await delivered(engine)
            await webhooks.aclose()
    events = dict(receiver.events)
    assert [short(event) for event in events.values()][:4] == ["SUBMITTED", "WORKING", "WORKING", "INPUT_REQUIRED"]
    assert [short(event) for event in events.values()][4:] == ["WORKING", "+", "COMPLETED"]
    assert len(receiver.events) == len(events) + 2
