"""Every kind of task, with a fault at every single operation of the store: a legal end, effects at most once."""

import asyncio
import contextlib
import logging
import random
import sys
from collections import Counter

import msgpack
import pytest
from a2a.types import TaskPushNotificationConfig, TaskState

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks import slots
from sidecard.tasks.cursor import Backoff
from sidecard.tasks.engine import Engine
from sidecard.tasks.loading import load
from sidecard.tasks.slots import Slot
from sidecard.tasks.states import TERMINAL, state_name
from sidecard.testing import KEY, FakeAgents, FakeWebhooks, MemoryStore, caller, ended, message
from tests.sidecard.tasks.shop import Receipt, Shop, answer, idle, send, text_of, until

S = TaskState
KINDS = ("look", "buy", "order", "choose", "through", "climb", "both", "nap", "talk", "tell", "told", "cancel")
LEGAL = {
    "buy": {S.TASK_STATE_COMPLETED, S.TASK_STATE_FAILED},
    "cancel": {S.TASK_STATE_CANCELED},
    "orphan": {S.TASK_STATE_CANCELED},
}
FAST = Backoff(first=0.001, most=0.002)
FAULTS = ("dies before", "dies after", "answer lost", "nothing told", "refused")


class FaultyStore(MemoryStore):
    """One process's way to a store that outlives it; the n-th operation after `arm` meets a fault."""

    def __init__(self, data: dict[str, bytes], *, atomic: bool) -> None:
        super().__init__(atomic=atomic)
        self.data = data
        self.died = asyncio.Event()
        self.operations = 0
        self.at = 0
        self.fault = ""

    def arm(self, at: int, fault: str) -> None:
        self.operations, self.at, self.fault = 0, at, fault

    def _begins(self) -> str:
        self.operations += 1
        fault = self.fault if self.operations == self.at and not self.down else ""
        if fault == "dies before":
            self.down = True
            self.died.set()
        if fault == "nothing told":
            raise StoreUnavailable("not reached")
        if fault == "refused":
            raise TaskConflict("refused for no reason")
        return fault

    def _ends(self, fault: str) -> None:
        if fault == "dies after":
            self.down = True
            self.died.set()
        if fault in ("dies after", "answer lost"):
            raise StoreUnavailable("the answer was lost")

    async def write(self, creates, upserts, deletes=()):
        fault = self._begins()
        await super().write(creates, upserts, deletes)
        self._ends(fault)

    async def read(self, keys):
        try:
            fault = self._begins()
        except TaskConflict:
            fault = ""
        found = await super().read(keys)
        self._ends(fault)
        return found


