"""Webhooks: each is told of every event of its task, in order, at least once, over restarts."""

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from a2a.types import StreamResponse, TaskPushNotificationConfig
from a2a.utils.proto_utils import to_stream_response
from google.protobuf.json_format import MessageToDict

from sidecard.egress import Origin
from sidecard.errors import LogBroken
from sidecard.push import Outcome
from sidecard.tasks.cursor import GONE, Backoff, Cursor, cursor_key, name_of
from sidecard.tasks.entry import Entry, Record, log_key
from sidecard.tasks.events import event_of
from sidecard.tasks.journal import Journal, Told, patiently
from sidecard.tasks.lives import Lives
from sidecard.tasks.state import EVENTS, FoldedTask, Webhook
from sidecard.tasks.turns import Turns
from sidecard.telemetry import WebhookMetrics, continue_trace, span

log = logging.getLogger("sidecard.tasks")

AT_ONCE = {"receiver": 8, "owner": 32, "all": 64}
"""Deliveries under way at once: to one origin, for one owner in one tenant, in all."""
TURN_EVENTS = 32
TURN_SECONDS = 5.0
"""After so many events, or so long, a webhook's cursor is stored, and others have their turn."""
TAKE_UP = 16
CHANGES = frozenset({"push", "unpush"})


class Sender(Protocol):
    """How webhooks are reached."""

    async def send(self, config: TaskPushNotificationConfig, webhook_id: str, body: bytes) -> Outcome:
        """Try once to deliver a StreamResponse; see push.Webhooks."""


@dataclass(slots=True, eq=False)
class _Hook:
    name: str
    key: str
    webhook: Webhook
    config: TaskPushNotificationConfig
    cursor: Cursor | None
    worker: "asyncio.Task[None] | None" = None


@dataclass(slots=True, eq=False)
class _Mail:
    """A task whose webhooks are to be told of its entries up to `end`."""

    task_id: str
    meta: dict[str, str]
    end: int = 0
    hooks: dict[str, _Hook] = field(default_factory=dict)

    def owes(self, hook: _Hook) -> bool:
        return hook.cursor is None or (not hook.cursor.over and hook.cursor.place[0] <= self.end)

    def through(self) -> int:
        """The last entry that all webhooks are told of, or will never be."""
        return min((self._through(hook) for hook in self.hooks.values()), default=self.end)

    def _through(self, hook: _Hook) -> int:
        if hook.cursor is None:
            return hook.webhook.since[0] - 1
        return self.end if hook.cursor.over else hook.cursor.place[0] - 1


