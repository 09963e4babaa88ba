"""Taking messages in: each starts a task, or goes on with one, once, and nothing of it is stored uninspected."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from a2a.types import Message, TaskPushNotificationConfig

from sidecard.agent import Skill
from sidecard.callers import Caller
from sidecard.errors import SidecardError, StoreUnavailable, TaskConflict
from sidecard.extension import Granted
from sidecard.refusals import TooManyRequests
from sidecard.screening.finding import Withheld
from sidecard.screening.guard import CLEAN, Guard, Outcome
from sidecard.tasks import binding
from sidecard.tasks.act import Act
from sidecard.tasks.entry import Record, log_key
from sidecard.tasks.identity import TaskIds, check_digest, check_same, digest_of
from sidecard.tasks.live import Live
from sidecard.tasks.lives import Lives
from sidecard.tasks.screened import IN_PIECES
from sidecard.tasks.states import CANCELED, REJECTED, SUBMITTED, WORKING
from sidecard.tasks.store import StateStore
from sidecard.tasks.tokens import TaskTokens
from sidecard.tasks.tombstone import TaskExpired, Tombstone
from sidecard.telemetry import current_traceparent

log = logging.getLogger("sidecard.tasks")

FIRST_ENTRY_SECONDS = 0.02
"""How long the first entry of an idempotent task waits for its run, turns of a busy loop included: a short task then
costs one write."""
MOST_WITHHELD = 2_000
"""Entries of a log beyond which withheld answers leave no record in it any more."""


class Overtaken(SidecardError):
    """Nothing of a message was stored: what it was taken for an answer to was answered on another replica meanwhile."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message that was inspected: its digest as it was sent, the one to store, and what was decided."""

    digest: str
    stored: str
    outcome: Outcome


