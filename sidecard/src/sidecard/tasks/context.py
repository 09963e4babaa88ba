"""What a skill sees of its task: the `Task` that authors work with."""

import asyncio
import hashlib
import inspect
import json
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn, Self, TypeVar, get_type_hints, overload

from a2a.types import Message, TaskState
from a2a.types import Task as A2ATask
from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_jsonable_python

from sidecard.agent import File
from sidecard.callers import Caller
from sidecard.errors import AgentUnavailable, DelegationFailed
from sidecard.extension import Asked, Sent
from sidecard.tasks import binding
from sidecard.tasks.run import OutcomeUnknown, Run
from sidecard.tasks.state import ASK, INTERRUPTED, Step, state_name

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Effect = Callable[..., Awaitable[T]]


class Rejected(Exception):
    """Raised by `Task.reject`: the task ends REJECTED with this reason."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody answered to a question. `choice` is set when options were given, `by` is who answered."""

    by: str
    text: str
    data: dict[str, Any]
    choice: str | None
    message: Message = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delegated:
    """A delegated task that is COMPLETED, or waits for somebody."""

    agent: str
    skill: str
    task: A2ATask

    @property
    def data(self) -> dict[str, Any]:
        """The data of its last artifact that has any; empty when there is none."""
        for artifact in reversed(self.task.artifacts):
            if found := binding.data_of(Message(parts=artifact.parts)):
                return found
        return {}

    @property
    def text(self) -> str:
        """The text of its artifacts, or of its status."""
        texts = [binding.text_of(Message(parts=artifact.parts)) for artifact in self.task.artifacts]
        return "\n".join(filter(None, texts)) or binding.text_of(self.task.status.message)


