"""What a skill sees of its task: the `Task` that authors work with."""

import asyncio
import functools
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar, overload

from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_jsonable_python

from sidecard.agent import File
from sidecard.callers import Caller
from sidecard.errors import SidecardError, StoreUnavailable
from sidecard.screening.finding import Direction
from sidecard.tasks import binding
from sidecard.tasks.delegating import Delegation, PassedOn
from sidecard.tasks.group import Group
from sidecard.tasks.recording import StepFailed, codec_of, fingerprint_of
from sidecard.tasks.results import Answer, Authority, Delegated
from sidecard.tasks.run import OutcomeUnknown, Run
from sidecard.tasks.state import Step
from sidecard.tasks.states import WORKING
from sidecard.tasks.waits import Waits
from sidecard.vouching import Vouching

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Effect = Callable[..., Awaitable[T]]
__all__ = ["Answer", "Authority", "AuthorityRefused", "Delegated", "Group", "Rejected", "StepFailed", "Task"]

log = logging.getLogger("sidecard.tasks")

LONGEST_ECHO = 80
"""Characters of an answer that are shown again with the question that it did not answer."""


class Rejected(Exception):
    """Raised by `Task.reject`: the task ends REJECTED with this reason."""


class AuthorityRefused(Rejected):
    """Raised by `Task.authorize`: who was asked has said no; `decided` says who and when."""

    def __init__(self, reason: str, decided: Authority) -> None:
        super().__init__(reason)
        self.decided = decided


