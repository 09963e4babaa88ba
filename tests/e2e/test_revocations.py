"""Revoking on the running system: by the command, at every app, in time."""

import asyncio
import json
import subprocess
import sys
import time

import httpx
import pytest

from tests.desk import rpc

JSON = {"content-type": "application/json", "a2a-version": "1.0"}
SOON = 5.0
"""Seconds within which somebody who is revoked is let in no more."""
LIST = rpc("ListTasks", {})


@pytest.fixture
def sidecard(project):
    """Runs a command in the running project; whoever it has revoked is restored afterwards."""
    revoked = []

    def run(*words):
        done = subprocess.run(
            [sys.executable, "-m", "sidecard.cli", *words, "--json"],
            cwd=project.root, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        if words[0] == "revoke":
            revoked.append(words[1])
        return json.loads(done.stdout)

    yield run
    for who in revoked:
        run("restore", who)


def through(project, tokens, caller, app, path, method):  # noqa: PLR0917
    """A request from one app's sidecar to another app."""
    sidecar = {"dapr-api-token": tokens(caller)["DAPR_API_TOKEN"]}
    url = f"http://127.0.0.1:{project.app(caller).dapr_http_port}/v1.0/invoke/{app}/method/{path}"
    content = LIST if method == "POST" else None
    return httpx.request(method, url, content=content, headers=JSON | sidecar, timeout=10)


def until(true, what):
    """Seconds until this is true. Fails when that is not SOON."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < SOON, f"{what}: not within {SOON} s"
        time.sleep(0.02)
    print(f"{what}: {time.monotonic() - began:.2f} s")


def test_a_revoked_caller_is_refused_within_seconds(project, key, sidecard):
    """The desk's manager, with its key, directly at each agent where it holds a right; restored, it is let in again."""
    ports = [project.app(app).app_port for app in ("orchestrator", "compliance")]
    headers = JSON | {"x-api-key": key("manager")}

    def statuses():
        return {httpx.post(f"http://127.0.0.1:{port}/a2a", content=LIST, headers=headers).status_code for port in ports}

    assert statuses() == {200}
    assert sidecard("revoke", "manager", "--reason", "a test")["mark"] == "caller:manager"
    until(lambda: statuses() == {401}, "a revoked key is refused at every agent")
    (listed,) = sidecard("revoked")["revoked"]
    assert (listed["mark"], listed["by"], listed["reason"]) == ("caller:manager", "desk", "a test")
    sidecard("restore", "manager")
    until(lambda: statuses() == {200}, "a restored key is taken at every agent")
    told = sidecard("audit", "registry", "--since", "5m", "--caller", "desk")["records"]
    done = [(one["operation"], one["skill"], one["right"], one["outcome"]) for one in told]
    right = "scope estate:operate"
    assert done[-2:] == [("Revoke", "caller:manager", right, "ok"), ("Restore", "caller:manager", right, "ok")]


def test_a_revoked_app_is_refused_within_seconds(project, tokens, sidecard):
    """Through its own sidecar, its certificate of Sentry's good: by agents, the tool server, the registry."""
    calls = [("compliance", "a2a", "POST"), ("vendors", "mcp", "POST"), ("registry", "agents", "GET")]

    def statuses():
        return [through(project, tokens, "expenses", *call).status_code for call in calls]

    def let_in():
        return not {401, 403} & set(statuses())

    assert let_in()
    sidecard("revoke", "app:expenses")
    until(lambda: statuses() == [401, 403, 403], "a revoked app is refused by all that it calls")
    assert through(project, tokens, "orchestrator", "registry", "agents", "GET").status_code == 200
    sidecard("restore", "app:expenses")
    until(let_in, "a restored app is let in by all that it calls")


async def test_what_is_told_to_a_revoked_caller_ends_within_seconds(project, key, sidecard):
    """A stream on which nothing happens; the task is there still, once its owner is restored."""
    url = f"http://127.0.0.1:{project.app('orchestrator').app_port}/a2a"
    headers = JSON | {"x-api-key": key("tester")}
    said = {"message": {"messageId": "revoked 1", "role": "ROLE_USER", "parts": [{"text": "Book LHR to Lisbon"}]}}
    async with httpx.AsyncClient(headers=headers, timeout=30) as http:
        task = (await http.post(url, content=rpc("SendMessage", said))).json()["result"]["task"]
        subscription = rpc("SubscribeToTask", {"id": task["id"]})
        async with http.stream("POST", url, content=subscription) as answer:
            lines = answer.aiter_lines()
            while not (await anext(lines)).startswith("data:"):
                pass
            await asyncio.to_thread(sidecard, "revoke", "tester")
            began = time.monotonic()
            rest = [line async for line in lines]
        seconds = time.monotonic() - began
        print(f"a revoked caller's stream ends: {seconds:.2f} s")
        assert seconds < SOON
        assert "Say who you are" in "".join(rest)
        await asyncio.to_thread(sidecard, "restore", "tester")
        until(lambda: httpx.post(url, content=LIST, headers=headers).status_code == 200, "its owner is back")
        assert (await http.post(url, content=rpc("GetTask", {"id": task["id"]}))).json()["result"]["id"] == task["id"]
