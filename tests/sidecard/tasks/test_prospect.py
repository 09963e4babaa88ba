"""What a task will be once everything appended is stored."""

import pytest
from a2a.types import TaskState

from sidecard.tasks.prospect import Prospect
from sidecard.tasks.state import FoldedTask, Question
from sidecard.tasks.states import IllegalMove

S = TaskState


def status(state, at):
    return ["status", at, state, b"", "", 0]


def test_a_question_is_open_until_it_is_answered_ended_or_the_task_ends():
    """Whatever of it is stored yet."""
    asked = ["question", "q", "0:1", {"prompt": "Which?"}]
    for closes in (
        ["message", "m2", "digest", "ada", b""],
        ["done", "0:1", "ask", "", "red"],
        status(S.TASK_STATE_FAILED, 9),
    ):
        prospect = Prospect(FoldedTask())
        prospect.take([["message", "m1", "d", "ada", b""], status(S.TASK_STATE_WORKING, 5), asked])
        assert prospect.question == Question("q", "0:1", {"prompt": "Which?"})
        prospect.take([["done", "0:0", "step", "", None]])
        assert prospect.question is not None, "another step's end"
        prospect.take([closes])
        assert prospect.question is None
    assert prospect.ended
    assert prospect.messages == {"m1": "d"}


def test_times_go_forward_and_moves_are_legal_from_what_was_appended_last():
    """Within one append, too; what is refused changes nothing."""
    prospect = Prospect(FoldedTask())
    records = [
        status(S.TASK_STATE_SUBMITTED, 100),
        status(S.TASK_STATE_WORKING, 100),
        status(S.TASK_STATE_COMPLETED, 7),
    ]
    prospect.check(records)
    prospect.take(records)
    assert [record[1] for record in records] == [100, 101, 102]
    with pytest.raises(IllegalMove):
        prospect.check([status(S.TASK_STATE_WORKING, 200)])
    assert prospect.ended
    prospect.begin()
    assert not prospect.ended, "nothing of it was stored"
