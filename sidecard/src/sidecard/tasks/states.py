"""The states of a task and the moves between them: the one table that decides what may follow what (A2A 1.0 §4.1.3)."""

from a2a.types import TaskState

from sidecard.errors import SidecardError

# Read once: protobuf looks a state's number up anew each time that it is named.
NEW = TaskState.TASK_STATE_UNSPECIFIED
"""A task without any status yet: its first entry is being made."""
SUBMITTED = TaskState.TASK_STATE_SUBMITTED
WORKING = TaskState.TASK_STATE_WORKING
INPUT_REQUIRED = TaskState.TASK_STATE_INPUT_REQUIRED
AUTH_REQUIRED = TaskState.TASK_STATE_AUTH_REQUIRED
COMPLETED = TaskState.TASK_STATE_COMPLETED
FAILED = TaskState.TASK_STATE_FAILED
CANCELED = TaskState.TASK_STATE_CANCELED
REJECTED = TaskState.TASK_STATE_REJECTED

_ENDS = frozenset({COMPLETED, FAILED, CANCELED, REJECTED})

MOVES: dict[int, frozenset[int]] = {
    NEW: frozenset({SUBMITTED}),
    # It may end before its skill has begun: cancelled, or given up because its process died each time.
    SUBMITTED: _ENDS - {COMPLETED} | {WORKING},
    # From working to working: progress is told so.
    WORKING: _ENDS | {WORKING, INPUT_REQUIRED, AUTH_REQUIRED},
    # One question is open at a time. The next is asked once the task works again; another branch may end it meanwhile.
    INPUT_REQUIRED: _ENDS | {WORKING},
    AUTH_REQUIRED: _ENDS | {WORKING},
    COMPLETED: frozenset(),
    FAILED: frozenset(),
    CANCELED: frozenset(),
    REJECTED: frozenset(),
}
"""Where a task may go from each state. Whoever appends a status is held to it."""

TERMINAL = frozenset(state for state, moves in MOVES.items() if not moves)
INTERRUPTED = frozenset({INPUT_REQUIRED, AUTH_REQUIRED})

_NAMES = {state: TaskState.Name(state).removeprefix("TASK_STATE_") for state in MOVES}


class IllegalMove(SidecardError):
    """A status was to be appended that can't follow the present one: a defect, and nothing of it is stored."""


def check_move(before: int, after: int) -> None:
    """Raises IllegalMove where the table has no such move."""
    if after not in MOVES[before]:
        raise IllegalMove(f"a task can't go from {state_name(before)} to {state_name(after)}; this is a defect")


def state_name(state: int) -> str:
    """COMPLETED for TASK_STATE_COMPLETED: the short name used in metrics and messages."""
    return _NAMES.get(state) or str(state)  # other agents may have more of them
