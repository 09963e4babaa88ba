"""The engine: starts tasks, takes answers and cancels, and takes up again what a restart left behind."""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol

import msgpack
from a2a.types import Message, TaskState
from a2a.types import Task as A2ATask
from pydantic import BaseModel, ValidationError

from sidecard.agent import Agent, Skill
from sidecard.callers import Caller
from sidecard.errors import AgentUnavailable, ConfigurationError, SidecardError, StoreUnavailable, TaskConflict
from sidecard.tasks import binding
from sidecard.tasks.context import Rejected, Task
from sidecard.tasks.journal import Journal
from sidecard.tasks.live import Live, TaskEnded, load
from sidecard.tasks.run import Run, StepMismatch
from sidecard.tasks.state import TERMINAL, FoldedTask, Step, state_name
from sidecard.tasks.store import StateStore, prove
from sidecard.telemetry import TaskMetrics, continue_trace, current_traceparent, span

log = logging.getLogger("sidecard.tasks")

FIRST_ENTRY_SECONDS = 0.005
"""How long the first entry of an idempotent task waits for its run: a short task then costs one write."""
CANCEL_CHILDREN_SECONDS = 10.0
RERUN_SECONDS = 1.0


class Delegator(Protocol):
    """How tasks reach other agents."""

    async def follow(self, agent: str, message: Message, tenant: str, accepted: Callable[[str], None]) -> A2ATask:
        """Send a message, again and again if need be, and return the task once it has ended or waits for somebody.

        `accepted` is told the task's id as soon as it is known. Raises AgentUnavailable when patience is over.
        """

    async def cancel(self, agent: str, task_id: str, tenant: str) -> None:
        """Cancel a delegated task; one that has ended already is no error. Raises AgentUnavailable."""


class DifferentMessage(SidecardError):
    """A messageId was used before with other content."""


