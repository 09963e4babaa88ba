"""The engine: starts tasks, takes answers and cancels, and takes up again what a restart left behind."""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgpack
from a2a.types import Message, TaskPushNotificationConfig, TaskState

from sidecard.agent import Agent, Skill
from sidecard.callers import Caller
from sidecard.errors import ConfigurationError, SidecardError, StoreUnavailable, TaskConflict
from sidecard.tasks.cursor import Backoff
from sidecard.tasks.entry import Record
from sidecard.tasks.identity import DifferentMessage, check_same, digest_of
from sidecard.tasks.journal import Journal
from sidecard.tasks.live import Live, TaskEnded
from sidecard.tasks.lives import Lives
from sidecard.tasks.outbox import Outbox, Sender
from sidecard.tasks.runner import Runner
from sidecard.tasks.state import state_name
from sidecard.tasks.store import StateStore, prove
from sidecard.tasks.watch import Delegator, Watches
from sidecard.telemetry import TaskMetrics, WebhookMetrics, current_traceparent

__all__ = ["DifferentMessage", "Engine", "system_clock"]

log = logging.getLogger("sidecard.tasks")

FIRST_ENTRY_SECONDS = 0.005
"""How long the first entry of an idempotent task waits for its run: a short task then costs one write."""
RERUN_SECONDS = 1.0
CANCEL_SECONDS = 20.0
"""How long a cancel waits for the task's end; it ends afterwards all the same."""
STOP_SECONDS = 3.0
"""How long effects under way may take to be recorded when the agent stops."""
TAKE_UP = 16
"""Tasks read back at once after a restart."""
WAKING = frozenset({"new", "message", "done", "cancel"})
"""Records after which a task may have something to do."""


def system_clock() -> int:
    """UTC now, in milliseconds."""
    return time.time_ns() // 1_000_000


