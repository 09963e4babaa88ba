"""The JSON-RPC binding answers as the SDK's own dispatcher does, and tells nothing of what went wrong inside."""

import asyncio
import json

import httpx
import pytest
from a2a.server.routes import create_jsonrpc_routes
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.types import Message, Role, TaskState, TaskStatus, TaskStatusUpdateEvent
from a2a.types import Task as A2ATask
from a2a.utils.errors import TaskNotFoundError
from pydantic import BaseModel
from starlette.applications import Starlette

from sidecard import Agent, Task
from sidecard.callers import Caller
from sidecard.edge import CallerContextBuilder
from sidecard.jsonrpc import METHODS, Call, JsonRpc
from sidecard.tasks.handler import DurableRequestHandler
from sidecard.testing import FakeWebhooks, MemoryStore, served

ADA = Caller(name="ada", subject="ada", scopes=frozenset({"look"}))


class Order(BaseModel):
    """What the test skill takes."""

    what: str = "hat"


agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")


@agent.skill(scope="look", idempotent=True)
async def look(order: Order, task: Task) -> str:
    """Look."""
    await task.progress("looking")
    await task.artifact("found", order, "größe 1,5 ½")
    return f"a {order.what}"


async def ours(handler, method, params):
    """The answer as (content type, body) of a call that the door has let in."""
    call = Call.read({"jsonrpc": "2.0", "id": 7, "method": method, "params": params})
    sent = []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    await JsonRpc(handler).serve(call, ADA, {}, receive, send)
    return dict(sent[0]["headers"])[b"content-type"].decode(), b"".join(m.get("body", b"") for m in sent).decode()


async def theirs(handler, method, params):
    """The same by the SDK's dispatcher."""

    class Known(CallerContextBuilder):
        def build(self, request):
            request.scope["caller"] = ADA
            return super().build(request)

    app = Starlette(routes=create_jsonrpc_routes(handler, rpc_url="/", context_builder=Known()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        call = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        answer = await http.post("/", json=call, headers={"A2A-Version": "1.0"})
    return answer.headers["content-type"], answer.text


def events(body):
    """The JSON of each event of a stream."""
    return [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line.startswith("data: ")]


def said(text):
    return {"message": {"messageId": text, "role": "ROLE_USER", "parts": [{"text": text}]}}


@pytest.fixture
async def shop():
    """A shop with one finished task; (handler, its id)."""
    async with served(agent, MemoryStore(), {"ada": {"grants": {"shop": ["look"]}}}, webhooks=FakeWebhooks()) as desk:
        handler = DurableRequestHandler(
            lambda: desk.engine,
            scopes_of=lambda _: frozenset({"look"}),
            extended_card=lambda _: desk.card,
            webhooks=FakeWebhooks(),
        )
        _, body = await ours(handler, "SendMessage", said("first"))
        yield handler, json.loads(body)["result"]["task"]["id"]


def test_every_method_of_the_specification_is_served():
    """With the same request types as in the SDK."""
    assert {name: method.request for name, method in METHODS.items()} == JsonRpcDispatcher.METHOD_TO_MODEL


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("SendMessage", said("first")),
        ("SendMessage", {**said("first"), "configuration": {"historyLength": 0}}),
        ("SendMessage", {"message": {"messageId": "m", "role": "ROLE_USER", "parts": []}}),
        ("SendStreamingMessage", said("first")),
        ("SendStreamingMessage", {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{}]}}),
        ("GetTask", {"id": "{task}"}),
        ("GetTask", {"id": "{task}", "historyLength": 0}),
        ("GetTask", {"id": "unknown"}),
        ("GetTask", {}),
        ("ListTasks", {}),
        ("ListTasks", {"includeArtifacts": True, "pageSize": 1}),
        ("ListTasks", {"pageSize": 1000}),
        ("CancelTask", {"id": "{task}"}),
        ("SubscribeToTask", {"id": "{task}"}),
        ("CreateTaskPushNotificationConfig", {"taskId": "{task}", "url": "https://example.com/"}),
        ("GetTaskPushNotificationConfig", {"taskId": "{task}", "id": "unknown"}),
        ("ListTaskPushNotificationConfigs", {"taskId": "{task}"}),
        ("DeleteTaskPushNotificationConfig", {"taskId": "{task}", "id": "unknown"}),
        ("GetExtendedAgentCard", {}),
    ],
)
async def test_answers_are_those_of_the_sdk(shop, method, params):
    """Results, errors and events: the same JSON, whatever the method."""
    handler, task_id = shop
    params = json.loads(json.dumps(params).replace("{task}", task_id))
    (our_type, our_body), (their_type, their_body) = [
        await dispatch(handler, method, params) for dispatch in (ours, theirs)
    ]
    assert our_type.partition(";")[0] == their_type.partition(";")[0]
    if "event-stream" in our_type:
        assert events(our_body) == events(their_body) != []
    else:
        assert json.loads(our_body) == json.loads(their_body)


class Broken:
    """A handler whose every operation fails, a stream after its first event."""

    def __init__(self, error, events=0):
        self._error = error
        self._events = events

    def __getattr__(self, name):
        return self._stream if name in {"on_message_send_stream", "on_subscribe_to_task"} else self._fail

    async def _fail(self, params, context):
        raise self._error

    async def _stream(self, params, context):
        for _ in range(self._events):
            yield TaskStatusUpdateEvent(task_id="t", status=TaskStatus(state=TaskState.TASK_STATE_WORKING))
        raise self._error


@pytest.mark.parametrize("method", ["GetTask", "SubscribeToTask"])
async def test_what_is_not_foreseen_is_logged_and_not_told(method, caplog):
    """The caller learns that it failed, in a JSON-RPC error."""
    content_type, body = await ours(Broken(RuntimeError("the password is 1234")), method, {"id": "t"})
    assert content_type == "application/json"
    assert json.loads(body)["error"]["code"] == -32603
    assert "1234" not in body
    assert "the password is 1234" in caplog.text


@pytest.mark.parametrize(("error", "code"), [(TaskNotFoundError(), -32001), (RuntimeError("secret"), -32603)])
async def test_an_error_within_a_stream_is_its_last_event(error, code):
    """What came before it is given out."""
    content_type, body = await ours(Broken(error, events=2), "SubscribeToTask", {"id": "t"})
    assert content_type.startswith("text/event-stream")
    assert [next(iter(one["result"])) for one in events(body)[:-1]] == ["statusUpdate"] * 2
    assert events(body)[-1]["error"]["code"] == code
    assert "event: error" in body
    assert "secret" not in body


@pytest.mark.parametrize(
    ("result", "kind"), [(A2ATask(id="t"), "task"), (Message(message_id="m", role=Role.ROLE_AGENT), "message")]
)
async def test_a_message_is_answered_with_what_it_is(result, kind):
    """A task or a message, by name (§3.2.2)."""

    class Answers:
        def __getattr__(self, name):
            async def answer(params, context):
                return result

            return answer

    _, body = await ours(Answers(), "SendMessage", said("hello"))
    assert list(json.loads(body)["result"]) == [kind]
