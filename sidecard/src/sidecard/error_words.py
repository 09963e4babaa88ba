"""What an answer that is an error says."""

import httpx

MOST_CHARACTERS = 500


def words_of(answer: httpx.Response) -> str:
    """What an error answer says, in one line: a JSON-RPC error's message, our own apps' or Dapr's; else its body."""
    try:
        content = answer.json()
        error = content.get("error")
        said = error["message"] if isinstance(error, dict) else error or content["message"]
    except (ValueError, AttributeError, KeyError):
        said = ""
    return " ".join(str(said or answer.text or answer.reason_phrase).split())[:MOST_CHARACTERS]
