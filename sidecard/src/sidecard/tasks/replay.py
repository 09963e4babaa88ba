"""Replaying a task: its skill runs again over its recorded steps, without effects, as far as they go."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from a2a.types import Artifact, Message

from sidecard.agent import Agent
from sidecard.screening.finding import Action, Decision, Direction, Withheld
from sidecard.screening.guard import reason
from sidecard.screening.vault import Vault, revealed
from sidecard.tasks.act import Act
from sidecard.tasks.comparison import Comparison, Course, Output, Replay, Stop, output_of, outputs_of
from sidecard.tasks.entry import Entry, Record
from sidecard.tasks.journal import Journal
from sidecard.tasks.live import Live, TaskEnded
from sidecard.tasks.read_only import ReadOnly, WriteRefused
from sidecard.tasks.run import STOP_SECONDS, Branch, OutcomeUnknown, Run, StepMismatch
from sidecard.tasks.runner import Runner
from sidecard.tasks.screened import Screened
from sidecard.tasks.state import FoldedTask, Step
from sidecard.tasks.states import SUBMITTED
from sidecard.tasks.store import StateStore

T = TypeVar("T")
REPLAY_SECONDS = 30.0
"""How long a skill may take between its steps; recorded ones take no time."""


async def replay(
    agent: Agent,
    store: StateStore,
    folded: FoldedTask,
    entries: Sequence[Entry],
    scopes_of: Callable[[str], frozenset[str]],
    *,
    vault: Vault | None = None,
    seconds: float = REPLAY_SECONDS,
) -> Replay:
    """Run a task's skill over its log (see `loading.read_log`) and compare. Nothing is written, sent or done.

    With the agent's `vault` the skill sees what content inspection has redacted in the task where it asks for it, and
    what it makes is compared with the originals; nothing is inspected anew, and what was withheld is withheld again.

    Every recorded step returns what was recorded; at one that is not, its branch stops, as it does where the task
    waits. What lies between the steps is run as it is. `scopes_of` tells what the task's owner may do today.
    """
    did = Course()
    live = _Replayed(store, folded, entries, did)
    originals = {} if vault is None else vault.open(folded.meta["task"], folded.sealed)
    run = live.run = _Rerun(live, did, originals)
    main = run.start(Runner(agent, _NOBODY, scopes_of, again=lambda _: None).execute(live, run))
    done, _ = await asyncio.wait([main], timeout=seconds)
    if not done:
        did.stops[""] = Stop("", "", "", begun=False)
        run.abandon()
        await run.ended(STOP_SECONDS)
    elif not main.cancelled():
        main.result()
    if live.stalled and not did.astray:
        did.astray.append(str(live.stalled))
    return Comparison(folded, live.recorded, did, originals).result()


class _Nobody:
    """Watches and keeps nothing: a replay ends no step, and stays alone with its task."""

    def watch(self, live: Live, key: str) -> bool:
        return False

    def unwatch(self, live: Live, key: str) -> None:
        pass

    def bears(self, live: Live) -> bool:
        return False

    async def another(self, skill: str, like: str, tried: Sequence[str], tenant: str) -> str:
        return ""

    async def cancel_children(self, live: Live) -> list[Record]:
        return []

    def stored(self, live: Live, before: int, records: list[Record], *, own: bool) -> None:
        pass

    def let_go(self, live: Live) -> None:
        pass

    def alive(self, replica: str) -> bool:
        return True

    async def knock(self, replica: str, task_id: str) -> None:
        pass


_NOBODY = _Nobody()


class _Replayed(Live):
    """A task as it was before its first run, but for its steps. What is appended goes into what the replay did."""

    def __init__(self, store: StateStore, folded: FoldedTask, entries: Sequence[Entry], did: Course) -> None:
        begun = replace(folded, emitted={})
        journal = Journal(ReadOnly(store))
        super().__init__(journal, _NOBODY, begun, folded.meta, replica="replay", clock=lambda: folded.at)
        self._prospect.state, self._prospect.question = SUBMITTED, None
        self.recorded = outputs_of(entries)
        self.withheld = list(_withheld(entries))
        self._did = did

    def append(self, *records: Record, act: Act | None = None, answers: str | None = None) -> None:
        if self.ended:
            raise TaskEnded(f"task {self.task_id} has ended")
        for record in records:
            if (output := output_of(record)) is not None:
                self._did.made[output] = record
            elif record[0] == "status":
                self._prospect.state = record[2]
                self._did.end = record if self.ended else None
            else:
                raise WriteRefused(f"a replay records nothing, and was to record {record[:3]}")

    async def stored(self, *, hurry: bool = True) -> None:
        pass


class _Screened(Screened):
    """Inspects nothing, and withholds what was withheld: an output that is not in the log, while a decision says so."""

    def __init__(self, live: _Replayed, originals: Mapping[str, str]) -> None:
        super().__init__(live, None)
        self.output: Output = "", 0
        self._replayed = live
        self._originals = originals

    async def artifact(self, artifact: Artifact) -> tuple[list[Record], bytes]:
        self._withhold("artifact")
        return await super().artifact(artifact)

    async def status(self, message: Message) -> tuple[list[Record], bytes]:
        self._withhold("status")
        return await super().status(message)

    def reveal(self, text: str) -> str:
        return revealed(self._originals, text)

    def _withhold(self, what: str) -> None:
        withheld = self._replayed.withheld
        if self.output not in self._replayed.recorded and withheld and withheld[0][0] == what:
            raise Withheld(reason(*withheld.pop(0)))


class _Rerun(Run):
    """A run that waits for ever at a step whose outcome is not recorded, and tells how far each branch came."""

    def __init__(self, live: _Replayed, did: Course, originals: Mapping[str, str]) -> None:
        super().__init__(live, _NOBODY)
        self.screened = _Screened(live, originals)
        self._did = did

    def output(self) -> tuple[str, int, bool]:
        branch, number, stored = super().output()
        self.screened.output = branch, number  # type: ignore[attr-defined]
        return branch, number, stored

    async def step(self, kind: str, arguments: str) -> tuple[str, Step | None]:
        try:
            key, recorded = await super().step(kind, arguments)
        except StepMismatch as error:
            self._did.astray.append(str(error))
            raise
        if recorded is not None and recorded.done:
            self._did.returned += 1
            return key, recorded
        if recorded is not None and kind == "once" and self._went_on(key):
            raise OutcomeUnknown(recorded.value)
        name = arguments.rpartition("#")[0]
        stop = self._did.stops[key] = Stop(key, kind, name, begun=recorded is not None)
        try:
            await self.idle(asyncio.get_running_loop().create_future(), lambda: True)
        finally:
            if not self.over:  # another branch failed, and this one was cancelled for it
                del self._did.stops[stop.key]
        raise AssertionError("nobody ends what a replay waits for")

    def _went_on(self, key: str) -> bool:
        """Whether the task went on after an effect of unknown outcome: then the skill was told so."""
        branch, _, number = key.rpartition(":")
        return self.live.folded.ended or f"{branch}:{int(number) + 1}" in self.live.folded.steps

    def _spawn(self, branch: Branch, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        self._did.branches[branch.id] = branch
        task = super()._spawn(branch, work, name)

        def ended(done: asyncio.Task[T]) -> None:
            if not done.cancelled():
                self._did.finished.add(branch.id)

        task.add_done_callback(ended)
        return task


def _withheld(entries: Sequence[Entry]) -> Iterator[tuple[str, Decision]]:
    """What of what it gives out a skill was told to be withheld, in order, and the decision that is told."""
    for entry in entries:
        for record in entry.records:
            if record[0] == "screened" and record[1] == Direction.OUT:
                decided = [Decision.unpacked(one) for one in record[3] if one[0] == Action.BLOCK]
                if decided:
                    yield record[2], decided[0]
