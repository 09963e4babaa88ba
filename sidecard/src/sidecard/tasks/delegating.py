"""Having another agent's skill do something, and what is done when that ends without success (see `actions`)."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from a2a.types import Message, Part
from opentelemetry import metrics

from sidecard.actions import REPEATING, Action, read
from sidecard.errors import AgentUnavailable, ConfigurationError, DelegationFailed
from sidecard.extension import Ended, Sent
from sidecard.tasks import binding
from sidecard.tasks.recording import StepFailed
from sidecard.tasks.results import Delegated
from sidecard.tasks.run import Run
from sidecard.tasks.states import COMPLETED, FAILED, INTERRUPTED, REJECTED, state_name
from sidecard.tasks.waits import TokenRefused, Waits
from sidecard.tasks.watch import NotTaken
from sidecard.telemetry import note

T = TypeVar("T")

BACKOFF_SECONDS = (0.5, 2.0, 8.0)
"""Before each retry; up to a third less, so that those who failed together do not come again together."""
MOST_ATTEMPTS = 12
"""Attempts at one delegation, whoever decides on them: retries, other agents, people."""
ESCALATED = {"retry": "Ask for it once more", "give_up": "Leave it at that"}
CHECKED = {"give_up": "Leave it at that", "retry": "It was checked that it has not happened: ask for it once more"}
_ACTIONS = metrics.get_meter("sidecard").create_counter(
    "sidecard.delegation.actions", unit="{action}", description="What was done about delegated tasks without success."
)


class PassedOn(Exception):
    """A delegated task was rejected, and who delegated it said that then its own is; or its owner lends it no token."""


class Author(Protocol):
    """What a skill may do with its task, as far as it is needed here."""

    async def progress(self, text: str) -> None:
        """Tell followers how it goes."""

    async def step(self, name: str, function: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Do something that is not deterministic, and record what it returned. Raises StepFailed."""