class Task:
    """A skill's own task.

    `ask`, `delegate`, `step`, `once`, `sleep`, `now` and `random` are recorded in the task's log: when the task goes
    on after a wait or a crash, the skill runs again from its top and each of them returns at once what it returned
    before. What lies between them must be deterministic.
    """

    def __init__(self, run: Run, caller: Caller) -> None:
        self._run = run
        self.id = run.live.task_id
        self.caller = caller
        self.tenant = run.live.meta["tenant"]
        self.subject = caller.subject

    # -- asking and telling -------------------------------------------------------------------------------------------

    async def ask(
        self, prompt: str, *, options: Mapping[str, str] | None = None, scope: str = "", by_other: bool = False
    ) -> Answer:
        """Ask whoever the task is for (INPUT_REQUIRED) and wait, for days if need be, without using memory.

        With `options` (value to meaning) an answer that is none of them is asked for again. With `scope` only somebody
        who holds that right may answer, with `by_other` nobody may answer for themselves: others are refused.
        """
        question = prompt
        while True:
            answer = await self._ask(question, dict(options or {}), scope, by_other=by_other)
            if not options or answer.choice is not None:
                return answer
            question = f"{answer.text or 'That'!r} is none of the choices. {prompt}"

    async def progress(self, text: str) -> None:
        """Tell followers how it goes (a WORKING status with this text)."""
        branch, number, stored = self._run.output()
        if not stored:
            self._run.append(
                self._run.live.status(TaskState.TASK_STATE_WORKING, self._says(text, f"p{number}"), branch, number)
            )

    async def artifact(self, name: str, *values: str | BaseModel | File | dict[str, Any]) -> None:
        """Give out an artifact: text, data (a model or a dict) and files become its parts."""
        branch, number, stored = self._run.output()
        if not stored:
            artifact = binding.artifact_of(name, name, *values)
            self._run.append(["artifact", artifact.SerializeToString(), False, True, branch, number])

    async def chunk(self, name: str, text: str, *, last: bool = False) -> None:
        """Append a chunk of text to the artifact of that name, as it is made."""
        branch, number, stored = self._run.output()
        if not stored:
            artifact = binding.artifact_of(name, name, text)
            self._run.append(["artifact", artifact.SerializeToString(), True, last, branch, number])
            await asyncio.sleep(0)

    def reject(self, reason: str) -> NoReturn:
        """End the task REJECTED. Never returns."""
        raise Rejected(reason)

    # -- recorded steps -----------------------------------------------------------------------------------------------

    async def step(self, name: str, function: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Do something that is not deterministic or costs time, and record what it returned.

        It may be done more than once when the process dies in between, so it must have no effect that matters; use
        `once` for those.
        """
        key, recorded = self._run.step("step", _fingerprint(name, arguments))
        codec = _codec(function)
        if recorded is None:
            value = await function(*arguments)
            recorded = await self._record(key, "step", _fingerprint(name, arguments), codec.dump_python(value, mode="json"))
        result: T = codec.validate_python(recorded.value)
        return result

    async def once(self, name: str, effect: Effect[T], *, repeatable: bool = False) -> T:
        """Have an effect that must not happen twice, and record what it returned.

        The effect is started at most once; when the process dies before its outcome is recorded, the task ends FAILED,
        "outcome unknown". A `repeatable` effect takes one argument, an idempotency key that stays the same, and is
        repeated under it until its outcome is recorded.
        """
        key, recorded = self._run.step("once", _fingerprint(name, ()))
        codec = _codec(effect)
        if recorded is None or (repeatable and not recorded.done):
            if recorded is None:
                self._run.append(["begun", key, "once", _fingerprint(name, ()), name])
                await self._run.commit()
            work = asyncio.ensure_future(effect(f"{self.id}:{key}") if repeatable else effect())
            try:
                value = await asyncio.shield(work)
            except asyncio.CancelledError:
                if self._run.cancelling:
                    await self._record(key, "once", _fingerprint(name, ()), codec.dump_python(await work, mode="json"))
                raise
            recorded = await self._record(key, "once", _fingerprint(name, ()), codec.dump_python(value, mode="json"))
        elif not recorded.done:
            raise OutcomeUnknown(
                f"{name} was started and its outcome is not known; check it by hand before asking for it again"
            )
        result: T = codec.validate_python(recorded.value)
        return result

    @overload
    async def delegate(self, agent: str, skill: str, request: BaseModel | str, *files: File) -> Delegated: ...
    @overload
    async def delegate(self, agent: str, skill: str, request: BaseModel | str, *files: File, output: type[M]) -> M: ...
    async def delegate(
        self, agent: str, skill: str, request: BaseModel | str, *files: File, output: type[M] | None = None
    ) -> Delegated | M:
        """Have another agent's skill do it, and wait for its end.

        What it asks is asked on, under the rights that it demands, and answered back. Raises DelegationFailed when it
        ends without success, AgentUnavailable when it can't be reached for long.
        """
        parts = [part for value in (request, *files) for part in binding.parts_of(value)]
        message = Message(parts=parts)
        subject, question = self.subject, ""
        while True:
            done = await self._call(agent, skill, message, subject, question)
            if done.task.status.state not in INTERRUPTED:
                break
            asked = Asked.of(done.task.status.message) or Asked(question="")
            answer = await self._ask(done.text, asked.options, asked.scope, by_other=asked.by_other)
            message = Message(parts=answer.message.parts, task_id=done.task.id, context_id=done.task.context_id)
            subject, question = answer.by, asked.question
        if done.task.status.state != TaskState.TASK_STATE_COMPLETED:
            reason = binding.text_of(done.task.status.message) or "no reason given"
            raise DelegationFailed(agent, skill, state_name(done.task.status.state), reason)
        return done if output is None else output.model_validate(done.data)

    async def sleep(self, seconds: float) -> None:
        """Wait, over restarts, until that long after the moment this step was first reached."""
        key, recorded = self._run.step("sleep", _fingerprint("sleep", (seconds,)))
        if recorded is None:
            until = time.time() + seconds
            self._run.append(["begun", key, "sleep", _fingerprint("sleep", (seconds,)), until])
            await self._run.commit()
        if recorded is None or not recorded.done:
            await self._run.park(key, watched=True)

    async def now(self) -> datetime:
        """The present moment, UTC: the same at every run."""
        stamp = self._pure("now", lambda: time.time_ns() // 1_000_000)
        return datetime.fromtimestamp(stamp / 1000, UTC)

    async def random(self) -> random.Random:
        """A random generator with a recorded seed: it gives the same numbers at every run."""
        return random.Random(self._pure("random", lambda: secrets.randbits(63)))  # noqa: S311 -- not for secrets

    def group(self) -> "Group":
        """Work side by side: `async with task.group() as group: a = group.start(first()); b = group.start(second())`."""
        return Group(self._run)

    # -- how it is done -----------------------------------------------------------------------------------------------

    async def _ask(self, prompt: str, options: dict[str, str], scope: str, *, by_other: bool) -> Answer:
        fingerprint = _fingerprint(prompt, (options, scope, by_other))
        key, recorded = self._run.step(ASK, fingerprint)
        if recorded is None:
            while self._run.live.question is not None:
                await self._run.idle(self._run.live.question_closed())
            question = f"{self.id}:{key}"
            asked = Asked(question=question, options=options, scope=scope, by_other=by_other)
            status = asked.attach(Message.FromString(self._says(prompt, key)))
            spec = {"prompt": prompt, "options": options, "scope": scope, "by_other": by_other}
            self._run.append(
                ["begun", key, ASK, fingerprint, None],
                ["question", question, key, spec],
                self._run.live.status(TaskState.TASK_STATE_INPUT_REQUIRED, status.SerializeToString()),
            )
            await self._run.commit()
        step = recorded if recorded and recorded.done else await self._run.park(key, watched=False)
        by, data = step.value
        return _answer(by, Message.FromString(data), options)

    async def _call(self, agent: str, skill: str, message: Message, subject: str, question: str) -> Delegated:
        message.message_id = ""
        fingerprint = _fingerprint(agent, (skill, message.SerializeToString(deterministic=True).hex()))
        key, recorded = self._run.step("call", fingerprint)
        if recorded is None:
            message.message_id = hashlib.sha256(f"{self.id}:{key}".encode()).hexdigest()[:32]
            Sent(skill=skill, subject=subject, question=question).attach(message)
            self._run.append(["begun", key, "call", fingerprint, [agent, message.SerializeToString()]])
            await self._run.commit()
        step = recorded if recorded and recorded.done else await self._run.park(key, watched=True)
        if isinstance(step.value, str):
            raise AgentUnavailable(step.value)
        return Delegated(agent, skill, A2ATask.FromString(step.value))

    async def _record(self, key: str, kind: str, fingerprint: str, value: object) -> Step:
        self._run.live.append(["done", key, kind, fingerprint, value])
        await self._run.live.commit()
        return Step(kind, fingerprint, done=True, value=value)

    def _pure(self, kind: str, make: Callable[[], int]) -> int:
        key, recorded = self._run.step(kind, "")
        if recorded is None:
            value = make()
            # Stored with whatever is stored next: nothing can depend on it before that.
            self._run.append(["done", key, kind, "", value])
            return value
        return int(recorded.value)

    def _says(self, text: str, key: str) -> bytes:
        live = self._run.live
        message = binding.agent_says(text, f"{self.id}:{key}", task_id=self.id, context_id=live.meta["context"])
        return message.SerializeToString()


class Group:
    """Branches of a skill that work side by side; leaving the group waits for all of them."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._branches: list[asyncio.Task[Any]] = []

    def start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start a branch; await what it returns to have its result."""
        branch = self._run.branch(work)
        self._branches.append(branch)
        return branch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for branch in self._branches:
                branch.cancel()
        done = asyncio.gather(*self._branches, return_exceptions=kind is not None)
        try:
            await self._run.idle(done)
        finally:
            for branch in self._branches:
                branch.cancel()


def _answer(by: str, message: Message, options: Mapping[str, str]) -> Answer:
    text, data = binding.text_of(message), binding.data_of(message)
    said = str(data.get("choice", text)).strip().casefold()
    matches = [value for value, meaning in options.items() if said in (value.casefold(), meaning.casefold())]
    return Answer(by=by, text=text, data=data, choice=matches[0] if matches else None, message=message)


def _fingerprint(name: str, arguments: tuple[object, ...]) -> str:
    """What tells a step from another one at the same place."""
    plain = to_jsonable_python(arguments, fallback=repr)
    return f"{name[:40]}#{hashlib.sha256(json.dumps([name, plain], sort_keys=True).encode()).hexdigest()[:12]}"


def _codec(function: Callable[..., Any]) -> TypeAdapter[Any]:
    """How the result of a function is recorded and read back: by its return annotation, so that both are of one type."""
    try:
        return TypeAdapter(get_type_hints(inspect.unwrap(function)).get("return", Any))
    except (TypeError, NameError):
        return TypeAdapter(Any)
