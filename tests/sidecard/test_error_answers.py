"""Which of others' error answers are refusals of ours, and how long they ask us to wait."""

import httpx
import pytest
from a2a.client.errors import A2AClientError

from sidecard.error_answers import MOST_SECONDS, refusal_of, wait_of
from sidecard.refusals import Forbidden, Unavailable


def behind(answer):
    """The SDK's error for an HTTP error."""
    error = A2AClientError("HTTP Error")
    error.__cause__ = httpx.HTTPStatusError("", request=httpx.Request("POST", "http://shop/a2a"), response=answer)
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (A2AClientError("JSON-RPC Error -31503: it\nstarts"), Unavailable),
        (behind(httpx.Response(403, json={"error": {"code": -31403, "message": "no right"}})), Forbidden),
        (A2AClientError("JSON-RPC Error -32603: oh"), None),
        (A2AClientError("SSE stream error: x"), None),
        (behind(httpx.Response(403, json={"errorCode": "X", "message": "denied"})), None),
        (behind(httpx.Response(502, text="<html>")), None),
        (behind(httpx.Response(502, json=[1])), None),
    ],
)
def test_our_refusals_are_told_from_other_errors(error, kind):
    """In a stream or in an answer of its own; anything else is no refusal."""
    found = refusal_of(error)
    assert type(found) is (kind or type(None))
    assert found is None or found.message in {"it\nstarts", "no right"}


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (behind(httpx.Response(429, headers={"retry-after": "5"})), 5),
        (behind(httpx.Response(429, headers={"retry-after": "999999999999"})), MOST_SECONDS),
        (behind(httpx.Response(429, headers={"retry-after": "-5"})), 0),
        (A2AClientError("JSON-RPC Error -31429: enough; try again in 5 s"), 5),
        (A2AClientError("JSON-RPC Error -31429: enough"), 1),
        (A2AClientError("JSON-RPC Error -31503: starts"), 0),
        (httpx.ConnectError("refused"), 0),
    ],
)
def test_how_long_to_wait_is_believed_within_bounds(error, seconds):
    """What the other side asks for, a minute at most."""
    assert wait_of(error) == seconds
