"""Answers of others that are errors: the refusal that one is, and how long it asks us to wait."""

import json
import re

import httpx
from a2a.client.errors import A2AClientError
from a2a.utils.errors import A2AError

from sidecard.refusals import JSON_RPC_CODES, TooManyRequests

MOST_SECONDS = 60.0
_REFUSALS = {code: error for error, code in JSON_RPC_CODES.items()}
_RPC_ERROR = re.compile(r"JSON-RPC Error (-?\d+): (.*)", re.DOTALL)


def refusal_of(error: A2AClientError) -> A2AError | None:
    """The refusal of ours inside of an error that the SDK's client did not recognise; None when it is none."""
    if isinstance(error.__cause__, httpx.HTTPStatusError):
        try:
            told = json.loads(error.__cause__.response.content)["error"]
            code, reason = told["code"], str(told["message"])
        except (ValueError, TypeError, LookupError, httpx.StreamError):
            return None
    elif found := _RPC_ERROR.fullmatch(error.message):
        code, reason = int(found[1]), found[2]
    else:
        return None
    kind = _REFUSALS.get(code)
    return kind(reason) if kind else None


def wait_of(error: Exception) -> float:
    """How many seconds the other side asks us to wait before we try again; 0 when it says nothing (RFC 9110 §10.2.3).

    In the mesh only the words of our own refusals arrive; a date is not read, nor more than a minute waited.
    """
    answer = next((e.response for e in (error, error.__cause__) if isinstance(e, httpx.HTTPStatusError)), None)
    if answer is not None and (said := answer.headers.get("retry-after", "")).isdecimal():
        return min(float(said[:6]), MOST_SECONDS)
    refused = refusal_of(error) if isinstance(error, A2AClientError) else error
    return min(float(refused.retry_after), MOST_SECONDS) if isinstance(refused, TooManyRequests) else 0.0