class Engine:
    """All tasks of one agent on this replica."""

    def __init__(
        self, agent: Agent, store: StateStore, *, task_id_key: bytes, delegator: Delegator, scopes_of: Callable[[str], frozenset[str]]
    ) -> None:
        """`task_id_key` makes task ids unguessable and repeatable; it must never change while tasks are remembered."""
        self.agent = agent
        self.store = store
        self.replica = secrets.token_hex(6)
        self.journal = Journal(store, "0")
        self._key = task_id_key
        self._delegator = delegator
        self._scopes_of = scopes_of
        self._metrics = TaskMetrics(agent.name)
        self._lives: dict[str, Live] = {}
        self._loading: dict[str, asyncio.Lock] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._stopping = False

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Prove the store, then take up every task that was on its way when this agent last stopped.

        Raises ConfigurationError for a store or key that can't be trusted with tasks, StoreUnavailable.
        """
        await prove(self.store, "state", f"probe:{self.replica}")
        await self._check_key()
        await self.journal.start()
        listed = self.journal.todo.all()
        if listed:
            log.info("taking up %d tasks again", len(listed))
        for task_id in listed:
            async with self.borrow(task_id) as live:
                if live is not None:
                    self._take_up(live)

    async def stop(self) -> None:
        """Stop all runs where they are; the next start goes on from what is stored."""
        self._stopping = True
        for task in list(self._background):
            task.cancel()
        for live in list(self._lives.values()):
            if live.run is not None:
                live.run.abandon()
            await live.close()
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

    @contextlib.asynccontextmanager
    async def borrow(self, task_id: str) -> AsyncIterator[Live | None]:
        """The task, kept in memory as long as it is used; None where there is none."""
        live = self._lives.get(task_id)
        if live is None:
            lock = self._loading.setdefault(task_id, asyncio.Lock())
            async with lock:
                live = self._lives.get(task_id)
                if live is None and (folded := await load(self.journal, task_id)) is not None:
                    live = self._keep(folded, folded.meta)
            self._loading.pop(task_id, None)
        if live is None:
            yield None
            return
        live.users += 1
        try:
            yield live
        finally:
            live.users -= 1
            self._let_go(live)

    async def create(self, caller: Caller, tenant: str, skill: Skill, message: Message) -> str:
        """Start the task of a first message, or find the one that it has started before; returns its id, stored.

        Raises DifferentMessage, StoreUnavailable.
        """
        self.journal.admit()
        task_id = self.task_id(tenant, caller.name, message.message_id)
        digest = digest_of(message, skill.id)
        if task_id not in self._lives and await self._create(caller, tenant, skill, message, task_id, digest):
            return task_id
        async with self.borrow(task_id) as live:
            if live is None or live.messages.get(message.message_id) != digest:
                raise DifferentMessage(f"messageId {message.message_id!r} was used before with other content; use a new one")
            await live.commit(hurry=False)
        return task_id

    async def _create(
        self, caller: Caller, tenant: str, skill: Skill, message: Message, task_id: str, digest: str
    ) -> bool:
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
        live = self._keep(FoldedTask(), meta)
        live.append(
            ["new", meta],
            ["message", message.message_id, digest, caller.subject, message.SerializeToString()],
            live.status(TaskState.TASK_STATE_SUBMITTED),
        )
        live.users += 1
        try:
            if skill.idempotent:
                live.hold = asyncio.get_running_loop().create_future()
                self._run(live, message)
                asyncio.get_running_loop().call_later(FIRST_ENTRY_SECONDS, live.release)
            await live.commit(hurry=not skill.idempotent)
            self._run(live)
        except TaskConflict:
            self._lives.pop(task_id, None)
            return False
        finally:
            live.users -= 1
            self._let_go(live)
        return True

    async def answer(self, live: Live, caller: Caller, message: Message) -> None:
        """Take a further message to a task: it answers the open question, if there is one. Returns when it is stored.

        Raises DifferentMessage, TaskEnded, StoreUnavailable.
        """
        self.journal.admit()
        digest = digest_of(message, "")
        known = live.messages.get(message.message_id)
        if known is not None:
            if known != digest:
                raise DifferentMessage(f"messageId {message.message_id!r} was used before with other content; use a new one")
            await live.commit()
            return
        message.context_id = live.meta["context"]
        asked = live.question is not None
        live.append(["message", message.message_id, digest, caller.subject, message.SerializeToString()])
        if asked:
            live.append(live.status(TaskState.TASK_STATE_WORKING))
        await live.commit()
        self._run(live)

    async def cancel(self, live: Live, caller: Caller) -> None:
        """Cancel a task, what runs for it and what it has delegated. Returns when it has ended, one way or the other.

        Raises TaskEnded when it had ended before.
        """
        live.append(["cancel", caller.subject])
        await live.commit()
        self._in_background(self._finish_cancel(live))
        while not live.folded.ended:
            await live.changed()

    # -- running ------------------------------------------------------------------------------------------------------

    def _take_up(self, live: Live) -> None:
        if live.folded.cancel_by is not None and not live.ended:
            self._in_background(self._finish_cancel(live))
        else:
            self._run(live)

    def _run(self, live: Live, first: Message | None = None) -> None:
        """Let the skill run, unless it runs already, has ended, or only a person can move it on."""
        if self._stopping or live.run or live.ended or (first is None and not live.folded.must_move):
            return
        if live.folded.cancel_by is not None:
            return
        run = live.run = Run(live, lambda key: self._watch(live, key))
        run.start(lambda: self._execute(live, run, first))
        run.finished.add_done_callback(lambda _: self._let_go(live))

    async def _execute(self, live: Live, run: Run, first: Message | None) -> None:
        """One run of the skill, and what becomes of its task."""
        skill = self.agent.skills.get(live.meta["skill"])
        with continue_trace(live.meta["trace"]), span(f"task run {live.meta['skill']}", task_id=live.task_id):
            try:
                if first is None:
                    await live.commit()
                if skill is None:
                    raise StepMismatch(f"this version of {self.agent.name} has no skill {live.meta['skill']}")
                await self._skill(live, run, skill, first or live.folded.task.history[0])
            except Rejected as rejected:
                await self._end(live, TaskState.TASK_STATE_REJECTED, str(rejected))
            except TaskEnded:
                pass
            except (StepMismatch, TaskConflict, StoreUnavailable) as error:
                self._stalled(live, error)
            except SidecardError as error:
                await self._end(live, TaskState.TASK_STATE_FAILED, str(error))
            except Exception:
                log.exception("skill %s failed in task %s", live.meta["skill"], live.task_id)
                reason = f"{live.meta['skill']} failed unexpectedly; the agent's log has the details of task {live.task_id}"
                await self._end(live, TaskState.TASK_STATE_FAILED, reason)
            finally:
                live.release()

    async def _skill(self, live: Live, run: Run, skill: Skill, message: Message) -> None:
        owner, subject = live.meta["owner"], live.meta["subject"]
        task = Task(run, Caller(name=owner, subject=subject, scopes=self._scopes_of(owner)))
        if live.state == TaskState.TASK_STATE_SUBMITTED:
            run.append(live.status(TaskState.TASK_STATE_WORKING))
        result = await skill.function(await _bind(task, skill, message), task)
        if result is not None:
            value = result if isinstance(result, (str, BaseModel)) else skill.output.dump_python(result, mode="json")
            await task.artifact("result", value)
        run.append(live.status(TaskState.TASK_STATE_COMPLETED))

    def _stalled(self, live: Live, error: SidecardError) -> None:
        """The run could not go on, and that is no reason to end its task."""
        if isinstance(error, StoreUnavailable) and not self._stopping:
            log.warning("task %s waits for the state store: %s", live.task_id, error)
            asyncio.get_running_loop().call_later(RERUN_SECONDS, self._run, live)
        else:
            log.error("task %s is stopped where it is: %s", live.task_id, error)

    async def _end(self, live: Live, state: int, reason: str) -> None:
        await self._cancel_children(live)
        message = binding.agent_says(reason, f"{live.task_id}:end", task_id=live.task_id, context_id=live.meta["context"])
        with contextlib.suppress(TaskEnded):
            live.append(live.status(state, message.SerializeToString()))

    async def _finish_cancel(self, live: Live) -> None:
        if live.run is not None:
            await live.run.cancel()
        if not live.ended:
            await self._end(live, TaskState.TASK_STATE_CANCELED, f"canceled by {live.folded.cancel_by}")
            await live.commit()
        self._let_go(live)

    async def _cancel_children(self, live: Live) -> None:
        """Cancel what this task has delegated and nobody will wait for any more."""
        for watch in list(live.watches.values()):
            watch.cancel()
        latest = {child.task_id: (child, live.folded.steps[key]) for key, child in live.folded.children.items()}
        for child, step in latest.values():
            if _ended(step):
                continue
            try:
                async with asyncio.timeout(CANCEL_CHILDREN_SECONDS):
                    await self._delegator.cancel(child.agent, child.task_id, live.meta["tenant"])
            except (AgentUnavailable, TimeoutError) as error:
                log.warning("task %s of %s may still run, it could not be canceled: %s", child.task_id, child.agent, error)

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _watch(self, live: Live, key: str) -> None:
        """See to it that a waiting step ends: time passes, or another agent's task moves on."""
        if key not in live.watches:
            live.watches[key] = asyncio.create_task(self._wait(live, key), name=f"watch {key} of {live.task_id}")

    async def _wait(self, live: Live, key: str) -> None:
        step = live.folded.steps[key]
        try:
            if step.kind == "sleep":
                await asyncio.sleep(max(0.0, step.value - time.time()))
                value = None
            else:
                value = await self._follow(live, key, *step.value)
            live.append(["done", key, step.kind, step.arguments, value])
            await live.commit()
        except TaskEnded:
            return
        except (TaskConflict, StoreUnavailable) as error:
            self._stalled(live, error)
            return
        finally:
            live.watches.pop(key, None)
            self._let_go(live)
        self._run(live)

    async def _follow(self, live: Live, key: str, agent: str, message: bytes) -> bytes | str:
        def accepted(task_id: str) -> None:
            if key not in live.folded.children and not live.ended:
                live.append(["child", key, agent, task_id])

        try:
            task = await self._delegator.follow(agent, Message.FromString(message), live.meta["tenant"], accepted)
        except AgentUnavailable as error:
            return str(error)
        task.ClearField("history")
        return task.SerializeToString()

    # -- memory -------------------------------------------------------------------------------------------------------

    def _keep(self, folded: FoldedTask, meta: dict[str, str]) -> Live:
        live = Live(self.journal, self.replica, folded, meta)
        live.on_change = self._changed
        self._lives[live.task_id] = live
        return live

    def _let_go(self, live: Live) -> None:
        if not live.busy and self._lives.get(live.task_id) is live:
            del self._lives[live.task_id]

    def _changed(self, live: Live, before: int) -> None:
        skill, state = live.meta["skill"], state_name(live.folded.state)
        self._metrics.transition(skill, state_name(before) if before else "", state)
        if live.folded.ended:
            self._metrics.ended(skill, state, (live.folded.at - live.folded.created) / 1000)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def _bind(task: Task, skill: Skill, message: Message) -> object:
    """The skill's input from its first message; asks for what is missing, rejects what is wrong."""
    if skill.input is str:
        return binding.text_of(message)
    offered = binding.raw_input(skill, message)
    while True:
        try:
            return binding.validate(skill, offered)
        except ValidationError as error:
            names = binding.missing(error)
            if not names:
                task.reject(f"{skill.id} can't take this: {binding.explain(error)}")
            answer = await task.ask(f"{skill.id} also needs: {', '.join(names)}")
            offered |= {**binding.raw_input(skill, answer.message)}
            if len(names) == 1 and names[0] not in offered and answer.text:
                offered[names[0]] = answer.text


def _ended(call: Step) -> bool:
    """Whether the task behind a recorded call had ended when the call did."""
    return call.done and isinstance(call.value, bytes) and A2ATask.FromString(call.value).status.state in TERMINAL


def digest_of(message: Message, skill: str) -> str:
    """What a message says: role, parts, the ids it names, and the skill; not its trace or deadline."""
    said = Message(
        role=message.role,
        parts=message.parts,
        task_id=message.task_id,
        context_id=message.context_id,
        reference_task_ids=message.reference_task_ids,
    )
    content = said.SerializeToString(deterministic=True)
    return hashlib.sha256(msgpack.packb([skill, content])).hexdigest()[:32]
