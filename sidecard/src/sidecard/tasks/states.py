"""The states of a task and the moves between them: the one table that decides what may follow what (A2A 1.0 §4.1.3)."""

from a2a.types import TaskState as S

from sidecard.errors import SidecardError

_ENDS = frozenset({S.TASK_STATE_COMPLETED, S.TASK_STATE_FAILED, S.TASK_STATE_CANCELED, S.TASK_STATE_REJECTED})

NEW = S.TASK_STATE_UNSPECIFIED
"""A task without any status yet: its first entry is being made."""

MOVES: dict[int, frozenset[int]] = {
    NEW: frozenset({S.TASK_STATE_SUBMITTED}),
    # It may end before its skill has begun: cancelled, or given up because its process died each time.
    S.TASK_STATE_SUBMITTED: _ENDS - {S.TASK_STATE_COMPLETED} | {S.TASK_STATE_WORKING},
    # From working to working: progress is told so.
    S.TASK_STATE_WORKING: _ENDS | {S.TASK_STATE_WORKING, S.TASK_STATE_INPUT_REQUIRED, S.TASK_STATE_AUTH_REQUIRED},
    # One question is open at a time. The next is asked once the task works again; another branch may end it meanwhile.
    S.TASK_STATE_INPUT_REQUIRED: _ENDS | {S.TASK_STATE_WORKING},
    S.TASK_STATE_AUTH_REQUIRED: _ENDS | {S.TASK_STATE_WORKING},
    S.TASK_STATE_COMPLETED: frozenset(),
    S.TASK_STATE_FAILED: frozenset(),
    S.TASK_STATE_CANCELED: frozenset(),
    S.TASK_STATE_REJECTED: frozenset(),
}
"""Where a task may go from each state. Whoever appends a status is held to it."""

TERMINAL = frozenset(state for state, moves in MOVES.items() if not moves)
INTERRUPTED = frozenset({S.TASK_STATE_INPUT_REQUIRED, S.TASK_STATE_AUTH_REQUIRED})


class IllegalMove(SidecardError):
    """A status was to be appended that can't follow the present one: a defect, and nothing of it is stored."""


def check_move(before: int, after: int) -> None:
    """Raises IllegalMove where the table has no such move."""
    if after not in MOVES[before]:
        raise IllegalMove(f"a task can't go from {state_name(before)} to {state_name(after)}; this is a defect")


def state_name(state: int) -> str:
    """COMPLETED for TASK_STATE_COMPLETED: the short name used in metrics and messages."""
    return S.Name(state).removeprefix("TASK_STATE_")