class Delegation:
    """One skill of another agent that is to be done. Everything it does is recorded, so that it can be run again."""

    def __init__(
        self, run: Run, waits: Waits, author: Author, *, skill: str, parts: Sequence[Part], subject: str
    ) -> None:
        self._run = run
        self._waits = waits
        self._author = author
        self._skill = skill
        self._parts = parts
        self._subject = subject
        self._retries = 0
        self._tried: list[str] = []

    async def done(self, agent: str, failed: str, rejected: str) -> Delegated:
        """Return what is COMPLETED in the end, here or elsewhere. `failed` and `rejected` win over what is declared.

        Raises DelegationFailed, PassedOn, AgentUnavailable, ConfigurationError for actions that there are not.
        """
        said = {
            FAILED: read(failed, FAILED) if failed else None,
            REJECTED: read(rejected, REJECTED) if rejected else None,
        }
        self._tried = [agent]
        failure: DelegationFailed | None = None
        for _ in range(MOST_ATTEMPTS):
            try:
                done = await self._attempt(agent)
            except NotTaken:
                if failure is None:
                    raise
                # It was the other one's to say no: nothing came of asking this one.
            else:
                state = done.task.status.state
                if state == COMPLETED:
                    return done
                reason = binding.text_of(done.task.status.message) or "no reason given"
                failure = DelegationFailed(agent, self._skill, state_name(state), reason)
                actions, repeatable = _applicable(done, said.get(state))
            chosen = await self._act(actions, failure, repeatable=repeatable)
            if not chosen:
                break
            agent = chosen
        raise failure or AgentUnavailable(f"{agent} was never asked")

    async def _attempt(self, agent: str) -> Delegated:
        """Ask an agent, and ask on whatever it asks, under the rights that it demands."""
        message = Message(parts=self._parts)
        sent = Sent(skill=self._skill, subject=self._subject)
        while True:
            try:
                done = await self._waits.call(agent, message, sent)
            except TokenRefused as refused:
                raise PassedOn(str(refused)) from None
            if done.task.status.state not in INTERRUPTED:
                return done
            message, sent = await self._waits.ask_on(done)

    async def _act(self, actions: Sequence[Action], failure: DelegationFailed, *, repeatable: bool) -> str:
        """Do the first of the actions that is of use: the agent to ask next, none when the failure is to be told."""
        for action in actions:
            match action.kind:
                case "retry" if self._retries < len(BACKOFF_SECONDS):
                    return await self._retry(failure)
                case "elsewhere":
                    if chosen := await self._elsewhere(failure):
                        return chosen
                case "escalate":
                    return await self._escalate(failure, action.scope, repeatable=repeatable)
                case "reject":
                    self._count("reject", failure)
                    raise PassedOn(failure.reason)
        self._count("surface", failure)
        return ""

    async def _retry(self, failure: DelegationFailed) -> str:
        seconds = _varied(BACKOFF_SECONDS[self._retries], self._run.live.task_id, self._retries)
        self._retries += 1
        self._count("retry", failure)
        again = f"retry {self._retries} of {len(BACKOFF_SECONDS)} in {seconds:.1f} s"
        await self._author.progress(f"{failure}. To be asked again: {again}.")
        await self._waits.sleep(seconds)
        return failure.agent

    async def _elsewhere(self, failure: DelegationFailed) -> str:
        """Another agent that has the skill; which one is recorded before it is asked."""

        async def another(skill: str, like: str, tried: list[str]) -> str:
            return await self._run.another(skill, like, tried)

        try:
            chosen = await self._author.step("another agent", another, self._skill, self._tried[0], list(self._tried))
        except StepFailed as unknown:
            await self._author.progress(f"{failure}. Whether another agent can do it is not known: {unknown}")
            return ""
        if chosen:
            self._count("elsewhere", failure)
            self._tried.append(chosen)
            await self._author.progress(f"{failure}. {chosen} is asked instead.")
        return chosen

    async def _escalate(self, failure: DelegationFailed, scope: str, *, repeatable: bool) -> str:
        """Have a person decide: nobody for themselves, where somebody has said no."""
        self._count("escalate", failure)
        refused = failure.state == "REJECTED"
        options = ESCALATED if refused or repeatable else CHECKED
        prompt = f"{failure}. What is to be done?"
        answer = await self._waits.ask(prompt, options, scope, by_other=refused)
        while answer.choice is None:
            answer = await self._waits.ask(f"That is none of the choices. {prompt}", options, scope, by_other=refused)
        return failure.agent if answer.choice == "retry" else ""

    def _count(self, action: str, failure: DelegationFailed) -> None:
        """Count what is done, and note it in the trace; not when the skill only runs over its records again."""
        if self._run.fresh():
            labels = {"agent": failure.agent, "skill": self._skill, "state": failure.state.lower(), "action": action}
            _ACTIONS.add(1, labels)
            note("sidecard.action", **labels)


def _applicable(done: Delegated, said: tuple[Action, ...] | None) -> tuple[tuple[Action, ...], bool]:
    """The actions for an end, and whether it may be repeated.

    Who calls may say what is to be done, but not that it is safe: that is the agent's own word, and without it nothing
    is done that could be done twice.
    """
    state = done.task.status.state
    ended = Ended.of_status(done.task.status.message) or Ended(action="surface")
    if said is None:
        try:
            said = read(ended.action, state) if state in _DECLARED else ()
        except ConfigurationError:  # of another version, or no agent of ours
            said = ()
        said = tuple(action for action in said if action.kind != "reject")
    unsafe = state == FAILED and not ended.repeatable
    return tuple(action for action in said if not (unsafe and action.kind in REPEATING)), ended.repeatable


_DECLARED = frozenset({FAILED, REJECTED})


def _varied(seconds: float, task_id: str, number: int) -> float:
    """Up to a third less, the same at every run of the task."""
    chance = hashlib.sha256(f"{task_id}:{number}".encode()).digest()[0] / 255
    return round(seconds * (1 - chance / 3), 3)
