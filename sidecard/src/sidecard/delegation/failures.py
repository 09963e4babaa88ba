"""What became of a call that failed: whether it may pass, whether something was taken, and what to say of it."""

import httpx
from a2a.client.errors import A2AClientError, A2AClientTimeoutError
from a2a.utils.errors import (
    A2AError,
    InternalError,
    InvalidParamsError,
    MethodNotFoundError,
    UnsupportedOperationError,
)
from google.protobuf.json_format import ParseError

from sidecard.egress import DestinationRefused
from sidecard.error_answers import refusal_of
from sidecard.error_words import words_of
from sidecard.errors import AccessDenied, AgentUnavailable
from sidecard.refusals import TooManyRequests, Unavailable
from sidecard.tasks.watch import Refused

FAILURES = (AgentUnavailable, A2AError, DestinationRefused, httpx.HTTPError, ParseError)
"""What calling an agent may raise, but for CardRejected."""


def may_pass(error: Exception) -> bool:
    """Whether trying again can help: the other side was not reached, or said that it can't right now."""
    if isinstance(error, AccessDenied | DestinationRefused):
        return False
    if isinstance(error, AgentUnavailable | A2AClientTimeoutError | httpx.HTTPError):
        return not isinstance(error, httpx.HTTPStatusError) or error.response.status_code >= 500  # noqa: PLR2004
    cause = error.__cause__
    if isinstance(cause, httpx.HTTPStatusError):
        return cause.response.status_code >= 500 or cause.response.status_code == 429  # noqa: PLR2004
    if isinstance(cause, httpx.HTTPError):
        return True
    return isinstance(_said(error), Unavailable | TooManyRequests)


def refuses(error: Exception) -> bool:
    """Whether this is the other side's word that it has not taken a message."""
    answer = error if isinstance(error, httpx.HTTPStatusError) else error.__cause__
    if isinstance(answer, httpx.HTTPStatusError) and answer.response.status_code < 500:  # noqa: PLR2004
        return True
    said = _said(error)
    return isinstance(said, A2AError | AccessDenied) and not isinstance(said, Unavailable | InternalError)


def never_arrived(error: Exception) -> bool:
    """Whether a message that failed so can't have been taken: it was refused, or there was no connection at all."""
    cause = error if isinstance(error, httpx.HTTPError) else error.__cause__
    if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return True
    busy = isinstance(cause, httpx.HTTPStatusError) and cause.response.status_code == httpx.codes.SERVICE_UNAVAILABLE
    return busy or isinstance(_said(error), Unavailable) or refuses(error)


def _said(error: Exception) -> Exception | None:
    """The error itself, or the refusal of ours that the SDK's client did not recognise in it."""
    return refusal_of(error) if isinstance(error, A2AClientError) else error


def not_canceled(agent: str, error: Exception) -> AgentUnavailable:
    """Why it can't be said that an agent has canceled something, or will not. A right may come back, a method won't."""
    final = isinstance(error, MethodNotFoundError | UnsupportedOperationError | InvalidParamsError)
    return (Refused if final else AgentUnavailable)(f"{agent} does not cancel: {words(error)}")


def words(error: Exception) -> str:
    """What went wrong, in one line: in the other side's own words, where it gave some."""
    if isinstance(error, ParseError):
        return f"what it answers is not A2A 1.0 ({str(error)[:200]})"
    answer = next((e.response for e in (error, error.__cause__) if isinstance(e, httpx.HTTPStatusError)), None)
    told = f"HTTP {answer.status_code}: {words_of(answer)}" if answer else str(error)
    return (told or type(error).__name__).replace("\n", " ")[:300]
