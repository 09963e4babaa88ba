"""What a task will be once everything appended to it is stored: decisions take that for what is."""

from collections.abc import Iterable

from sidecard.tasks.entry import Record
from sidecard.tasks.state import ENDS, FoldedTask, Question
from sidecard.tasks.states import TERMINAL, check_move


class Prospect:
    """Its state, its open question, the messages it knows with their digests, and the time of its last status."""

    def __init__(self, folded: FoldedTask) -> None:
        self._folded = folded
        self.begin()

    def begin(self) -> None:
        """Be what is stored: nothing else is appended, or it will be taken again."""
        self.state: int = self._folded.state
        self.question = self._folded.question
        self.messages = dict(self._folded.messages)
        self.last_status = self._folded.task.status.timestamp.ToMilliseconds()

    @property
    def ended(self) -> bool:
        """Whether the task has ended, or will."""
        return self.state in TERMINAL

    def check(self, records: Iterable[Record]) -> None:
        """Raises IllegalMove when these can't follow."""
        state = self.state
        for record in records:
            if record[0] == "status":
                check_move(state, record[2])
                state = record[2]

    def take(self, records: Iterable[Record]) -> None:
        """These are appended; their statuses are given times that go forward."""
        for record in records:
            match record:
                case ["status", at, state, *_]:
                    self.last_status = record[1] = max(at, self.last_status + 1)
                    self.state = state
                    self.question = None if self.ended else self.question
                case [("message" | "grant"), message_id, digest, *_]:
                    self.messages[message_id] = digest
                    self.question = None
                case ["question", question_id, key, spec]:
                    self.question = Question(question_id, key, spec)
                case [kind, key, *_] if kind in ENDS and self.question is not None and self.question.step == key:
                    self.question = None
