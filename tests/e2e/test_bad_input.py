"""Bad input through the real sidecars: the app answers clearly, and nothing is lost."""

import json

import httpx
import pytest

from tests.desk import rpc

VERSION = {"a2a-version": "1.0"}


def ask(project, tokens, body, **headers):
    port = project.app("desk").dapr_http_port
    sent = {"content-type": "application/json", "dapr-api-token": tokens("desk")["DAPR_API_TOKEN"]} | VERSION | headers
    return httpx.post(
        f"http://127.0.0.1:{port}/v1.0/invoke/orchestrator/method/a2a", content=body, headers=sent, timeout=30
    )


def message(**changes):
    return {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]} | changes}


CASES = {
    "malformed JSON": (b"{", -32700),
    "invalid UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', -32700),
    "deeply nested JSON": (b"[" * 5000 + b"]" * 5000, -32700),
    "a batch": (b"[]", -32600),
    "an unknown method": (rpc("Nope", {}), -32601),
    "a wrong type": (rpc("SendMessage", {"message": 7}), -32602),
    "no messageId": (rpc("SendMessage", message(messageId="")), -32602),
    "a task that is not there": (rpc("GetTask", {"id": "nope"}), -32001),
    "an oversized body": (rpc("SendMessage", message(parts=[{"text": "x" * 5_000_000}])), -31413),
    "an unknown skill": (rpc("SendMessage", message(metadata={
        "https://sidecard.dev/a2a/extensions/durable-skills/v1": {"skill": "fly_to_the_moon"}})), -32602),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gets_a_clear_a2a_error(project, tokens, case):
    """The app's own JSON-RPC error, never a 500, a hang or a traceback."""
    body, code = CASES[case]
    answer = ask(project, tokens, body)
    assert answer.status_code in (200, 413)
    error = json.loads(answer.text)["error"]
    assert error["code"] == code
    assert "Traceback" not in answer.text


def test_an_unsupported_version_and_media_type_are_named(project, tokens):
    """VersionNotSupported and ContentTypeNotSupported, with what to send instead."""
    body = rpc("GetTask", {"id": "x"})
    assert ask(project, tokens, body, **{"a2a-version": "0.3"}).json()["error"]["code"] == -32009
    assert ask(project, tokens, body, **{"content-type": "text/plain"}).json()["error"]["code"] == -32005


def test_text_that_is_no_trip_is_rejected_with_what_to_say(project, tokens):
    """REJECTED, with an example."""
    task = ask(project, tokens, rpc("SendMessage", message(messageId="gibberish"))).json()["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_REJECTED"
    assert "for example" in task["status"]["message"]["parts"][0]["text"]