class Task:
    """A skill's own task.

    `ask`, `authorize`, `delegate`, `step`, `once`, `sleep`, `now` and `random` are recorded in the task's log: when the
    task goes on after a wait or a crash, the skill runs again from its top and each of them returns at once what it
    returned before. What lies between them must be deterministic.
    """

    def __init__(self, run: Run, caller: Caller, vouching: Vouching | None = None) -> None:
        self._run = run
        self._waits = Waits(run, vouching)
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
        await self._run.let_go()
        question = prompt
        while True:
            answer = await self._waits.ask(question, options, scope, by_other=by_other)
            if not options or answer.choice is not None:
                return answer
            question = f"{answer.text[:LONGEST_ECHO] or 'That'!r} is none of the choices. {prompt}"

    async def authorize(self, prompt: str, *, authority: str, details: Mapping[str, str] | None = None) -> Authority:
        """Have the one on whose behalf this task runs grant an authority (AUTH_REQUIRED), and wait for it.

        `authority` names what is granted, such as "card:charge"; `details` say for what, each with its name, and are
        shown with it. Only an explicit grant of our extension that names both this question and this authority counts,
        never a message's words; agents between can't make it up. Raises AuthorityRefused, by which the task ends
        REJECTED unless that is caught. A2A 1.0 §7.6.
        """
        await self._run.let_go()
        decided = await self._waits.authorize(prompt, authority, details or {})
        if not decided.granted:
            raise AuthorityRefused(f"{decided.by} refused {authority}: {prompt}", decided)
        return decided

    async def progress(self, text: str) -> None:
        """Tell followers how it goes (a WORKING status with this text); not told while a question is open."""
        branch, number, stored = self._run.output()
        live = self._run.live
        if not stored and live.question is None:
            decided, said = await self._run.screened.status(self._waits.says(text, f"{branch}p{number}"))
            self._run.append(*decided, live.status(WORKING, said, branch, number))
            await self._run.keep_up()

    async def artifact(self, name: str, *values: str | BaseModel | File | dict[str, Any]) -> None:
        """Give out an artifact: text, data (a model or a dict) and files become its parts."""
        await self._give(name, values)

    async def chunk(self, name: str, text: str, *, last: bool = False) -> None:
        """Append a chunk of text to the artifact of that name, as it is made; waits when the store is far behind.

        Chunks that are made faster than they can be stored are told, and kept, as one.
        """
        branch, number, stored = self._run.output()
        goes, pieces, before = self._run.screened.piece(branch, name, text, last=last)
        if not stored and (goes or last or not text):
            given = binding.artifact_of(name, name, goes)
            decided, artifact = await self._run.screened.given_on(given, pieces, before)
            self._run.append(*decided, ["artifact", artifact, True, last, branch, number])
            await self._run.keep_up()
        await asyncio.sleep(0)  # let others work

    def reject(self, reason: str) -> NoReturn:
        """End the task REJECTED. Never returns."""
        raise Rejected(reason)

    def reveal(self, text: str) -> str:
        """A text with what content inspection has redacted in this task put back, wherever its placeholders stand.

        For this skill alone: what it gives out, says or sends on is inspected again.
        """
        return self._run.screened.reveal(text)

    # -- recorded steps -----------------------------------------------------------------------------------------------

    async def step(self, name: str, function: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Do something that is not deterministic or costs time, and record what it returned.

        It may be done more than once when the process dies in between, so it must have no effect that matters; use
        `once` for those. What it raises is recorded too: a SidecardError's words, anything else as "failed".
        Raises StepFailed then.
        """
        fingerprint = fingerprint_of(name, arguments)
        key, recorded = await self._run.step("step", fingerprint)
        codec = codec_of(function)
        if recorded is None:
            with self._run.droppable(key, "step", fingerprint):
                begun = Step("step", fingerprint, "", None)
                recorded = await self._perform(name, key, begun, function(*arguments), codec)
        result: T = self._returned(recorded, codec)
        return result

    async def tool(self, name: str, call: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Ask a tool, such as an MCP server's, as a `step`: what it is asked and what it answers are inspected before.

        `name` is the tool's, as the screening policy of the skill may list it. Raises StepFailed, also for what the
        policy withholds.
        """
        codec = codec_of(call)

        @functools.wraps(call)
        async def inspected(*given: object) -> T:
            asked = to_jsonable_python(given)
            passed = await self._run.screened.tool(name, asked, Direction.OUT)
            found = await call(*(given if passed is asked else passed))
            plain = codec.dump_python(found, mode="json")
            heard = await self._run.screened.tool(name, plain, Direction.IN)
            result: T = found if heard is plain else codec.validate_python(heard)
            return result

        return await self.step(name, inspected, *arguments)

    async def once(self, name: str, effect: Effect[T], *, repeatable: bool = False) -> T:
        """Have an effect that must not happen twice, and record what it returned.

        The effect is started at most once; when the process dies before its outcome is recorded, the task ends FAILED,
        "outcome unknown". A `repeatable` effect takes one argument, an idempotency key that stays the same, and is
        repeated under it until its outcome is recorded.
        """
        fingerprint = fingerprint_of(name, ())
        key, recorded = await self._run.step("once", fingerprint)
        codec = codec_of(effect)
        if recorded is None:
            self._run.append(["begun", key, "once", fingerprint, name])
            with self._run.droppable(key, "once", fingerprint):
                async with self._run.withdrawn(key):
                    await self._run.commit()
        if recorded is None or (repeatable and not recorded.done):
            work = effect(f"{self.id}:{key}") if repeatable else effect()
            begun = Step("once", fingerprint, "", name)
            with self._run.effect():
                recorded = await self._see_through(self._perform(name, key, begun, work, codec))
        elif not recorded.done:
            raise OutcomeUnknown(name)
        result: T = self._returned(recorded, codec)
        return result

    @overload
    async def delegate(
        self, agent: str, skill: str, request: BaseModel | str, *files: File, failed: str = "", rejected: str = ""
    ) -> Delegated: ...
    @overload
    async def delegate(
        self,
        agent: str,
        skill: str,
        request: BaseModel | str,
        *files: File,
        output: type[M],
        failed: str = "",
        rejected: str = "",
    ) -> M: ...
    async def delegate(
        self,
        agent: str,
        skill: str,
        request: BaseModel | str,
        *files: File,
        output: type[M] | None = None,
        failed: str = "",
        rejected: str = "",
    ) -> Delegated | M:
        """Have another agent's skill do it, and wait for its end.

        What it asks is asked on, under the rights that it demands, and answered back. When it ends FAILED or REJECTED
        what its author has declared for that is done, or what `failed` and `rejected` say here (see
        `sidecard.actions`); only what its author has declared idempotent is ever repeated.

        Raises DelegationFailed when it ends without success after all that, AgentUnavailable when it can't be reached
        for long.
        """
        parts = [part for value in (request, *files) for part in binding.parts_of(value)]
        delegation = Delegation(self._run, self._waits, self, skill=skill, parts=parts, subject=self.subject)
        try:
            done = await delegation.done(agent, failed, rejected)
        except PassedOn as rejection:
            self.reject(str(rejection))
        return done if output is None else output.model_validate(done.data)

    async def sleep(self, seconds: float) -> None:
        """Wait, over restarts, until that long after the moment this step was first reached."""
        await self._waits.sleep(seconds)

    async def now(self) -> datetime:
        """The present moment, UTC: the same at every run."""
        stamp = await self._pure("now", self._run.live.clock)
        return datetime.fromtimestamp(stamp / 1000, UTC)

    async def random(self) -> random.Random:
        """A random generator with a recorded seed: it gives the same numbers at every run."""
        return random.Random(await self._pure("random", lambda: secrets.randbits(63)))  # noqa: S311 -- not for secrets

    def group(self) -> Group:
        """Work side by side: `async with task.group() as group: one = group.start(a()); two = group.start(b())`."""
        return Group(self._run)

    # -- how it is done -----------------------------------------------------------------------------------------------

    async def _perform(self, name: str, key: str, begun: Step, work: Awaitable[T], codec: TypeAdapter[Any]) -> Step:
        """Do the work of a step and record what became of it, whatever becomes of its run."""
        try:
            step = replace(begun, end="done", value=codec.dump_json(await work))
        except (StoreUnavailable, Rejected):
            raise  # passes by itself, or ends the task
        except Exception as error:
            reason = str(error)
            if not isinstance(error, SidecardError):
                log.exception("%s failed in task %s", name, self.id)
                reason = f"{name} failed unexpectedly; the agent's log has the details of task {self.id}"
            step = replace(begun, end="failed", value=reason)
        self._run.live.append([step.end, key, step.kind, step.arguments, step.value])
        if step.kind == "once":  # a plain step is stored with whatever comes next; nothing leaves before that
            await self._run.live.stored()
        return step

    async def _see_through(self, work: Coroutine[Any, Any, Step]) -> Step:
        """Have an effect; when the run is cancelled meanwhile its outcome is still waited for and recorded."""
        effect = asyncio.ensure_future(work)
        effect.add_done_callback(lambda done: done.cancelled() or done.exception())  # maybe nobody is left to hear it
        try:
            return await asyncio.shield(effect)
        except asyncio.CancelledError:
            if not effect.done() and self._run.live.lost is None:
                await asyncio.wait([effect])
            raise

    def _returned(self, step: Step, codec: TypeAdapter[Any]) -> Any:  # noqa: ANN401 -- what the function returned
        self._run.check()
        if step.end == "failed":
            raise StepFailed(step.value)
        return codec.validate_json(step.value)

    async def _give(self, name: str, values: tuple[object, ...]) -> None:
        if records := await self._run.artifact(name, *values):
            self._run.append(*records)
            await self._run.keep_up()

    async def _pure(self, kind: str, make: Callable[[], int]) -> int:
        key, recorded = await self._run.step(kind, "")
        if recorded is None:
            value = make()
            # Stored with whatever is stored next: nothing can depend on it before that.
            self._run.append(["done", key, kind, "", value])
            return value
        return int(recorded.value)