class Job:
    """A client that wants one task done, over as many processes as it takes."""

    def __init__(self, kind: str, *, atomic: bool = True) -> None:
        self.kind = kind
        self.atomic = atomic
        self.shop = Shop()
        self.data: dict[str, bytes] = {}
        self.acknowledged = ""
        self.webhooks = FakeWebhooks()
        self.agents = FakeAgents(
            {
                "maker": [ended("t1", Receipt(said="made"))],
                "tester": [ended("t2", Receipt(said="tested"))],
            },
        )
        if kind == "orphan":  # what is delegated can't be canceled before its parent has ended
            self.agents.hold, self.agents.down = asyncio.Event(), {"maker"}
        if kind == "climb":
            self.agents.answers["maker"].insert(0, ended("t1", state=S.TASK_STATE_INPUT_REQUIRED, says="Which?"))

    async def drive(self, engine: Engine) -> None:
        """Send, answer and cancel, again and again where it fails, until the task has ended."""
        skill = {"climb": "through", "cancel": "slow", "orphan": "through"}.get(self.kind, self.kind)
        while True:
            with contextlib.suppress(StoreUnavailable):
                if not self.acknowledged:
                    data = {"what": "hat", "count": 20 if skill in ("talk", "tell") else 1}
                    if self.kind == "told":
                        self.acknowledged = await self.send_with_webhook(engine)
                    else:
                        self.acknowledged = await send(engine, self.shop, skill, data=data)
                async with engine.borrow(self.acknowledged) as live:
                    assert live is not None, "an acknowledged task is gone"
                    while self.kind == "orphan" and not (live.folded.children or live.folded.ended):
                        await live.changed()
                    if self.kind in ("cancel", "orphan") and not live.ended:
                        with contextlib.suppress(TaskConflict):
                            await engine.cancel(live, caller(self.shop.agent))
                    else:
                        await live.settled()
                    if live.folded.ended:
                        self.agents.down.clear()
                        return
                    if live.folded.state == S.TASK_STATE_INPUT_REQUIRED:
                        await answer(engine, self.shop, self.acknowledged, "red")
            await asyncio.sleep(0)

    async def send_with_webhook(self, engine: Engine) -> str:
        sent = message("", "m1", data={"what": "hat", "count": 3})
        hook = TaskPushNotificationConfig(id="w", url="https://example.org/")
        return await engine.intake.create(caller(self.shop.agent), "", self.shop.skill("talk"), sent, hook)

    async def process(self, at: int, fault: str) -> int:
        """One process from start to its death, or to the task's end; returns how many operations it took."""
        store = FaultyStore(self.data, atomic=self.atomic)
        engine = Engine(
            self.shop.agent,
            store,
            task_id_key=KEY,
            delegator=self.agents,
            scopes_of=lambda _: self.shop.agent.scopes,
            sender=self.webhooks,
            backoff=FAST,
        )
        await engine.start()
        store.arm(at, fault)
        driving = asyncio.create_task(self.drive(engine))
        dying = asyncio.create_task(store.died.wait())
        try:
            async with asyncio.timeout(10):
                await asyncio.wait([driving, dying], return_when=asyncio.FIRST_COMPLETED)
        finally:
            dying.cancel()
            driving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await driving
            if not store.died.is_set():
                await until(lambda: store.died.is_set() or not (engine.outbox or engine.journal.slot.outbox.all))
            operations = store.operations
            if not store.died.is_set():
                await idle(engine)
            await engine.stop(0)
        return operations

    async def check(self) -> int:
        """The log, the to-do list and the index agree, nothing happened twice; returns the task's end."""
        store = MemoryStore()
        store.data = self.data
        folded = await load(store, self.acknowledged)
        assert folded is not None
        assert folded.state in LEGAL.get(self.kind, {S.TASK_STATE_COMPLETED}), state_name(folded.state)
        assert self.shop.effects <= 1
        if folded.state == S.TASK_STATE_COMPLETED and self.kind == "buy":
            assert self.shop.effects == 1
        assert len(set(self.shop.keys)) <= 1
        assert len({m.message_id for _, m in self.agents.sent}) <= {"both": 2, "climb": 2}.get(self.kind, 1)
        if self.kind in ("talk", "tell"):
            told = list(map(text_of, folded.task.artifacts[:-1]))
            voices = 2 if self.kind == "talk" else 1
            assert told == ["".join(f"{n} " for n in range(voice, 20, voices)) for voice in range(voices)]
        states = [r[2] for r in records(self.data, folded.task.id) if r[0] == "status"]
        assert [s for s in states if s in TERMINAL] == states[-1:], "one terminal state, never left"
        stamps = [r[1] for r in records(self.data, folded.task.id) if r[0] == "status"]
        assert stamps == sorted(set(stamps))
        if self.kind == "told":
            first = dict.fromkeys(webhook_id for _, webhook_id, _ in self.webhooks.received)
            places = [tuple(map(int, webhook_id.split("_")[-2:])) for webhook_id in first]
            log = records(self.data, folded.task.id)
            assert places == sorted(places)
            assert len(places) == sum(r[0] in ("status", "artifact") for r in log), "told of every event, in order"
        if self.kind == "orphan":
            assert set(self.agents.canceled) == {("maker", "t1")}
        slot = await Slot.load(store, 0)
        assert not slot.todo.all, "an ended task is still listed"
        assert not slot.outbox.all, "everything is told"
        listing = await slot.lists.of(("", "ada"))
        lines = [line async for _, line in listing.newest_first(store)]
        assert +listing.counts == Counter({folded.state: 1})
        assert len(lines) <= listing.size <= len(lines) + (0 if self.atomic else 4)
        assert (lines[0].state, lines[0].at) == (folded.state, folded.task.status.timestamp.ToMilliseconds())
        return folded.state


def records(data, task_id):
    found, n = [], 1
    while entry := data.get(f"log:{task_id}:{n}"):
        found += msgpack.unpackb(entry)[5]
        n += 1
    return found


@pytest.mark.parametrize("atomic", [True, False], ids=["transactions", "key by key"])
@pytest.mark.parametrize("kind", [*KINDS, "orphan"])
async def test_a_fault_at_any_operation_of_the_store_does_no_harm(kind, atomic, caplog, capsys):
    """Whatever operation is lost, repeated, refused or its process's last one, the task reaches its legal end."""
    caplog.set_level(logging.CRITICAL)
    chance = random.Random(7)
    clean = Job(kind, atomic=atomic)
    most = await clean.process(0, "")
    await clean.check()
    ends: Counter[str] = Counter()
    for fault in FAULTS:
        for at in range(1, most + 1):
            job = Job(kind, atomic=atomic)
            try:
                async with asyncio.timeout(5):
                    await job.process(at, fault)
                    if fault.startswith("dies"):
                        await job.process(chance.randrange(1, 8), chance.choice(FAULTS[:2]))
                        await job.process(0, "")
                ends[state_name(await job.check())] += 1
            except BaseException as error:
                error.add_note(f"{kind}: {fault} at operation {at} of {most}")
                raise
    with capsys.disabled():
        print(f"{kind}: {most} operations, {sum(ends.values())} faults, ended {dict(ends)}", file=sys.stderr)


@pytest.mark.parametrize("atomic", [True, False], ids=["transactions", "key by key"])
async def test_a_fault_in_the_midst_of_a_checkpoint_does_no_harm(atomic, monkeypatch, caplog, capsys):
    """Also where keys are written alone, and every batch is a checkpoint: nothing is lost, or counted twice."""
    monkeypatch.setattr(slots, "CHECKPOINT_ENTRIES", 1)
    await test_a_fault_at_any_operation_of_the_store_does_no_harm("choose", atomic, caplog, capsys)
