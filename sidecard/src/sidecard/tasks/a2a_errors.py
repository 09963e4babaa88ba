"""The engine's errors in A2A's words."""

import logging

from a2a.utils.errors import A2AError, InternalError, InvalidParamsError, UnsupportedOperationError

from sidecard.errors import LogBroken, StoreUnavailable, TaskConflict
from sidecard.refusals import PayloadTooLarge, Unavailable
from sidecard.screening.finding import ScreeningFailed, ScreenUnavailable, Withheld
from sidecard.tasks.identity import DifferentMessage
from sidecard.tasks.live import TaskEnded
from sidecard.tasks.pending import TooLarge
from sidecard.tasks.tombstone import TaskExpired

log = logging.getLogger("sidecard.tasks")


class _AsA2AErrors:
    """What isn't foreseen is logged, and told without details."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        match error:
            case None | A2AError():
                return
            case DifferentMessage():
                raise InvalidParamsError(str(error)) from None
            case TooLarge():
                raise PayloadTooLarge(str(error)) from None
            case TaskEnded() | TaskExpired():
                raise UnsupportedOperationError(str(error)) from None
            case LogBroken() | TaskConflict():
                log.error("a task can't be served", exc_info=error)
                raise Unavailable("this task can't be served here now; the agent's log says why") from error
            case Withheld() | ScreeningFailed() if not isinstance(error, ScreenUnavailable):
                raise InvalidParamsError(str(error)) from None
            case StoreUnavailable() | ScreenUnavailable():
                raise Unavailable(str(error)) from None
            case Exception():
                log.error("a request failed unexpectedly", exc_info=error)
                raise InternalError("this failed unexpectedly; the agent's log has the details") from None


as_a2a_errors = _AsA2AErrors()
"""`with as_a2a_errors:` raises what A2A has a word for. One object for all, since it keeps nothing."""
