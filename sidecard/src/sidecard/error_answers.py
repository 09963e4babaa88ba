"""Answers of others that are errors: the refusal that one is, and what it says."""

import json
import re

import httpx
from a2a.client.errors import A2AClientError
from a2a.utils.errors import A2AError

from sidecard.refusals import JSON_RPC_CODES

MOST_CHARACTERS = 500
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


def words_of(answer: httpx.Response) -> str:
    """What an error answer says, in one line: a JSON-RPC error's message, our own apps' or Dapr's; else its body."""
    try:
        content = answer.json()
        error = content.get("error")
        said = error["message"] if isinstance(error, dict) else error or content["message"]
    except (ValueError, AttributeError, KeyError):
        said = ""
    return " ".join(str(said or answer.text or answer.reason_phrase).split())[:MOST_CHARACTERS]