class Engine:
    """All tasks of one agent on this replica.

    What moves a task on is not the request that asked for it but the entry that was stored: so a caller that goes away
    stops nothing, and a restart finds everything that a crash interrupted.
    """

    def __init__(
        self,
        agent: Agent,
        store: StateStore,
        *,
        task_id_key: bytes,
        delegator: Delegator,
        scopes_of: Callable[[str], frozenset[str]],
        sender: Sender | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], int] = system_clock,
    ) -> None:
        """`task_id_key` makes task ids unguessable and repeatable; it must never change while tasks are remembered.

        Without a `sender` no webhook is told anything; what is due then waits. `clock` gives UTC in milliseconds.
        """
        self.agent = agent
        self.store = store
        self.replica = secrets.token_hex(6)
        self.journal = Journal(store, "0")
        self._lives = Lives(self.journal, self.replica, clock, self._stored)
        self._key = task_id_key
        self._watches = Watches(self._lives, delegator, self._in_background)
        self._runner = Runner(agent, self._watches, scopes_of, self._again)
        self._metrics = TaskMetrics(agent.name)
        self.outbox: Outbox | None = None
        if sender is not None:
            metrics = WebhookMetrics(agent.name)
            self.outbox = Outbox(self.journal, self._lives, sender, metrics, clock=clock, backoff=backoff)
        self._background: set[asyncio.Task[None]] = set()
        self._stopping = False

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Prove the store, and take up, beside serving, every task that was on its way when this agent last stopped.

        Raises ConfigurationError for a store or key that can't be trusted with tasks, StoreUnavailable.
        """
        await prove(self.store, "state", f"probe:{self.replica}")
        await self._check_key()
        await self.journal.start()
        listed = self.journal.todo.all()
        if listed:
            log.info("taking up %d tasks again", len(listed))
            waiting = iter(listed)
            for number in range(TAKE_UP):
                self._in_background(self._take_up(waiting), f"take up {number}")
        if self.outbox is not None:
            self.outbox.start()
        elif undelivered := self.journal.outbox.all():
            log.warning("the webhooks of %d tasks wait until push notifications are allowed again", len(undelivered))

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop all runs where they are; the next start goes on from what is stored.

        Effects under way have that long to end and be recorded.
        """
        self._stopping = True
        self._watches.stop()
        for task in list(self._background):
            task.cancel()
        runs = [live.run for live in self._lives.values() if live.run is not None]
        for run in runs:
            run.abandon()
        await asyncio.gather(*(run.ended(seconds) for run in runs), *self._background, return_exceptions=True)
        if self.outbox is not None:
            await self.outbox.stop(seconds)
        await self._lives.close()
        await self.journal.stop()

    async def _check_key(self) -> None:
        fingerprint = hashlib.sha256(b"task-id-key" + self._key).hexdigest()[:16].encode()
        with contextlib.suppress(TaskConflict):
            await self.store.write([("task-id-key", fingerprint)], {})
        stored = (await self.store.read(["task-id-key"])).get("task-id-key")
        if stored != fingerprint:
            raise ConfigurationError(
                "the secret task-id-key is not the one this state store's tasks were made with; with another key no "
                "repeated message would be recognised. Restore the old key, or start with an empty store."
            )

    # -- tasks --------------------------------------------------------------------------------------------------------

    def task_id(self, tenant: str, owner: str, message_id: str) -> str:
        """The id of the task that a first message makes: the same for the same message, unguessable for others."""
        parts = msgpack.packb([self.agent.name, tenant, owner, message_id])
        return hmac.new(self._key, parts, hashlib.sha256).hexdigest()[:32]

    def borrow(self, task_id: str) -> contextlib.AbstractAsyncContextManager[Live | None]:
        """The stored task, kept in memory as long as it is used; None where there is none.

        Raises LogBroken, StoreUnavailable.
        """
        return self._lives.borrow(task_id)

    async def create(
        self,
        caller: Caller,
        tenant: str,
        skill: Skill,
        message: Message,
        webhook: TaskPushNotificationConfig | None = None,
    ) -> str:
        """Start the task of a first message, or find the one that it has started before; returns its id, stored.

        A new task has the webhook, which has an id, from its first event on.

        Raises DifferentMessage, StoreUnavailable.
        """
        self._admit()
        task_id = self.task_id(tenant, caller.name, message.message_id)
        digest = digest_of(message, skill.id)
        live = await self._lives.find(task_id)
        if live is None:
            live = self._begin(caller, tenant, skill, message, digest, webhook=webhook)
        with self._lives.using(live):
            try:
                check_same(live, message, digest)
                await live.commit(hurry=not skill.idempotent)
                return task_id
            except TaskConflict:
                log.debug("task %s was made before", task_id)
        async with self.borrow(task_id) as stored:
            if stored is None:
                raise StoreUnavailable("the task could not be stored; send the same message again")
            check_same(stored, message, digest)
        return task_id

    def _begin(
        self,
        caller: Caller,
        tenant: str,
        skill: Skill,
        message: Message,
        digest: str,
        *,
        webhook: TaskPushNotificationConfig | None,
    ) -> Live:
        task_id = self.task_id(tenant, caller.name, message.message_id)
        meta = {
            "task": task_id,
            "context": message.context_id or f"c-{task_id[:16]}",
            "skill": skill.id,
            "version": skill.version,
            "owner": caller.name,
            "subject": caller.subject,
            "tenant": tenant,
            "trace": current_traceparent(),
        }
        message.task_id, message.context_id = task_id, meta["context"]
        live = self._lives.begin(meta)
        live.append(
            ["new", meta],
            ["message", message.message_id, digest, caller.subject, message.SerializeToString()],
            *_push(task_id, webhook),
            live.status(TaskState.TASK_STATE_SUBMITTED),
        )
        if skill.idempotent:
            loop = asyncio.get_running_loop()
            live.hold = loop.create_future()
            loop.call_later(FIRST_ENTRY_SECONDS, live.release)
            self._run(live, message)
        return live

    async def answer(
        self, live: Live, caller: Caller, message: Message, webhook: TaskPushNotificationConfig | None = None
    ) -> None:
        """Take a further message to a task: it answers the open question, if there is one. Returns when it is stored.

        The task then has the webhook, which has an id, from what follows the message on.

        Raises DifferentMessage, TaskEnded, StoreUnavailable.
        """
        self._admit()
        digest = digest_of(message, "")
        if message.message_id in live.messages:
            check_same(live, message, digest)
        else:
            message.context_id = live.meta["context"]
            working = [live.status(TaskState.TASK_STATE_WORKING)] if live.question is not None else []
            live.append(
                ["message", message.message_id, digest, caller.subject, message.SerializeToString()],
                *_push(live.task_id, webhook),
                *working,
            )
        await live.commit()

    async def cancel(self, live: Live, caller: Caller) -> None:
        """Cancel a task, what runs for it and what it has delegated. Returns when it has ended, or soon will.

        Raises TaskEnded when it had ended before, or ends otherwise meanwhile.
        """
        self._admit()
        if live.folded.cancel_by is None or live.ended:
            live.append(["cancel", caller.subject])
            await live.commit()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                while not live.folded.ended:
                    await live.changed()
        if live.folded.ended and live.folded.state != TaskState.TASK_STATE_CANCELED:
            raise TaskEnded(f"task {live.task_id} ended {state_name(live.folded.state)} before it could be canceled")

    def _admit(self) -> None:
        if self._stopping:
            raise StoreUnavailable("this agent is stopping; send the same message again")
        self.journal.admit()

    # -- moving on ----------------------------------------------------------------------------------------------------

    def _stored(self, live: Live, before: int, records: list[Record]) -> None:
        """An entry is stored: count it, tell webhooks, and move its task on."""
        if live.folded.state != before:
            skill, state = live.meta["skill"], state_name(live.folded.state)
            self._metrics.transition(skill, state_name(before) if before else "", state)
            if live.folded.ended:
                seconds = (live.folded.at - live.folded.created) / 1000
                self._metrics.ended(skill, state, seconds, reason=live.failure)
        if self.outbox is not None:
            self.outbox.stored(live.folded, records)
        if any(record[0] in WAKING for record in records):
            self._move_on(live)

    def _move_on(self, live: Live) -> None:
        """Let a stored task's skill run, or end it when it is to be canceled, unless only a person can move it on."""
        if self._stopping or live.ended or live.lost is not None or not live.folded.must_move:
            return
        if live.folded.cancel_by is None:
            self._run(live)
        elif not live.canceling:
            live.canceling = True
            self._in_background(self._finish_cancel(live), f"cancel {live.task_id}")

    def _run(self, live: Live, first: Message | None = None) -> None:
        if live.run is None:
            self._runner.start(live, first).add_done_callback(lambda _: self._lives.let_go(live))

    def _again(self, live: Live) -> None:
        """Try a run again in a while."""
        if not self._stopping:
            later = asyncio.get_running_loop().call_later
            later(RERUN_SECONDS, lambda: self._in_background(self._take_up(iter([live.task_id])), "again"))

    async def _take_up(self, task_ids: Iterator[str]) -> None:
        """Read tasks back and move them on, one after the other."""
        for task_id in task_ids:
            try:
                async with self.borrow(task_id) as live:
                    if live is not None:
                        self._move_on(live)
            except StoreUnavailable:
                await asyncio.sleep(RERUN_SECONDS)
                self._in_background(self._take_up(iter([task_id])), f"take up {task_id}")
            except Exception:
                log.exception("task %s can't be taken up again", task_id)

    async def _finish_cancel(self, live: Live) -> None:
        try:
            if live.run is not None:
                await live.run.cancel()
            if not live.ended and live.lost is None:
                await self._runner.end(live, TaskState.TASK_STATE_CANCELED, f"canceled by {live.folded.cancel_by}")
                await live.stored()
        except SidecardError as error:
            log.warning("task %s is not canceled here: %s", live.task_id, error)
        finally:
            live.canceling = False
            self._lives.let_go(live)

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        if self._stopping:
            work.close()
            return
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _push(task_id: str, webhook: TaskPushNotificationConfig | None) -> list[Record]:
    """The record of a webhook that came with a message."""
    if webhook is None:
        return []
    webhook.task_id = task_id
    return [["push", webhook.id, webhook.SerializeToString()]]
