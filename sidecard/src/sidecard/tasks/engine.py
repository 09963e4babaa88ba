"""The engine: moves tasks on, cancels them, and takes up again what a restart left behind."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any

import msgpack
from a2a.types import Message

from sidecard.agent import Agent
from sidecard.callers import Caller, Denied
from sidecard.errors import ConfigurationError, SidecardError, StoreUnavailable
from sidecard.screening.guard import Guard
from sidecard.screening.vault import Vault
from sidecard.seals import Seals
from sidecard.tasks.act import Act
from sidecard.tasks.adoption import Adoption
from sidecard.tasks.cursor import Backoff
from sidecard.tasks.dead import DeadLetters
from sidecard.tasks.delivery import Delivery, Publisher, Sender
from sidecard.tasks.entry import Record
from sidecard.tasks.identity import TaskIds
from sidecard.tasks.intake import Intake
from sidecard.tasks.journal import Journal
from sidecard.tasks.late import Late
from sidecard.tasks.live import Live, TaskEnded
from sidecard.tasks.lives import Lives
from sidecard.tasks.mail import mark, task_of
from sidecard.tasks.outbox import Outbox
from sidecard.tasks.patience import patiently
from sidecard.tasks.replicas import Replicas
from sidecard.tasks.retention import Keep, Retention
from sidecard.tasks.runner import RUNS, Runner
from sidecard.tasks.slots import Slot, Sweep
from sidecard.tasks.state import HELD
from sidecard.tasks.states import CANCELED, FAILED, state_name
from sidecard.tasks.store import StateStore, prove
from sidecard.tasks.tail import Tail
from sidecard.tasks.tokens import TaskTokens
from sidecard.tasks.told import Told
from sidecard.tasks.turns import Limits
from sidecard.tasks.watch import Delegator, Watches
from sidecard.telemetry import TaskMetrics, WebhookMetrics
from sidecard.vouching import Vouching

log = logging.getLogger("sidecard.tasks")

RERUN_SECONDS = 1.0
CANCEL_SECONDS = 20.0
"""How long a cancel waits for the task's end; it ends afterwards all the same."""
STOP_SECONDS = 3.0
"""How long effects under way may take to be recorded when the agent stops."""
WAKING = frozenset({"new", "message", "grant", "done", "failed", "cancel"})
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
        former_keys: Sequence[bytes] = (),
        delegator: Delegator,
        scopes_of: Callable[[str], frozenset[str]],
        sender: Sender | None = None,
        topic: Publisher | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], int] = system_clock,
        tries: int = 3,
        keep: Keep | None = None,
        runs: Limits = RUNS,
        vouching: Vouching | None = None,
        denied: Denied | None = None,
        guard: Guard | None = None,
        tokens: TaskTokens | None = None,
    ) -> None:
        """`task_id_key` makes task ids unguessable and repeatable.

        When it is replaced, the former key goes to `former_keys` for as long as messages may come again.

        Without a `sender` no webhook is told anything; what is due then waits. A `topic` hears of every event of every
        task. `clock` gives UTC in milliseconds; after `tries` deaths of its process without any progress a task is
        given up. `keep` says when what has ended expires, `runs` how many skills may run at once. Without `vouching`
        nothing is signed, and nobody's word on what another person said is taken where that matters. Webhooks of who
        is `denied` are told nothing until they are restored. `guard` inspects what goes in and out; without one nothing
        is inspected. `tokens` keeps what owners come with, where some other agent is called by their own rights.
        """
        self.vouching = vouching
        self.keep = keep or Keep()
        self._clock = clock
        self.agent = agent
        self.store = store
        seals = Seals(vouching.agent, vouching.publisher, vouching.trust, vouching.key) if vouching else None
        self._replicas = Replicas(store, adopt=self._adopt, look=self._look, deposed=self._depose, seals=seals)
        self.journal = Journal(store, self._depose, self._replicas.unquestioned)
        self._lives = Lives(self.journal, self._replicas, clock, self._stored)
        self._adoption = Adoption(
            self._lives,
            self._replicas,
            tries=tries,
            move_on=self._move_on,
            give_up=self._give_up,
            in_background=self._in_background,
        )
        self._tail = Tail(store, self._lives)
        self._ids = TaskIds(agent.name, task_id_key, former_keys)
        self.vault = Vault(agent.name, task_id_key, former_keys)
        self._tokens = tokens
        self._watches = Watches(self._lives, delegator, self._in_background, guard, tokens)
        self._runner = Runner(agent, self._watches, scopes_of, self._again, runs=runs, vouching=vouching, guard=guard)
        self.intake = Intake(
            store,
            self._lives,
            self._ids,
            guard,
            clock,
            admit=self._admit,
            check_room=self._runner.check_room,
            run=self._run,
            rescue=self._rescue,
            tokens=tokens,
        )
        self._metrics = TaskMetrics(agent.name)
        self.journal.publishes = topic is not None
        metrics = WebhookMetrics(agent.name)
        delivery = Delivery(sender, topic, delegator, metrics, clock=clock, backoff=backoff, denied=denied)
        self.outbox = Outbox(self.journal, self._lives, delivery, clock)
        self._dead = DeadLetters(self.journal, self.outbox)
        self._background: set[asyncio.Task[None]] = set()
        self._tailing: asyncio.Task[None] | None = None
        self._expiring: asyncio.Task[None] | None = None
        self._redelivering: asyncio.Task[None] | None = None
        self.superseded = asyncio.Event()
        """Set when another process has taken over a store that is for one; this engine serves nothing more."""
        self._stopping = False
        self._rejoining = False
        self._late: list[Late] = []

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Prove the store, and take up, beside serving, every task that was on its way when this agent last stopped.

        Raises ConfigurationError for a store or key that can't be trusted with tasks, StoreUnavailable.
        """
        await prove(self.store, "state", f"probe:{secrets.token_hex(6)}")
        await self._ids.check(self.store)
        try:
            await self._join()
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ConfigurationError(
                f"what the state store holds can't be read ({error}): another version of sidecard wrote it, or it is "
                "damaged. Start that version, or restore a backup; on a laptop whose tasks don't matter, empty data/."
            ) from error

    async def _join(self) -> None:
        slot, died = await self._replicas.join()
        self.journal.start(slot)
        self._replicas.start()
        if self.store.shared:
            self._tailing = asyncio.create_task(self._tail.run(), name="tail")
        retention = Retention(self.journal, self.slots, self.keep, self._clock, self._replicas.left_over)
        self._expiring = asyncio.create_task(retention.run(), name="retention")
        if slot.todo.all:
            log.info("taking up %d tasks again", len(slot.todo.all))
            self._in_background(self._adoption.adopt(sorted(slot.todo.all), died=died), "take up")
        self.outbox.start(slot.outbox.all)
        self._redelivering = asyncio.create_task(self._dead.run(), name="dead letters")

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop all runs where they are; the next start, or another replica, goes on from what is stored.

        Effects under way have that long to end and be recorded.
        """
        self._stopping = True
        await self._halt(seconds)
        await self._replicas.stop(leaving=True)

    async def _halt(self, seconds: float) -> None:
        self._watches.stop()
        me = asyncio.current_task()
        services = (self._tailing, self._expiring, self._redelivering)
        background = [task for task in (*self._background, *services) if task is not None and task is not me]
        for task in background:
            task.cancel()
        if self._tokens is not None:
            self._tokens.clear()
        runs = [live.run for live in self._lives.values() if live.run is not None]
        for run in runs:
            run.abandon()
        await asyncio.gather(*(run.ended(seconds) for run in runs), *background, return_exceptions=True)
        await self.outbox.stop(seconds)
        await self._lives.close()
        await self.journal.flush(seconds)
        await self.journal.stop()

    def _depose(self) -> None:
        """Others have taken this replica for dead, and taken its tasks over: it goes on under a new name."""
        if not (self._stopping or self._rejoining):
            self._rejoining = True
            self._in_background(self._rejoin(), "rejoin")

    async def _rejoin(self) -> None:
        await self._halt(0)
        await self._replicas.stop(leaving=False)
        if self.store.shared:
            if self.journal.late:
                self._late.append(Late(self.journal.slot.number, self.journal.late))
            await patiently(self._join)
            self._rejoining = False
            self._in_background(self._take_in(), "take in what was late")
        else:
            self._stopping = True
            self.superseded.set()

    # -- tasks --------------------------------------------------------------------------------------------------------

    def borrow(self, task_id: str) -> contextlib.AbstractAsyncContextManager[Live | None]:
        """The stored task, kept in memory as long as it is used; None where there is none.

        Raises LogBroken, StoreUnavailable.
        """
        return self._lives.borrow(task_id)

    async def slots(self) -> list[Slot]:
        """Every replica's slot as it is now, where the lists of tasks are. Raises StoreUnavailable."""
        return await self._replicas.slots()

    def expiring_before(self) -> int:
        """Tasks that ended before this, UTC in milliseconds, expire sooner or later."""
        return self._clock() - self.keep.task_ms if self.keep.days else 0

    async def cancel(self, live: Live, caller: Caller, *, act: Act | None = None) -> None:
        """Cancel a task, what runs for it and what it has delegated. Returns when it has ended, or soon will.

        What asks for that is in the audit as this `act`.

        Raises TaskEnded when it had ended before, or ends otherwise meanwhile.
        """
        self._admit()
        if live.folded.cancel_by is None or live.ended:
            self.intake.lend(live, caller)
            live.append(["cancel", caller.subject], act=act)
            await live.commit()
        elif not live.owned and self._replicas.alive(live.folded.owner_replica):
            await self._replicas.knock(live.folded.owner_replica, live.task_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                while not live.folded.ended:
                    await live.changed()
        if live.folded.ended and live.folded.state != CANCELED:
            raise TaskEnded(f"task {live.task_id} ended {state_name(live.folded.state)} before it could be canceled")

    def _admit(self) -> None:
        if self._stopping or self._rejoining:
            raise StoreUnavailable("this agent is stopping or starting; send the same message again")
        self.journal.admit()

    # -- moving on ----------------------------------------------------------------------------------------------------

    def _stored(self, live: Live, before: int, records: list[Record], own: bool) -> None:
        """An entry is stored: count it, tell its receivers, and move its task on."""
        if own and live.folded.state != before:
            skill, state = live.meta["skill"], state_name(live.folded.state)
            self._metrics.transition(skill, state_name(before) if before else "", state)
            if live.folded.ended:
                seconds = (live.folded.at - live.folded.created) / 1000
                self._metrics.ended(skill, state, seconds, reason=live.failure)
        if self._tokens is not None and live.folded.ended:
            self._tokens.forget(live.task_id)
        if own:
            self.outbox.stored(live.folded, records)
        if any(record[0] in WAKING for record in records):
            self._move_on(live)

    def _move_on(self, live: Live) -> None:
        """Let a stored task's skill run, or cancel it, unless another replica or a person has to move it on."""
        folded = live.folded
        if self._stopping or live.ended or live.lost is not None or not (live.owned and folded.must_move):
            return
        if folded.cancel_by is None:
            if folded.lease != HELD:
                self._run(live)
        elif not live.canceling:
            live.canceling = True
            self._in_background(self._finish_cancel(live), f"cancel {live.task_id}")

    def _run(self, live: Live, first: Message | None = None) -> None:
        if live.run is None:
            self._runner.start(live, first).add_done_callback(lambda _: self._lives.let_go(live))

    async def _rescue(self, live: Live) -> None:
        """See to it that a task goes on whose message comes again: whoever took it may have died just then.

        One that is stopped where it is, since its skill does not fit its record, is tried once more.
        """
        if live.owned:
            self._move_on(live)
        elif live.folded.must_move:
            await self._replicas.bury(live.folded.owner_replica)
            await self._adoption.adopt([live.task_id], died=True)

    def _again(self, live: Live) -> None:
        """Try a run again in a while."""
        if not self._stopping:
            later = asyncio.get_running_loop().call_later
            later(RERUN_SECONDS, lambda: self._in_background(self._adoption.adopt([live.task_id], died=False), "again"))

    async def _adopt(self, slot: Slot, died: bool) -> None:
        """Take over what another replica had to do: it is on this one's lists before it leaves the other's."""
        await self._adoption.adopt(sorted(slot.todo.all), died=died)
        await self._deliver(slot.outbox.all)
        await self._dead.look(slot.number)

    async def _take_in(self) -> None:
        """Own what this replica still stored under former names when others had taken its slots over."""
        while self._late:
            late = self._late[0]
            try:
                stored = await patiently(partial(late.stored, self.store))
                lines = await patiently(partial(late.unlisted, self.store, stored))
                if lines and not late.listed:
                    late.listed = True  # once at the most, whatever becomes of it
                    await self.journal.sweep(Sweep(), lines)
                await self._deliver({append.task_id for append in stored if append.due})
                await self._adoption.adopt([append.task_id for append in stored], died=False)
            except SidecardError as error:
                log.error("what this replica stored when it was taken for dead may be on no list: %s", error)
            self._late.remove(late)

    async def _deliver(self, listed: Collection[str]) -> None:
        """Let the outbox have these, tasks and marks; it has them when this returns."""
        tasks = set(map(task_of, listed))
        listing = [self.journal.told(Told(task_id, 0, 1, {}, dead=mark(task_id) in listed)) for task_id in tasks]
        await asyncio.gather(*listing)
        self.outbox.take_up(listed)

    async def _give_up(self, live: Live) -> None:
        live.failure = "process died"
        reason = f"{live.meta['skill']} was given up: the process that ran it died each time; the agent's log has more"
        await self._runner.end(live, FAILED, reason, repeatable=False)

    def _look(self, task_ids: Collection[str]) -> None:
        """Others have appended to these tasks, which are this replica's."""
        for task_id in task_ids:
            self._in_background(self._look_at(task_id), f"look at {task_id}")

    async def _look_at(self, task_id: str) -> None:
        with contextlib.suppress(StoreUnavailable):
            async with self.borrow(task_id) as live:
                if live is None:
                    return
                live.writer.pause()
                await self._tail.read([live])
                self._move_on(live)

    async def _finish_cancel(self, live: Live) -> None:
        try:
            if live.run is not None:
                await live.run.cancel()
            if not live.ended and live.lost is None:
                await self._runner.end(live, CANCELED, f"canceled by {live.folded.cancel_by}")
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
