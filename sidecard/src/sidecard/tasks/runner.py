"""Lets skills run, and sees to what becomes of their tasks."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from a2a.types import Message
from pydantic import BaseModel, ValidationError

from sidecard.agent import Agent, Skill
from sidecard.errors import SidecardError, StoreUnavailable, TaskConflict
from sidecard.extension import Ended
from sidecard.refusals import TooManyRequests
from sidecard.screening.finding import ScreeningFailed, ScreenUnavailable
from sidecard.screening.guard import Guard
from sidecard.screening.vault import WITHHELD
from sidecard.tasks import binding
from sidecard.tasks.context import Rejected, Task
from sidecard.tasks.entry import Record
from sidecard.tasks.live import Live, TaskEnded
from sidecard.tasks.rights import owner_of
from sidecard.tasks.run import OutcomeUnknown, Run, StepMismatch, Watcher
from sidecard.tasks.state import ALONE
from sidecard.tasks.states import COMPLETED, FAILED, REJECTED, SUBMITTED, WORKING
from sidecard.tasks.turns import Limits, Turns
from sidecard.telemetry import continue_trace, span
from sidecard.validation import explain
from sidecard.vouching import Vouching

log = logging.getLogger("sidecard.tasks")

RUNS: Limits = {"caller": 400, "tenant": 500, "replica": 1_000}
"""Skills running at once: for one caller, for one tenant, in all. Those that wait for a person, or sleep for long, are
not running."""
WAITING = 10
"""So many times as many may wait for their turn; beyond that a new task is refused, and says when to come again."""
CROWDED_SECONDS = 5


class Runner:
    """Runs skills over their recorded steps, so many at once; the others wait, stored and listed, in order of arrival.

    `again` is told of a task whose run should be tried again later.
    """

    def __init__(
        self,
        agent: Agent,
        watches: Watcher,
        scopes_of: Callable[[str], frozenset[str]],
        again: Callable[[Live], None],
        *,
        runs: Limits = RUNS,
        vouching: Vouching | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._agent = agent
        self._guard = guard
        self._watches = watches
        self._scopes_of = scopes_of
        self._again = again
        self._turns = Turns(runs)
        self._vouching = vouching

    def start(self, live: Live, first: Message | None = None) -> "asyncio.Task[None]":
        """Let the skill of a task run; `first` is the message of a task that isn't stored yet."""
        live.stalled = None
        run = live.run = Run(live, self._watches, self._guard)
        return run.start(self._in_turn(live, run, first))

    async def end(self, live: Live, state: int, reason: str, *, repeatable: bool = True) -> None:
        """End a task that has not ended, once everything delegated from it is told, or found to be told later.

        Whoever delegated it is told what its skill has declared for such an end, and, if that is idempotent and the end
        itself `repeatable`, that it may be done again.
        """
        orphans = await self._watches.cancel_children(live)
        context = live.meta["context"]
        message = binding.agent_says(reason, f"{live.task_id}:end", task_id=live.task_id, context_id=context)
        skill = self._agent.skill_of(live.meta["skill"], live.meta["version"])
        if skill is not None and state in (FAILED, REJECTED):
            action = skill.failed if state == FAILED else skill.rejected
            Ended(action=action, repeatable=skill.idempotent and repeatable).attach(message)
        decided, said = await self._last_words(live, message)
        with contextlib.suppress(TaskEnded):
            live.append(*orphans, *decided, live.status(state, said))

    async def _last_words(self, live: Live, message: Message) -> tuple[list[Record], bytes]:
        """What a task ends with, inspected; a task ends also when that can't be."""
        if self._guard is None:
            return [], message.SerializeToString()
        decided: list[Record] = []
        try:
            decided = list((await self._guard.says(live.meta["skill"], live.task_id, message)).records)
        except ScreeningFailed as error:
            log.warning("the last words of task %s can't be inspected: %s", live.task_id, error)
            message.parts[0].text = WITHHELD
        return decided, message.SerializeToString()

    def check_room(self, caller: str, tenant: str) -> None:
        """Raises TooManyRequests where too many tasks wait already; those that were taken run, sooner or later."""
        if kind := self._turns.crowded(WAITING, caller=caller, tenant=tenant, replica=""):
            whose = {"caller": f"the caller {caller}", "tenant": "this tenant"}.get(kind, "all together")
            words = f"too many tasks of {whose} wait to be run here; try again in {CROWDED_SECONDS} s"
            raise TooManyRequests(words, retry_after=CROWDED_SECONDS)

    async def _in_turn(self, live: Live, run: Run, first: Message | None) -> None:
        if live.folded.lease == ALONE:  # others wait for this one already
            await self.execute(live, run, first)
        else:
            async with self._turns.turn(caller=live.meta["owner"], tenant=live.meta["tenant"], replica=""):
                await self.execute(live, run, first)

    async def execute(self, live: Live, run: Run, first: Message | None = None) -> None:
        """One pass of a task's skill, and what becomes of the task by it."""
        name = live.meta["skill"]
        skill = self._agent.skill_of(name, live.meta["version"])
        with continue_trace(live.meta["trace"]), span(f"task run {name}", task_id=live.task_id):
            try:
                if skill is None:
                    raise StepMismatch(f"this version of {self._agent.name} has no skill {name}")
                await self._skill(live, run, skill, first or live.folded.task.history[0])
            except asyncio.CancelledError:
                if run.over or run.cancelling:
                    raise
                log.exception("skill %s was cancelled from within in task %s", name, live.task_id)
                await self._fail(live, f"{name} was cancelled from within", "cancelled within")
            except Rejected as rejected:
                await self.end(live, REJECTED, str(rejected))
            except StepMismatch as error:
                log.error("task %s is stopped where it is: %s", live.task_id, error)
                live.stall(TaskConflict(f"task {live.task_id} is stopped where it is: {error}"))
            except (StoreUnavailable, ScreenUnavailable) as error:
                log.warning("task %s is tried again soon: %s", live.task_id, error)
                self._again(live)
            except SidecardError as error:
                await self._fail(live, str(error), type(error).__name__)
            except Exception:
                log.exception("skill %s failed in task %s", name, live.task_id)
                details = f"the agent's log has the details of task {live.task_id}"
                await self._fail(live, f"{name} failed unexpectedly; {details}", "unexpected")
            finally:
                live.writer.release(live)

    async def _fail(self, live: Live, reason: str, kind: str) -> None:
        if live.lost is None and not live.ended:
            live.failure = kind
            repeatable = kind != OutcomeUnknown.__name__
            await self.end(live, FAILED, reason, repeatable=repeatable)

    async def _skill(self, live: Live, run: Run, skill: Skill, message: Message) -> None:
        task = Task(run, owner_of(live.meta, self._scopes_of), self._vouching)
        if live.state == SUBMITTED:
            run.append(live.status(WORKING))
        result = await skill.function(await _bind(task, skill, message), task)
        await run.let_go(everywhere=True)
        records: list[Record] = []
        if result is not None:
            value = result if isinstance(result, (str, BaseModel)) else skill.output.dump_python(result, mode="json")
            records = await run.artifact("result", value)
        if live.folded.children or live.folded.unheard or live.watches:  # to cancel them may take a while
            if records:
                run.append(*records)
            records = await self._watches.cancel_children(live)
        run.append(*records, live.status(COMPLETED))


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
                task.reject(f"{skill.id} can't take this: {explain(error)}")
            answer = await task.ask(f"{skill.id} also needs: {', '.join(names)}")
            offered |= {**binding.raw_input(skill, answer.message)}
            if len(names) == 1 and names[0] not in offered and answer.text:
                offered[names[0]] = answer.text
