"""What tasks wait for outside of their runs: other agents' tasks, and time."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from a2a.types import Message
from a2a.types import Task as A2ATask

from sidecard.callers import Bearing, bearing_none
from sidecard.errors import AccessDenied, AgentUnavailable, SidecardError, StoreUnavailable
from sidecard.extension import URI
from sidecard.screening.finding import ScreeningFailed, ScreenUnavailable
from sidecard.screening.guard import Guard
from sidecard.tasks.entry import Record
from sidecard.tasks.live import Live
from sidecard.tasks.lives import Lives
from sidecard.tasks.run import EVICT_SECONDS
from sidecard.tasks.state import Step
from sidecard.tasks.states import TERMINAL
from sidecard.tasks.tokens import TaskTokens, came_with_token

log = logging.getLogger("sidecard.tasks")

CANCEL_CHILD_SECONDS = 5.0
"""How long the end of a task waits for those that it has delegated; what is not canceled by then is a delivery."""


INSPECT_AGAIN_SECONDS = 1.0
NO_TOKEN = "no token"  # noqa: S105 -- it says so
"""What a call came to that waits for a token; why it does stands behind it."""


class NotTaken(AgentUnavailable):
    """The other agent has refused a message, or it was never sent: nothing can come of it."""


class TokenMissing(AccessDenied):
    """The other agent is called with the rights of whom the task is for, by a token of theirs, and none is at hand.

    `untaken` says that it is certain that nothing has come of the message so far.
    """

    def __init__(self, words: str, *, untaken: bool = True) -> None:
        super().__init__(words)
        self.untaken = untaken


class Refused(AgentUnavailable):
    """The other agent does not cancel, and would not if it were asked again."""


class Delegator(Protocol):
    """How tasks reach other agents."""

    async def follow(
        self,
        agent: str,
        message: Message,
        tenant: str,
        accepted: Callable[[str], None],
        *,
        known: str = "",
        bearing: Bearing = bearing_none,
    ) -> A2ATask:
        """Send a message, again and again if need be, and return the task once it has ended or waits for somebody.

        `known` is the task that is known to have come of the message already. `accepted` is told the task's id as soon
        as it is known, if it has not ended by then. `bearing` gives the token by which the rights of whom the task is
        for travel, where that is agreed with the other agent. Raises AgentUnavailable when patience is over, NotTaken
        where it is certain that nothing came of the message, TokenMissing.
        """

    async def cancel(self, agent: str, task_id: str, tenant: str, *, bearing: Bearing = bearing_none) -> None:
        """Cancel a delegated task; one that has ended already is no error. Raises AgentUnavailable, Refused."""

    async def withdraw(self, agent: str, message: Message, tenant: str) -> None:
        """Cancel what an agent has made of a first message, or may make of it yet, if it has taken it at all.

        Where the agent has no way to do that, it is said what to check by hand. Raises AgentUnavailable, Refused.
        """

    async def another(self, skill: str, like: str, tried: Sequence[str], tenant: str) -> str:
        """An enrolled agent, none of those that were tried, that lets this one use a skill as that agent has it.

        "" when there is none, or what that agent takes and gives is not known. Raises AgentUnavailable.
        """


class _Child(NamedTuple):
    """A task that was delegated to an agent; what was `unheard` of is known by the step that delegated it."""

    agent: str
    task_id: str
    unheard: str = ""


class Watches:
    """Ends the steps that wait for something outside: follows delegated tasks, and wakes those who sleep."""

    def __init__(
        self,
        lives: Lives,
        delegator: Delegator,
        in_background: Callable[[Coroutine[Any, Any, None], str], None],
        guard: Guard | None = None,
        tokens: TaskTokens | None = None,
    ) -> None:
        """Without `tokens` the rights of whom a task is for travel nowhere."""
        self._guard = guard
        self._tokens = tokens
        self._lives = lives
        self._delegator = delegator
        self._in_background = in_background
        self._sleepers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._canceled: WeakKeyDictionary[Live, set[_Child]] = WeakKeyDictionary()

    def watch(self, live: Live, key: str) -> bool:
        """See run.Watcher. A sleeping task costs a timer; one that has delegated stays in memory with its stream."""
        step = live.folded.steps[key]
        if step.kind == "sleep":
            seconds = max(0, int(step.value) - live.clock()) / 1000
            if (live.task_id, key) not in self._sleepers:
                timer = asyncio.get_running_loop().call_later(seconds, self._wake, live.task_id, key)
                self._sleepers[live.task_id, key] = timer
            return seconds < EVICT_SECONDS
        if key not in live.watches:
            watching = asyncio.create_task(self._follow(live, key, step), name=f"watch {key} of {live.task_id}")
            live.watches[key] = watching
            watching.add_done_callback(lambda done: self._watched(live, key, done))
        return True

    def unwatch(self, live: Live, key: str) -> None:
        """See run.Watcher. What was delegated there is cancelled; if it can't be, then again when the task ends."""
        if timer := self._sleepers.pop((live.task_id, key), None):
            timer.cancel()
        if key in live.watches:
            self._in_background(self._cancel_call(live, key), f"cancel {key} of {live.task_id}")

    def stop(self) -> None:
        """Wake nobody any more."""
        for timer in self._sleepers.values():
            timer.cancel()
        self._sleepers.clear()

    async def another(self, skill: str, like: str, tried: Sequence[str], tenant: str) -> str:
        """See run.Watcher."""
        return await self._delegator.another(skill, like, tried, tenant)

    async def cancel_children(self, live: Live) -> list[Record]:
        """See run.Watcher. With nothing left to cancel it does not wait, so that a task's end joins what is stored."""
        for sleeper in [key for key in self._sleepers if key[0] == live.task_id]:
            self._sleepers.pop(sleeper).cancel()
        told: dict[_Child, list[Record]] = {}
        while True:  # what still runs beside may delegate meanwhile
            if under_way := [key for key in live.watches if not live.step(key).done]:
                await asyncio.gather(*(_accepted(live, key) for key in under_way))
            for key in under_way:
                if key in live.watches and not live.step(key).done:
                    live.watches[key].cancel()
            if any(_names_child(live, key) for key in live.folded.unheard):
                await live.stored()
            if not (left := {child: key for child, key in _delegated(live).items() if child not in told}):
                return [record for records in told.values() for record in records]
            done = await asyncio.gather(*(self._cancel(live, child, key) for child, key in left.items()))
            for (child, key), canceled in zip(left.items(), done, strict=True):
                told[child] = [] if canceled else [["orphan", key, child.agent, child.task_id]]

    async def _cancel_call(self, live: Live, key: str) -> None:
        with self._lives.using(live):
            await _accepted(live, key)
            if key in live.watches:
                live.watches[key].cancel()
            for child in [child for child, call in _delegated(live).items() if call == key]:
                await self._cancel(live, child, key)

    async def _cancel(self, live: Live, child: "_Child", key: str) -> bool:
        """Try to cancel what a task has delegated; whether it is known to be canceled, or to have ended."""
        canceled = self._canceled.setdefault(live, set())
        if child in canceled:
            return True
        agent, tenant = child.agent, live.meta["tenant"]
        what = f"task {child.task_id} of {agent}" if child.task_id else f"what {agent} may have taken of {live.task_id}"
        try:
            async with asyncio.timeout(CANCEL_CHILD_SECONDS):
                if child.task_id and self.bears(live):
                    await self._delegator.cancel(agent, child.task_id, tenant, bearing=self._bearing(live))
                elif child.task_id:
                    await self._delegator.cancel(agent, child.task_id, tenant)
                elif unheard := live.folded.unheard.get(key):  # else it has been heard of just now
                    await self._delegator.withdraw(agent, Message.FromString(unheard[1]), tenant)
        except (AgentUnavailable, TimeoutError) as error:
            why = str(error) or f"no answer for {CANCEL_CHILD_SECONDS:.0f} s"
            log.warning("%s may still run and will be canceled later: %s", what, why)
            return False
        except Exception:
            log.exception("%s may still run and will be canceled later", what)
            return False
        canceled.add(child)
        return True

    async def _follow(self, live: Live, key: str, step: Step) -> None:
        agent, data = step.value
        known = live.folded.children[key].task_id if key in live.folded.children else ""

        def accepted(task_id: str) -> None:
            nonlocal known
            if not known and not live.ended and live.lost is None:
                live.append(["child", key, agent, task_id])
                known = task_id

        value: bytes | str | list[str]
        end = "done"
        child: list[Record] = []
        try:
            task = await self._delegator.follow(
                agent, Message.FromString(data), live.meta["tenant"], accepted, known=known, bearing=self._bearing(live)
            )
            task.ClearField("history")
            if task.id and not known:
                child = [["child", key, agent, task.id]]
            child += await self._inspect(live, agent, task)
            value = task.SerializeToString()
        except TokenMissing as error:
            value, end = self._without_token(live, error)
        except NotTaken as error:
            value = str(error)
        except ScreeningFailed as error:
            value, end = f"what {agent} answers can't be inspected: {error}", "failed"
        except AgentUnavailable as error:
            value, end = str(error), "failed"
        except Exception:
            end = "failed"
            log.exception("task %s can't follow what it delegated to %s", live.task_id, agent)
            value = f"{agent} could not be followed; the log has the details of task {live.task_id}"
        await _end(live, key, replace(step, end=end, value=value), *child)

    def bears(self, live: Live) -> bool:
        """See run.Watcher."""
        return self._tokens is not None and self._tokens.of(live.task_id) is not None

    def _bearing(self, live: Live) -> Bearing:
        return partial(self._tokens.of, live.task_id) if self._tokens else bearing_none

    def _without_token(self, live: Live, missing: TokenMissing) -> tuple[str | list[str], str]:
        """What a call comes to for want of a token: whom the task is for can bring another, where they brought one."""
        end = "done" if missing.untaken else "failed"
        if came_with_token(live.meta):
            return [NO_TOKEN, str(missing)], end
        return f"{missing}, and whom this task is for did not come with one: start it with an access token", end

    async def _inspect(self, live: Live, agent: str, task: A2ATask) -> list[Record]:
        """Let content inspection have another agent's answer before it is stored; the decisions go beside it.

        Raises ScreeningFailed.
        """
        if self._guard is None:
            return []
        while True:
            try:
                outcome = await self._guard.hears(live.meta["skill"], live.task_id, agent, task)
            except ScreenUnavailable as error:
                log.warning("what %s answered to task %s waits for inspection: %s", agent, live.task_id, error)
                await asyncio.sleep(INSPECT_AGAIN_SECONDS)
                continue
            task.metadata.fields.pop(URI, None)
            if outcome.withheld:
                task.metadata.update({URI: {"withheld": outcome.withheld}})
            return list(outcome.records)

    def _watched(self, live: Live, key: str, done: "asyncio.Task[None]") -> None:
        live.unwatched(key)
        if not done.cancelled() and done.exception():
            log.error("task %s lost step %s: %s", live.task_id, key, done.exception())
        self._lives.let_go(live)

    def _wake(self, task_id: str, key: str) -> None:
        self._in_background(self._end_sleep(task_id, key), f"wake {task_id}")

    async def _end_sleep(self, task_id: str, key: str) -> None:
        try:
            async with self._lives.borrow(task_id) as live:
                if live is not None:
                    await _end(live, key, replace(live.folded.steps[key], end="done", value=None))
        except StoreUnavailable:
            timer = asyncio.get_running_loop().call_later(1.0, self._wake, task_id, key)
            self._sleepers[task_id, key] = timer
        else:
            self._sleepers.pop((task_id, key), None)