class Outbox:
    """Delivers what is due by a stored log entry, and reads it from the log: memory holds cursors, not events.

    A webhook has one delivery under way at a time; webhooks wait for each other in no way but for a turn. A task stays
    on the journal's outbox list until all its webhooks are told, so that a restart goes on. How far each is stands
    beside the log, which may have ended, in a cursor: a crash repeats at most what one turn has delivered.
    """

    def __init__(
        self,
        journal: Journal,
        lives: Lives,
        sender: Sender,
        metrics: WebhookMetrics,
        *,
        clock: Callable[[], int],
        backoff: Backoff | None = None,
    ) -> None:
        """`clock` gives UTC in milliseconds."""
        self._journal = journal
        self._lives = lives
        self._sender = sender
        self._metrics = metrics
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._turns = Turns(AT_ONCE)
        self._mail: dict[str, _Mail] = {}
        self._working: set[asyncio.Task[None]] = set()
        self._last_words: list[asyncio.Future[None]] = []
        self._stopping = False

    def __len__(self) -> int:
        """Tasks with deliveries under way."""
        return len(self._mail)

    def start(self, task_ids: Collection[str]) -> None:
        """Tell webhooks from now on, beginning with what the last stop left."""
        self._stopping = False
        self._mail.clear()
        self.take_up(task_ids)

    def take_up(self, task_ids: Collection[str]) -> None:
        """Go on with what another replica left undelivered."""
        waiting = iter(sorted(task_ids))
        for number in range(min(TAKE_UP, len(task_ids))):
            self._spawn(self._take_up(waiting), f"webhooks {number}")

    async def stop(self, seconds: float) -> None:
        """Break off what is under way and store how far each webhook is, if the store takes it within that time."""
        self._stopping = True
        working = list(self._working)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        if self._last_words:
            await asyncio.wait(self._last_words, timeout=seconds)

    def stored(self, folded: FoldedTask, records: list[Record]) -> None:
        """An entry of a task is stored: deliver it, to the webhooks that the task has now."""
        kinds = {record[0] for record in records}
        if (folded.push and kinds & EVENTS) or (folded.task.id in self._mail and kinds & CHANGES):
            self._serve(folded)

    # -- who is to be told --------------------------------------------------------------------------------------------

    async def _take_up(self, task_ids: Iterator[str]) -> None:
        for task_id in task_ids:
            try:
                await patiently(partial(self._take_up_one, task_id))
            except Exception:
                log.exception("the webhooks of task %s can't be told", task_id)

    async def _take_up_one(self, task_id: str) -> None:
        async with self._lives.borrow(task_id) as live:
            if live is None:
                raise LogBroken(f"task {task_id} is listed and has no log")
            self._serve(live.folded)

    def _serve(self, folded: FoldedTask) -> None:
        if self._stopping:
            return
        task_id = folded.task.id
        mail = self._mail.setdefault(task_id, _Mail(task_id, folded.meta))
        mail.end = folded.n
        known, mail.hooks = mail.hooks, {}
        for config_id, webhook in folded.push.items():
            hook = known.pop(config_id, None)
            if hook is None or hook.webhook.version != webhook.version:
                cursor = hook.cursor.renewed(webhook) if hook and hook.cursor else None
                if hook and hook.worker:
                    hook.worker.cancel()
                config = TaskPushNotificationConfig.FromString(webhook.config)
                hook = _Hook(name_of(config_id), cursor_key(task_id, config_id), webhook, config, cursor)
            mail.hooks[config_id] = hook
        for hook in known.values():  # deleted: not a word more
            if hook.worker:
                hook.worker.cancel()
        for hook in mail.hooks.values():
            if hook.worker is None:
                self._work_on(mail, hook)
        if not mail.hooks:
            self._mail.pop(task_id)
            self._journal.told(Told(task_id, mail.end, mail.end, {}))

    def _work_on(self, mail: _Mail, hook: _Hook) -> None:
        hook.worker = self._spawn(self._work(mail, hook), f"webhook {hook.name} of {mail.task_id}")
        hook.worker.add_done_callback(lambda done: self._worked(mail, hook, done))

    def _worked(self, mail: _Mail, hook: _Hook, done: "asyncio.Task[None]") -> None:
        hook.worker = None
        if done.cancelled() or self._stopping or hook not in mail.hooks.values():
            return
        if mail.owes(hook) and done.exception() is None:  # just now
            self._work_on(mail, hook)
        elif self._mail.get(mail.task_id) is mail and not any(other.worker for other in mail.hooks.values()):
            del self._mail[mail.task_id]

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task

    # -- telling ------------------------------------------------------------------------------------------------------

    async def _work(self, mail: _Mail, hook: _Hook) -> None:
        """Tell one webhook until it is told everything, or is over."""
        try:
            if hook.cursor is None:
                stored = await patiently(partial(self._journal.store.read, [hook.key]))
                hook.cursor = Cursor.of(hook.webhook, stored.get(hook.key))
            receiver = str(Origin.of(hook.config.url))
            owner = repr((mail.meta["tenant"], mail.meta["owner"]))
            while True:
                if mail.owes(hook):
                    await asyncio.sleep(max(0, hook.cursor.next_at - self._clock()) / 1000)
                    async with self._turns.turn(receiver=receiver, owner=owner, all=""):
                        await self._turn(mail, hook, hook.cursor)
                await self._note(mail, hook, hook.cursor)
                if not mail.owes(hook):
                    return
        except asyncio.CancelledError:
            if self._stopping and hook.cursor is not None:
                self._last_words.append(self._note(mail, hook, hook.cursor))
            raise
        except Exception:
            log.exception("webhook %s of task %s is told no more until this agent restarts", hook.name, mail.task_id)
            raise

    def _note(self, mail: _Mail, hook: _Hook, cursor: Cursor) -> asyncio.Future[None]:
        return self._journal.told(Told(mail.task_id, mail.through(), mail.end, {hook.key: cursor.pack()}))

    async def _turn(self, mail: _Mail, hook: _Hook, cursor: Cursor) -> None:
        """Deliver some events, until one fails."""
        ends = asyncio.get_running_loop().time() + TURN_SECONDS
        left = TURN_EVENTS
        while mail.owes(hook):
            n, first = cursor.place
            entry = await patiently(partial(self._entry, mail.task_id, n))
            for number, record in enumerate(entry.records[first:], first):
                event = event_of(record, mail.meta, (n, number))
                if event is not None:
                    if not left or asyncio.get_running_loop().time() > ends:
                        return
                    left -= 1
                    if not await self._deliver(mail, hook, cursor, to_stream_response(event), entry.at):
                        return
                cursor.place = (n, number + 1)
            cursor.place = (n + 1, 0)

    async def _entry(self, task_id: str, n: int) -> Entry:
        key = log_key(task_id, n)
        stored = (await self._journal.store.read([key])).get(key)
        if stored is None:
            raise LogBroken(f"entry {n} of task {task_id} is gone: the state store lost writes")
        return Entry.unpack(stored)

    async def _deliver(self, mail: _Mail, hook: _Hook, cursor: Cursor, event: StreamResponse, at: int) -> bool:
        """Deliver the event at the cursor; False when it failed."""
        n, number = cursor.place
        webhook_id = f"msg_{mail.task_id}_{hook.name}_{n}_{number}"
        body = json.dumps(MessageToDict(event), ensure_ascii=False, separators=(",", ":")).encode()
        with continue_trace(mail.meta["trace"]), span("webhook", task_id=mail.task_id, attempt=cursor.attempts + 1):
            outcome = await self._sender.send(hook.config, webhook_id, body)
        if outcome.delivered:
            cursor.delivered()
            self._metrics.delivered((self._clock() - at) / 1000)
            return True
        cursor.failed(self._clock(), self._backoff, outcome.problem, outcome.retry_after)
        if outcome.gone:
            cursor.over = GONE
        self._metrics.failed(cursor.over or "failed")
        where = f"webhook {hook.name} of task {mail.task_id}"
        if cursor.over:
            log.error("%s is told no more after %d attempts: %s", where, cursor.attempts, cursor.problem)
        else:
            wait = (cursor.next_at - self._clock()) / 1000
            log.warning("%s: %s; tried again in %.1f s", where, cursor.problem, wait)
        return False