class Intake:
    """Takes messages in for one agent on this replica."""

    def __init__(
        self,
        store: StateStore,
        lives: Lives,
        ids: TaskIds,
        guard: Guard | None,
        clock: Callable[[], int],
        *,
        admit: Callable[[], None],
        check_room: Callable[[str, str], None],
        run: Callable[[Live, Message], None],
        rescue: Callable[[Live], Awaitable[None]],
        tokens: TaskTokens | None = None,
    ) -> None:
        """`admit` raises StoreUnavailable while nothing is taken in.

        `check_room` raises TooManyRequests for an owner and tenant of whom too many tasks wait. `run` lets the skill of
        a task run on its first message, before that is stored; `rescue` sees to it that a task goes on whose message
        comes again. `clock` gives UTC in milliseconds. `tokens` keeps what owners come with, where that is of use.
        """
        self._store = store
        self._lives = lives
        self._ids = ids
        self._guard = guard
        self._clock = clock
        self._tokens = tokens
        self._admit = admit
        self._check_room = check_room
        self._run = run
        self._rescue = rescue

    async def create(
        self,
        caller: Caller,
        tenant: str,
        skill: Skill,
        message: Message,
        webhook: TaskPushNotificationConfig | None = None,
        *,
        withdrawn: bool = False,
        act: Act | None = None,
    ) -> str:
        """Start the task of a first message, or find the one that it has started before; returns its id, stored.

        A new task has the webhook, which has an id, from its first event on. One whose message is `withdrawn` is
        canceled in its first entry: whenever the message comes, it has started nothing, and never will. One whose
        message content inspection withholds is rejected there, and the message is not stored. What starts a
        task is in the audit as this `act`, by the same write.

        Raises DifferentMessage, TaskExpired, StoreUnavailable, ScreeningFailed; TooManyRequests where too many tasks
        wait to be run.
        """
        self._admit()
        task_id = self._ids.of(tenant, caller.name, message.message_id)
        received = await self._inspect(task_id, skill.id, message, skill.id, own=True)
        digest = received.digest
        for former_id in self._ids.former(tenant, caller.name, message.message_id):
            if await self._made_before(former_id, message, digest, caller):
                return former_id
        live = await self._lives.find(task_id)
        if live is None:
            try:
                self._check_room(caller.name, tenant)
            except TooManyRequests:
                if not await self._made_before(task_id, message, digest, caller):
                    raise
                return task_id
            live = self._begin(
                task_id,
                caller,
                tenant,
                skill,
                message,
                received=received,
                webhook=webhook,
                withdrawn=withdrawn,
                act=act,
            )
        with self._lives.using(live):
            try:
                self._check_same(live, message, digest)
                self.lend(live, caller)
                await live.commit(hurry=not skill.idempotent)
                return task_id
            except TaskConflict:
                log.debug("task %s was made before", task_id)
        if not await self._made_before(task_id, message, digest, caller):
            raise StoreUnavailable("the task could not be stored; send the same message again")
        return task_id

    async def _made_before(self, task_id: str, message: Message, digest: str, caller: Caller) -> bool:
        """Whether this message made that task before, which then is seen to. Raises DifferentMessage, TaskExpired."""
        async with self._lives.borrow(task_id) as stored:
            if stored is None:
                await self._check_expired(task_id, message, digest)
                return False
            self._check_same(stored, message, digest)
            self.lend(stored, caller)
            await self._rescue(stored)
            return True

    def lend(self, live: Live, caller: Caller) -> None:
        """Let a task have what its owner comes with by now."""
        if self._tokens is not None and not live.ended:
            self._tokens.keep(live.meta, caller)

    async def _check_expired(self, task_id: str, message: Message, digest: str) -> None:
        key = log_key(task_id, 1)
        tombstone = Tombstone.of((await self._store.read([key])).get(key))
        if tombstone is not None:
            check_digest(tombstone.digest, message, *self._digests(digest))
            raise TaskExpired(f"task {task_id} of this message has expired; to have it done again use a new messageId")

    def _begin(
        self,
        task_id: str,
        caller: Caller,
        tenant: str,
        skill: Skill,
        message: Message,
        *,
        received: Received,
        webhook: TaskPushNotificationConfig | None,
        withdrawn: bool,
        act: Act | None,
    ) -> Live:
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
        if self._guard is not None:
            meta[IN_PIECES] = "yes"
        if caller.narrowed:
            meta["scopes"] = " ".join(sorted(caller.scopes))
        if self._tokens is not None:
            self._tokens.begin(meta, caller)
        message.task_id, message.context_id = task_id, meta["context"]
        live = self._lives.begin(meta)
        if runs := skill.idempotent and not (withdrawn or received.outcome.withheld):
            live.writer.hold(live, FIRST_ENTRY_SECONDS)
        try:
            live.append(
                ["new", meta],
                ["message", message.message_id, received.stored, caller.subject, message.SerializeToString()],
                *received.outcome.records,
                *_push(task_id, webhook),
                live.status(SUBMITTED),
                *([live.status(CANCELED)] if withdrawn else _withheld(live, received)),
                act=act,
            )
        except SidecardError as error:
            live.lose(error)  # else a task without a first entry stayed in memory, and nobody would ever write one
            raise
        if runs:
            self._run(live, message)
        return live

    async def _inspect(self, task_id: str, skill: str, message: Message, besides: str, *, own: bool) -> Received:
        """Let content inspection have a message before anything of it is stored; it is changed in place.

        `besides` is what it says that is not in it, and belongs to its digest; the message is the task's owner's `own`,
        or somebody else's. Raises ScreeningFailed.
        """
        digest = digest_of(message, besides)
        if self._guard is None:
            return Received(digest, digest, CLEAN)
        outcome = await self._guard.received(skill, task_id, message, own=own)
        return Received(digest, self._guard.blind(digest) if outcome.changed else digest, outcome)

    def _check_same(self, live: Live, message: Message, digest: str) -> None:
        if live.messages.get(message.message_id) != digest:
            check_same(live, message, *self._digests(digest))

    def _digests(self, digest: str) -> tuple[str, ...]:
        """The digests that a message with this one may be known by: it may have been redacted then."""
        return (digest,) if self._guard is None else (digest, self._guard.blind(digest))

    async def answer(
        self,
        live: Live,
        caller: Caller,
        message: Message,
        webhook: TaskPushNotificationConfig | None = None,
        grant: Granted | None = None,
        *,
        received: Received | None = None,
        act: Act | None = None,
    ) -> None:
        """Take a further message to a task: it answers the open question, if there is one. Returns when it is stored.

        With a `grant` it is that answer and nothing else. The task then has the webhook, which has an id, from what
        follows the message on; the `act` is in the audit. `received` is what `inspect_answer` gave: of what is withheld
        only the decision is stored, and the task goes on waiting.

        Raises DifferentMessage, TaskEnded, StoreUnavailable, Withheld, Overtaken.
        """
        self._admit()
        if received is None:
            received = await self.inspect_answer(live, caller, message, grant)
        self.lend(live, caller)
        if message.message_id in live.messages:
            self._check_same(live, message, received.digest)
            await self._rescue(live)
        elif received.outcome.withheld:
            if live.folded.n < MOST_WITHHELD:
                live.append(*received.outcome.records, act=act)
                await live.commit()
            raise Withheld(received.outcome.withheld)
        else:
            message.context_id = live.meta["context"]
            working = [live.status(WORKING)] if live.question is not None else []
            said: Record = ["message", message.message_id, received.stored, caller.subject, message.SerializeToString()]
            if grant is not None:
                said = ["grant", *said[1:], self._clock()]
            live.append(
                said,
                *received.outcome.records,
                *_push(live.task_id, webhook),
                *working,
                act=act,
                answers=live.asks,
            )
        await live.commit()
        if message.message_id not in live.messages:
            raise Overtaken(f"another replica has moved task {live.task_id} on: it asks something else now, or nothing")

    async def inspect_answer(self, live: Live, caller: Caller, message: Message, grant: Granted | None) -> Received:
        """Let content inspection have a further message to a task, before `answer` takes it. Raises ScreeningFailed."""
        own = caller.name == live.meta["owner"]
        return await self._inspect(live.task_id, live.meta["skill"], message, _said_besides(grant), own=own)


def _said_besides(grant: Granted | None) -> str:
    return grant.model_dump_json() if grant else ""


def _withheld(live: Live, received: Received) -> list[Record]:
    """The end of a task whose message is withheld."""
    reason = received.outcome.withheld
    if not reason:
        return []
    said = binding.agent_says(reason, f"{live.task_id}:end", task_id=live.task_id, context_id=live.meta["context"])
    return [live.status(REJECTED, said.SerializeToString())]


def _push(task_id: str, webhook: TaskPushNotificationConfig | None) -> list[Record]:
    """The record of a webhook that came with a message."""
    if webhook is None:
        return []
    webhook.task_id = task_id
    return [["push", webhook.id, webhook.SerializeToString()]]
