"""What a task's log tells beside what its replay made: do they agree, and where do they part?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from a2a.types import Artifact, Message

from sidecard.screening.strings import Spot, strings_of
from sidecard.screening.vault import revealed
from sidecard.tasks import binding
from sidecard.tasks.chunk import divided
from sidecard.tasks.entry import Entry, Record
from sidecard.tasks.run import Branch
from sidecard.tasks.state import EVENTS, FoldedTask
from sidecard.tasks.states import CANCELED, FAILED, TERMINAL, state_name

Output = tuple[str, int]
"""A branch, and the number of an output that was made there, from 1."""
Recorded = tuple[str, Record]
"""The record of an output, behind its place in the log."""
SHOWN = 200
"""Characters of an output that are shown where it differs."""


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


@dataclass(slots=True)
class Course:
    """What a replay did: how many recorded steps `returned`, what it `made`, its `end` and where it stopped, by step.

    `branches` say how far each came, and `finished` are those that came to their end; `astray` says why it could not
    follow the log any further.
    """

    returned: int = 0
    made: dict[Output, Record] = field(default_factory=dict)
    end: Record | None = None
    stops: dict[str, Stop] = field(default_factory=dict)
    branches: dict[str, Branch] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    astray: list[str] = field(default_factory=list)


class Comparison:
    """What a log tells, beside what its replay did; the `originals` of what was redacted are by placeholder."""

    def __init__(
        self, folded: FoldedTask, recorded: Mapping[Output, Recorded], did: Course, originals: Mapping[str, str]
    ) -> None:
        self._folded = folded
        self._recorded = recorded
        self._did = did
        self._originals = originals

    def result(self) -> Replay:
        """What became of the replay."""
        did = self._did
        state = state_name(did.end[2]) if did.end else ""
        equal = sum(self._same(output) for output in did.made)
        # Once it has taken another way, everything after that differs too, and tells nothing.
        found = did.astray or [*self._outputs(), *self._unreached(), *self._end()]
        return Replay(did.returned, equal, state, list(did.stops.values()), found)

    def _same(self, output: Output) -> bool:
        if output not in self._recorded:
            return False
        recorded, made = self._recorded[output][1], self._did.made[output]
        return _content(recorded, self._originals) == _content(made, self._originals)

    def _outputs(self) -> Iterator[str]:
        asked = any(step.kind == "ask" for step in self._folded.steps.values())
        for output, record in self._did.made.items():
            if output in self._recorded:
                if not self._same(output):
                    place, recorded = self._recorded[output]
                    now = f"the skill now makes {self._shown(record)}"
                    yield f"{_name(output)} differs: the log has {_shown(recorded)} ({place}), {now}"
            elif not (self._unfinished(output[0]) or (asked and record[0] == "status")):
                # Progress is not told while a question is open, and another branch may have asked one.
                yield f"{_name(output)} is not in the log: {self._shown(record)}"

    def _unfinished(self, branch: str) -> bool:
        """Whether what a branch has done last may not have been stored yet, when the task ended or was read."""
        unknown = any(stop.key.startswith(f"{branch}:") and not stop.begun for stop in self._did.stops.values())
        return (unknown or branch in self._did.finished) and (self._outside() or not self._folded.ended)

    def _unreached(self) -> Iterator[str]:
        """What is recorded behind the point where a branch ended, or stopped."""
        for key, step in self._folded.steps.items():
            branch, _, number = key.rpartition(":")
            if self._left(branch) and int(number) >= self._count(branch).steps:
                yield f"step {key}, {step.kind}, is in the log and the skill does not come to it{self._because(branch)}"
        for output, (place, record) in self._recorded.items():
            if self._left(output[0]) and output[1] > self._count(output[0]).outputs:
                unmade = f"the skill does not make it{self._because(output[0])}: {_shown(record)}"
                yield f"{_name(output)} is in the log, {place}, and {unmade}"

    def _left(self, branch: str) -> bool:
        """Whether a branch came to its end or stopped: one that was cancelled may have come further then, or less."""
        if branch not in self._did.branches:
            parent = branch.rpartition(".")[0]
            return bool(parent) and self._left(parent)
        return branch in self._did.finished or any(key.startswith(f"{branch}:") for key in self._did.stops)

    def _because(self, branch: str) -> str:
        stop = next((stop for key, stop in self._did.stops.items() if key.startswith(f"{branch}:")), None)
        return f", since {stop} has no outcome there" if stop else ""

    def _count(self, branch: str) -> Branch:
        return self._did.branches.get(branch, Branch(branch))

    def _end(self) -> Iterator[str]:
        folded, made, stops = self._folded, self._did.end, self._did.stops
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
        if folded.state == CANCELED:
            return folded.cancel_by is not None
        return folded.state == FAILED and folded.deaths > 0 and self._did.end is None


def outputs_of(entries: Sequence[Entry]) -> dict[Output, Recorded]:
    """What a log tells of the outputs of its task's skill; not each event is one."""
    return {
        output: (f"{n}.{number}", record)
        for n, entry in enumerate(entries, 1)
        for number, stored in enumerate(entry.records)
        for record in divided(stored)
        if (output := output_of(record)) is not None
    }


def output_of(record: Record) -> Output | None:
    """Which output of the skill a record is, None where it is none."""
    return (record[4], record[5]) if record[0] in EVENTS and record[4] else None


def _name(output: Output) -> str:
    return f"output {output[1]} of branch {output[0]}"


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
