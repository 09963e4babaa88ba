"""Thousands of requests made from the protocol's own description, right and wrong: none is answered by a failure."""

import asyncio
import contextlib
import logging
import socket
import threading

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from sidecard import Agent, Task
from sidecard.tasks import handler
from sidecard.testing import FakeWebhooks, MemoryStore, key_of, served
from tests.security import openapi

CASES = 1_600
"""Half of them right and half wrong, and each sent four times: over both bindings, in a tenant and without."""
CALLERS = {"ada": {"api_key": True, "tenants": ["acme"], "grants": {"shop": ["look"]}}}
agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")
pytestmark = pytest.mark.timeout(600)


@agent.skill(scope="look", idempotent=True)
async def look(text: str, task: Task) -> str:
    """Look."""
    return text[:5]


@pytest.fixture(scope="module")
def base():
    """The URL of an agent that is served by a thread of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = threading.Event()
    stop = []
    logging.getLogger("a2a").setLevel(logging.CRITICAL)  # a line for each refusal

    async def serve():
        async with served(agent, MemoryStore(), CALLERS, webhooks=FakeWebhooks()) as desk:
            server = uvicorn.Server(uvicorn.Config(desk.app, port=port, log_level="critical", lifespan="off"))
            stop.append(server)
            serving = asyncio.create_task(server.serve())
            while not server.started:  # noqa: ASYNC110 -- uvicorn has no event for it
                await asyncio.sleep(0.01)
            started.set()
            await serving

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(30)
    yield f"http://127.0.0.1:{port}"
    stop[0].should_exit = True
    thread.join(10)
    logging.getLogger("a2a").setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def client(base):
    headers = {"x-api-key": key_of("ada"), "a2a-version": "1.0"}
    with httpx.Client(base_url=base, headers=headers, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def known(client):
    """Values that lead further in than chance would: a task, its context, a tenant."""
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hat"}]}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    task = client.post("/a2a", json=body).json()["result"]["task"]
    return {"id": [task["id"]], "task_id": [task["id"]], "context_id": [task["contextId"]], "tenant": ["", "acme"],
            "url": ["https://example.org/hook"]}  # fmt: skip


class Fuzz:
    """Requests of every operation, over both HTTP bindings; `failures` are answers that are none of the caller's."""

    def __init__(self, client):
        self.client = client
        self.tried = 0
        self.failures = []

    def run(self, document, cases, mode):
        """Makes this many requests, and sends each over both, in a tenant and without."""
        schema = schemathesis.openapi.from_dict(document)
        operations = [result.ok() for result in schema.get_all_operations()]
        for operation in operations:
            with contextlib.suppress(Unsatisfiable):  # nothing about it can be wrong: it takes no parameters
                self._run(operation, cases // len(operations), mode)

    def _run(self, operation, cases, mode):
        @seed(7)
        @settings(
            max_examples=cases, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case):
            whole = case.as_transport_kwargs(base_url=str(self.client.base_url))
            rest = {name: value for name, value in whole.items() if name in {"method", "url", "params", "json"}}
            if "data" in whole:
                rest["content"] = whole["data"]
            self._send(operation.label, **rest)
            self._send(operation.label, **rest | {"url": rest["url"].replace("/rest/", "/rest/acme/", 1)})
            given = [case.path_parameters, case.query, case.body]
            params = {name: value for one in given if isinstance(one, dict) for name, value in one.items()}
            call = {"jsonrpc": "2.0", "id": 1, "method": operation.tags[0], "params": params}
            self._send(operation.tags[0], method="POST", url="/a2a", json=call)
            call["params"] = {**params, "tenant": "acme"}
            self._send(operation.tags[0], method="POST", url="/a2a", json=call)

        send()

    def _send(self, label, **request):
        with contextlib.suppress(httpx.InvalidURL, UnicodeError, ValueError, TypeError):  # what no client can send
            answer = self.client.request(headers={"content-type": "application/json"}, **request)
            self.tried += 1
            if answer.status_code >= 500 or "-32603" in answer.text or "unexpected" in answer.text:
                self.failures.append((label, request, answer.text))


@pytest.mark.parametrize(
    "cases", [CASES, pytest.param(10 * CASES, marks=[pytest.mark.long, pytest.mark.timeout(3_600)])]
)
def test_no_request_is_answered_by_a_failure(client, known, cases):
    """Of all operations over HTTP+JSON and JSON-RPC, with parameters that fit the description, and that don't."""
    fuzz = Fuzz(client)
    for mode in GenerationMode:
        fuzz.run(openapi.describe(known), cases // 2, mode)
    print(f"{fuzz.tried} requests of {openapi.SERVICE.full_name}, {len(fuzz.failures)} failures")
    assert fuzz.failures[:3] == []
    assert fuzz.tried >= 5_000


def test_a_failure_would_be_seen(client, known, monkeypatch):
    """What that is worth: one operation that breaks for some of the requests."""

    async def broken(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(handler, "list_tasks", broken)
    fuzz = Fuzz(client)
    fuzz.run(openapi.describe(known), 100, GenerationMode.POSITIVE)
    assert {label for label, *_ in fuzz.failures} >= {"GET /rest/tasks", "ListTasks"}