async def _end(live: Live, key: str, step: Step, *before: Record) -> None:
    """Record what a step waited for, if its task still wants to know; then the task moves on by itself."""
    if live.owned and not live.ended and live.lost is None and not live.step(key).end:
        try:
            live.end_step(key, step, *before)
            await live.stored()
        except SidecardError as error:
            log.warning("task %s: the result of step %s was not recorded: %s", live.task_id, key, error)


async def _accepted(live: Live, key: str) -> None:
    """Wait a moment for the other agent to take what is being sent, so that it can be cancelled there.

    What it says of that is stored when this returns. Raises what made the task lost.
    """
    try:
        async with asyncio.timeout(CANCEL_CHILD_SECONDS):
            while key in live.watches and key not in live.folded.children and not live.step(key).done:
                await live.changed()
    except TimeoutError:
        await live.stored()


def _delegated(live: Live) -> dict[_Child, str]:
    """What a task has delegated and what may not have ended yet, each with the last step that spoke of it."""
    children = {_Child(child.agent, child.task_id): key for key, child in live.folded.children.items()}
    unheard = {
        _Child(agent, "", key): key
        for key, (agent, data) in live.folded.unheard.items()
        if not (live.step(key).end == "done" or Message.FromString(data).task_id)  # else the task is a child already
    }
    return {child: key for child, key in (children | unheard).items() if not _ended(live.step(key))}


def _names_child(live: Live, key: str) -> bool:
    """Whether a call's outcome is about to be stored, maybe behind its child, which may not have ended."""
    return live.step(key).done and not (live.folded.steps[key].done or _ended(live.step(key)))


def _ended(call: Step) -> bool:
    """Whether the task behind a recorded call had ended when the call did."""
    if call.end != "done" or not isinstance(call.value, bytes):
        return False
    return A2ATask.FromString(call.value).status.state in TERMINAL
