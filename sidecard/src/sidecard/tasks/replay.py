"""Replaying a task: its skill runs again over its recorded steps, without effects, and is compared with its log."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from a2a.types import Artifact, Message, TaskState

from sidecard.agent import Agent
from sidecard.errors import SidecardError
from sidecard.screening.finding import Action, Decision, Direction, Withheld
from sidecard.screening.guard import reason
from sidecard.screening.strings import Spot, strings_of
from sidecard.screening.vault import Vault, revealed
from sidecard.tasks import binding
from sidecard.tasks.act import Act
from sidecard.tasks.entry import Entry, Record
from sidecard.tasks.journal import Journal
from sidecard.tasks.live import Live, TaskEnded
from sidecard.tasks.run import STOP_SECONDS, Branch, OutcomeUnknown, Run, StepMismatch
from sidecard.tasks.runner import Runner
from sidecard.tasks.screened import Screened
from sidecard.tasks.state import EVENTS, FoldedTask, Step
from sidecard.tasks.states import TERMINAL, state_name
from sidecard.tasks.store import StateStore

T = TypeVar("T")
Output = tuple[str, int]
"""A branch, and the number of an output that was made there, from 1."""

REPLAY_SECONDS = 30.0
"""How long a skill may take between its steps; recorded ones take no time."""
SHOWN = 200


class WriteRefused(SidecardError):
    """Something tried to write where only reading is meant."""


class ReadOnly:
    """A store that reads through to another one and refuses to write."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.shared, self.atomic = store.shared, store.atomic

    async def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """See store.StateStore."""
        return await self._store.read(keys)

    async def write(
        self, creates: Sequence[tuple[str, bytes]], upserts: Mapping[str, bytes], deletes: Sequence[str] = ()
    ) -> None:
        """Raises WriteRefused."""
        raise WriteRefused("this only reads; nothing was written")

    async def delete(self, keys: Sequence[str]) -> None:
        """Raises WriteRefused."""
        raise WriteRefused("this only reads; nothing was deleted")


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a replay could not go on: a step without an outcome in the log, only `begun` there or not even that.

    Without a key it is something between steps that the skill waits for.
    """

    key: str
    kind: str
    name: str
    begun: bool

    def __str__(self) -> str:
        if not self.key:
            return "something between its steps"
        return f"step {self.key}, {self.kind}" + (f" {self.name!r}" if self.name else "")


@dataclass(slots=True)
class Replay:
    """What became of a replay: `steps` that returned what was recorded, `outputs` that came out as recorded.

    `state` is the name of the A2A state that it ended in, "" when it stopped before its end; `stops` say where, one for
    each branch. It agrees when there are no `disagreements`.
    """

    steps: int = 0
    outputs: int = 0
    state: str = ""
    stops: list[Stop] = field(default_factory=list)
    disagreements: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether the log tells of all that the skill did."""
        return not self.disagreements


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
    live = _Replayed(store, folded, entries)
    originals = {} if vault is None else vault.open(folded.meta["task"], folded.sealed)
    run = live.run = _Rerun(live, originals)
    main = run.start(Runner(agent, _NOBODY, scopes_of, again=lambda _: None).execute(live, run))
    done, _ = await asyncio.wait([main], timeout=seconds)
    if not done:
        run.stops[""] = Stop("", "", "", begun=False)
        run.abandon()
        await run.ended(STOP_SECONDS)
    elif not main.cancelled():
        main.result()
    return _Comparison(folded, live, run, originals).result()


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
    """A task as it was before its first run, but for its steps. What is appended is kept here, for comparison."""

    def __init__(self, store: StateStore, folded: FoldedTask, entries: Sequence[Entry]) -> None:
        begun = replace(folded, emitted={})
        journal = Journal(ReadOnly(store))
        super().__init__(journal, _NOBODY, begun, folded.meta, replica="replay", clock=lambda: folded.at)
        self._prospect.state, self._prospect.question = TaskState.TASK_STATE_SUBMITTED, None
        self.recorded = {_output(record): (place, record) for place, record in _events(entries) if record[-2]}
        self.withheld = list(_withheld(entries))
        self.made: dict[Output, Record] = {}
        self.end: Record | None = None

    def append(self, *records: Record, act: Act | None = None) -> None:
        if self.ended:
            raise TaskEnded(f"task {self.task_id} has ended")
        for record in records:
            if record[0] in EVENTS and record[-2]:
                self.made[_output(record)] = record
            elif record[0] == "status":
                self._prospect.state = record[2]
                self.end = record if self.ended else None
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
    """A run that waits for ever at a step whose outcome is not recorded, and remembers how far each branch came."""

    def __init__(self, live: _Replayed, originals: Mapping[str, str]) -> None:
        super().__init__(live, _NOBODY)
        self.screened = _Screened(live, originals)
        self.branches: dict[str, Branch] = {}
        self.finished: set[str] = set()
        self.stops: dict[str, Stop] = {}
        self.returned = 0
        self.mismatches: list[str] = []

    def output(self) -> tuple[str, int, bool]:
        branch, number, stored = super().output()
        self.screened.output = branch, number  # type: ignore[attr-defined]
        return branch, number, stored

    async def step(self, kind: str, arguments: str) -> tuple[str, Step | None]:
        try:
            key, recorded = await super().step(kind, arguments)
        except StepMismatch as error:
            self.mismatches.append(str(error))
            raise
        if recorded is not None and recorded.done:
            self.returned += 1
            return key, recorded
        if recorded is not None and kind == "once" and self._went_on(key):
            raise OutcomeUnknown(recorded.value)
        name = arguments.rpartition("#")[0]
        stop = self.stops[key] = Stop(key, kind, name, begun=recorded is not None)
        try:
            await self.idle(asyncio.get_running_loop().create_future(), lambda: True)
        finally:
            if not self.over:  # another branch failed, and this one was cancelled for it
                del self.stops[stop.key]
        raise AssertionError("nobody ends what a replay waits for")

    def _went_on(self, key: str) -> bool:
        """Whether the task went on after an effect of unknown outcome: then the skill was told so."""
        branch, _, number = key.rpartition(":")
        return self.live.folded.ended or f"{branch}:{int(number) + 1}" in self.live.folded.steps

    def _spawn(self, branch: Branch, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        self.branches[branch.id] = branch
        task = super()._spawn(branch, work, name)

        def ended(done: asyncio.Task[T]) -> None:
            if not done.cancelled():
                self.finished.add(branch.id)

        task.add_done_callback(ended)
        return task


class _Comparison:
    """What a log tells, beside what its replay did."""

    def __init__(self, folded: FoldedTask, live: _Replayed, run: _Rerun, originals: Mapping[str, str]) -> None:
        self._folded = folded
        self._originals = originals
        self._live = live
        self._run = run

    def result(self) -> Replay:
        stops = list(self._run.stops.values())
        state = state_name(self._live.end[2]) if self._live.end else ""
        equal = sum(self._same(output) for output in self._live.made)
        # Once it has taken another way, everything after that differs too, and tells nothing.
        stalled = [str(self._live.stalled)] if self._live.stalled else []
        found = self._run.mismatches or stalled or [*self._outputs(), *self._unreached(), *self._end()]
        return Replay(self._run.returned, equal, state, stops, found)

    def _same(self, output: Output) -> bool:
        if output not in self._live.recorded:
            return False
        recorded, made = self._live.recorded[output][1], self._live.made[output]
        return _content(recorded, self._originals) == _content(made, self._originals)

    def _outputs(self) -> Iterator[str]:
        asked = any(step.kind == "ask" for step in self._folded.steps.values())
        for output, record in self._live.made.items():
            if output in self._live.recorded:
                if not self._same(output):
                    place, recorded = self._live.recorded[output]
                    now = f"the skill now makes {self._shown(record)}"
                    yield f"{_name(output)} differs: the log has {_shown(recorded)} ({place}), {now}"
            elif not (self._unfinished(output[0]) or (asked and record[0] == "status")):
                # Progress is not told while a question is open, and another branch may have asked one.
                yield f"{_name(output)} is not in the log: {self._shown(record)}"

    def _unfinished(self, branch: str) -> bool:
        """Whether what a branch has done last may not have been stored yet, when the task ended or was read."""
        unknown = any(stop.key.startswith(f"{branch}:") and not stop.begun for stop in self._run.stops.values())
        return (unknown or branch in self._run.finished) and (self._outside() or not self._folded.ended)

    def _unreached(self) -> Iterator[str]:
        """What is recorded behind the point where a branch ended, or stopped."""
        for key, step in self._folded.steps.items():
            branch, _, number = key.rpartition(":")
            if self._left(branch) and int(number) >= self._count(branch).steps:
                yield f"step {key}, {step.kind}, is in the log and the skill does not come to it{self._because(branch)}"
        for output, (place, record) in self._live.recorded.items():
            if self._left(output[0]) and output[1] > self._count(output[0]).outputs:
                unmade = f"the skill does not make it{self._because(output[0])}: {_shown(record)}"
                yield f"{_name(output)} is in the log, {place}, and {unmade}"

    def _left(self, branch: str) -> bool:
        """Whether a branch came to its end or stopped: one that was cancelled may have come further then, or less."""
        if branch not in self._run.branches:
            parent = branch.rpartition(".")[0]
            return bool(parent) and self._left(parent)
        return branch in self._run.finished or any(key.startswith(f"{branch}:") for key in self._run.stops)

    def _because(self, branch: str) -> str:
        stop = next((stop for key, stop in self._run.stops.items() if key.startswith(f"{branch}:")), None)
        return f", since {stop} has no outcome there" if stop else ""

    def _count(self, branch: str) -> Branch:
        return self._run.branches.get(branch, Branch(branch))

    def _end(self) -> Iterator[str]:
        folded, made, stops = self._folded, self._live.end, self._run.stops
        if folded.question is not None and folded.question.step not in stops:
            yield f"the task waits for an answer to step {folded.question.step}, and the skill does not ask there"
        if not folded.ended or self._outside():
            return
        said = binding.text_of(folded.task.status.message)
        recorded = f"{state_name(folded.state)} {said!r}"
        if made is None:
            where = next(iter(stops.values()), "its beginning")
            yield f"the log ends {recorded}, and the replay stops at {where}, whose outcome is not in the log"
        elif (made[2], binding.text_of(Message.FromString(made[3]))) != (
            folded.state,
            revealed(self._originals, said),
        ):
            yield f"the log ends {recorded}, and the skill now ends {self._shown(made)}"

    def _shown(self, record: Record) -> str:
        """What was made, with placeholders for what was redacted."""
        shown = _shown(record)
        for placeholder, original in self._originals.items():
            shown = shown.replace(original, placeholder)
        return shown

    def _outside(self) -> bool:
        """Whether it was not the skill that ended the task: somebody cancelled it, or its process died each time."""
        folded = self._folded
        if folded.state == TaskState.TASK_STATE_CANCELED:
            return folded.cancel_by is not None
        return folded.state == TaskState.TASK_STATE_FAILED and folded.deaths > 0 and self._live.end is None


def _events(entries: Sequence[Entry]) -> Iterator[tuple[str, Record]]:
    for n, entry in enumerate(entries, 1):
        for number, record in enumerate(entry.records):
            if record[0] in EVENTS:
                yield f"{n}.{number}", record


def _output(record: Record) -> Output:
    return record[-2], record[-1]


def _name(output: Output) -> str:
    return f"output {output[1]} of branch {output[0]}"


def _withheld(entries: Sequence[Entry]) -> Iterator[tuple[str, Decision]]:
    """What of what it gives out a skill was told to be withheld, in order, and the decision that is told."""
    for entry in entries:
        for record in entry.records:
            if record[0] == "screened" and record[1] == Direction.OUT:
                decided = [Decision.unpacked(one) for one in record[3] if one[0] == Action.BLOCK]
                if decided:
                    yield record[2], decided[0]


def _content(record: Record, originals: Mapping[str, str]) -> list[object]:
    """What a record of an output says, its time aside; protobuf's bytes may differ where its content does not."""
    said = Artifact.FromString(record[1]) if record[0] == "artifact" else Message.FromString(record[3])
    if originals:
        for one in strings_of(said):
            if isinstance(one, Spot):
                one.put(revealed(originals, one.text.text))
    return [said, *record[2:4]] if record[0] == "artifact" else [record[2], said]


def _shown(record: Record) -> str:
    if record[0] == "artifact":
        artifact = Artifact.FromString(record[1])
        said = Message(parts=artifact.parts)
        return f"{artifact.name} {binding.text_of(said) or binding.data_of(said)!r}"[:SHOWN]
    state = record[2]
    text = binding.text_of(Message.FromString(record[3]))
    return (f"{state_name(state)} {text!r}" if state in TERMINAL else repr(text))[:SHOWN]
