"""Callers that speak A2A 0.3, by each of its bindings: the same operations, rules and tasks, in their own words."""

import asyncio
import json

import grpc.aio
import pytest
from a2a.client import ClientConfig, ClientFactory
from a2a.client.card_resolver import parse_agent_card
from a2a.compat.v0_3 import types as v03
from a2a.types import (
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.errors import TaskNotCancelableError, TaskNotFoundError
from a2a.utils.signing import create_signature_verifier
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwcrypto.jwk import JWK
from pydantic import BaseModel

from sidecard import Agent, Task
from sidecard.card import SignedCard, parse_card
from sidecard.extension import URI, Sent
from sidecard.signature import digest, sign
from sidecard.strict_json import MAX_DEPTH
from sidecard.testing import FakeWebhooks, MemoryStore, message, served
from sidecard.testing.served_agent import WithKey
from sidecard.trust import TrustStore, verify

S = TaskState
LIMIT = 20_000
RIGHTS = {"shop": ["look"]}
CALLERS = {"ada": {"api_key": True, "grants": RIGHTS}, "bob": {"api_key": True, "grants": RIGHTS}}
KEY = JWK.generate(kty="EC", crv="P-256", kid="tests", alg="ES256")
LOOK = {URI: {"skill": "look"}}
BINDINGS = pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON", "GRPC"])


class Shop:
    """What runs until its gate is open, and asks."""

    def __init__(self):
        self.agent = agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")
        self.gate, self.runs = asyncio.Event(), 0

        @agent.skill(scope="look", idempotent=True)
        async def look(what: str, task: Task) -> str:
            """Look."""
            self.runs += 1
            await self.gate.wait()
            return f"a {what}"

        @agent.skill(scope="look", idempotent=True)
        async def ask(what: str, task: Task) -> str:
            """Ask."""
            return f"{(await task.ask('Which?')).text} {what}"

        @agent.skill(scope="look", idempotent=False)
        async def buy(what: str, task: Task) -> str:
            """Buy."""
            self.runs += 1
            return f"your {what}"

        class Things(BaseModel):
            names: list[str]

        @agent.skill(scope="elsewhere", idempotent=True)
        async def hidden(things: Things, task: Task) -> str:
            """Not for them."""
            return ""


@pytest.fixture
async def desk():
    shop = Shop()
    shop.gate.set()
    async with served(shop.agent, MemoryStore(), CALLERS, webhooks=FakeWebhooks(), max_body_bytes=LIMIT) as desk:
        desk.shop = shop
        desk.signed = SignedCard(sign(desk.card, KEY))
        yield desk


async def client(desk, binding, caller="ada", *, streaming=False):
    """The SDK's client, of a caller that finds nothing but 0.3 in the card that is served."""
    http = desk.http(caller)
    del http.headers["A2A-Version"]
    shown = (await http.get("/.well-known/agent-card.json")).json()
    del shown["supportedInterfaces"]
    card = parse_agent_card(shown)
    for interface in list(card.supported_interfaces):
        if interface.protocol_binding != binding:
            card.supported_interfaces.remove(interface)
    assert [i.protocol_version for i in card.supported_interfaces] == ["0.3"]
    config = ClientConfig(
        httpx_client=http,
        grpc_channel_factory=grpc.aio.insecure_channel,
        streaming=streaming,
        supported_protocol_bindings=[binding],
    )
    made = ClientFactory(config).create(card, [WithKey(caller)])
    desk.stack.push_async_callback(made.close)
    return made


async def send(by, text="hat", *, skill="look", message_id="m1", **more):
    sent = Sent(skill=skill).attach(message(text, message_id, **more))
    sent.parts[0].ClearField("media_type")  # texts have none in 0.3
    return [event async for event in by.send_message(SendMessageRequest(message=sent))]


@BINDINGS
async def test_a_message_is_answered_by_its_task(desk, binding):
    """And the task can be read."""
    by = await client(desk, binding)
    [answer] = await send(by)
    assert answer.task.status.state == S.TASK_STATE_COMPLETED
    assert answer.task.artifacts[0].parts[0].text == "a hat"
    found = await by.get_task(GetTaskRequest(id=answer.task.id))
    assert found.artifacts == answer.task.artifacts


@BINDINGS
async def test_a_message_is_one_task_whatever_version_it_comes_in(desk, binding):
    """Sent again in 0.3, and in 1.0: the same task, and nothing runs twice."""
    by = await client(desk, binding)
    ids = {(await send(by, skill="buy"))[0].task.id for _ in range(2)}
    ids.add((await send(desk.client("JSONRPC", "ada"), skill="buy"))[0].task.id)
    assert len(ids) == desk.shop.runs == 1


@BINDINGS
async def test_a_stream_tells_the_task_to_its_end(desk, binding):
    """By 0.3's kinds of events."""
    events = await send(await client(desk, binding, streaming=True))
    kinds = [event.WhichOneof("payload") for event in events]
    assert kinds[0] == "task"
    assert kinds[-1] in {"task", "status_update"}
    last = events[-1]
    status = last.task.status if last.HasField("task") else last.status_update.status
    assert status.state == S.TASK_STATE_COMPLETED


@BINDINGS
async def test_a_question_is_answered_and_its_task_goes_on(desk, binding):
    """INPUT_REQUIRED is `input-required` there."""
    by = await client(desk, binding)
    [asked] = await send(by, skill="ask")
    assert asked.task.status.state == S.TASK_STATE_INPUT_REQUIRED
    [done] = await send(by, "red", skill="ask", message_id="m2", task_id=asked.task.id)
    assert (done.task.id, done.task.artifacts[0].parts[0].text) == (asked.task.id, "red hat")


@BINDINGS
async def test_a_task_is_followed_and_canceled(desk, binding):
    """And what has ended is not canceled any more."""
    desk.shop.gate.clear()
    by = await client(desk, binding)
    streaming = await client(desk, "GRPC" if binding == "GRPC" else "JSONRPC", streaming=True)
    sending = asyncio.create_task(send(by))
    current = desk.client("JSONRPC", "ada")
    async with asyncio.timeout(10):
        while not (tasks := (await current.list_tasks(ListTasksRequest())).tasks):  # noqa: ASYNC110 -- any condition
            await asyncio.sleep(0.005)
    [task] = tasks
    following = asyncio.create_task(anext(streaming.subscribe(SubscribeToTaskRequest(id=task.id))))
    assert (await by.cancel_task(CancelTaskRequest(id=task.id))).status.state == S.TASK_STATE_CANCELED
    assert (await sending)[0].task.status.state == S.TASK_STATE_CANCELED
    following.cancel()
    with pytest.raises(TaskNotCancelableError):
        await by.cancel_task(CancelTaskRequest(id=task.id))


@BINDINGS
async def test_a_strangers_task_and_a_missing_one_can_not_be_told_apart(desk, binding):
    """Read, canceled, continued: TaskNotFound, as by every other door."""
    [answer] = await send(await client(desk, binding))
    bob = await client(desk, binding, "bob")
    for task_id in (answer.task.id, "f" * 32):
        with pytest.raises(TaskNotFoundError):
            await bob.get_task(GetTaskRequest(id=task_id))
        with pytest.raises(TaskNotFoundError):
            await bob.cancel_task(CancelTaskRequest(id=task_id))
        with pytest.raises(TaskNotFoundError):
            await send(bob, task_id=task_id)


@BINDINGS
async def test_push_configurations_are_kept(desk, binding):
    """Set and got; listed and deleted but by HTTP+JSON, by which the SDK's client can't."""
    by = await client(desk, binding)
    [asked] = await send(by, skill="ask")
    hook = TaskPushNotificationConfig(task_id=asked.task.id, id="c1", url="https://hooks.example.org/")
    assert (await by.create_task_push_notification_config(hook)).url == hook.url
    wanted = GetTaskPushNotificationConfigRequest(task_id=asked.task.id, id="c1")
    assert (await by.get_task_push_notification_config(wanted)).url == hook.url
    if binding != "HTTP+JSON":
        listing = ListTaskPushNotificationConfigsRequest(task_id=asked.task.id)
        assert [c.id for c in (await by.list_task_push_notification_configs(listing)).configs] == ["c1"]
        await by.delete_task_push_notification_config(
            DeleteTaskPushNotificationConfigRequest(task_id=asked.task.id, id="c1")
        )
        assert not (await by.list_task_push_notification_configs(listing)).configs


@pytest.mark.parametrize("binding", ["JSONRPC", "GRPC"])
async def test_the_extended_card_shows_what_its_caller_may_do(desk, binding):
    """In 0.3's form."""
    card = await (await client(desk, binding)).get_extended_agent_card(GetExtendedAgentCardRequest())
    assert [skill.id for skill in card.skills] == ["look", "ask", "buy"]


# -- the card --------------------------------------------------------------------------------------------------------


async def test_one_card_serves_both_and_its_signature_holds(desk):
    """0.3 finds `url`, `preferredTransport` and schemes of its own; for 1.0 the signature covers what it did."""
    async with desk.http() as http:
        body = (await http.get("/.well-known/agent-card.json")).content
    shown = v03.AgentCard.model_validate_json(body)
    assert (shown.url, shown.preferred_transport, shown.protocol_version) == (
        desk.card.supported_interfaces[0].url, "JSONRPC", "0.3",
    )  # fmt: skip
    others = [(i.transport, i.url.rpartition("/")[2]) for i in shown.additional_interfaces]
    assert others == [("HTTP+JSON", "v03"), ("GRPC", desk.grpc_target)]
    assert shown.supports_authenticated_extended_card
    assert shown.security_schemes["apiKey"].root.type == "apiKey"
    card = parse_card(body, "the tests")
    trust = TrustStore.parse(json.dumps({"publishers": {"Tests": {"keys": [KEY.export_public(as_dict=True)]}}}))
    assert verify(card, trust).digest == digest(desk.card)
    official = create_signature_verifier(lambda *_: load_pem_public_key(KEY.export_to_pem()), ["ES256"])
    official(card)


# -- the door's rules ------------------------------------------------------------------------------------------------


def call(method="message/send", params=None, **fields):
    sent = {"messageId": "m1", "role": "user", "parts": [{"kind": "text", "text": "hat"}], "metadata": LOOK}
    params = {"message": sent} if params is None else params
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params, **fields}


async def posted(desk, body, *, caller="ada", **headers):
    async with desk.http(caller, **{"Content-Type": "application/json"} | headers) as http:
        del http.headers["A2A-Version"]
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await http.post("/a2a", content=content)


@pytest.mark.parametrize("version", ["", "0.3", "0.3.0"])
async def test_the_version_is_asked_for_or_left_out(desk, version):
    """No version at all means 0.3."""
    async with desk.http("ada", **{"A2A-Version": version}) as http:
        assert (await http.post("/a2a", json=call())).json()["result"]["kind"] == "task"


@pytest.mark.parametrize("version", ["1.0", "0.2", "0.30", "0.4", "2.0"])
async def test_no_other_version_is_served_by_its_methods(desk, version):
    """1.0 has no such method; the others are not supported."""
    async with desk.http("ada", **{"A2A-Version": version}) as http:
        code = (await http.post("/a2a", json=call())).json()["error"]["code"]
    assert code == (-32601 if version == "1.0" else -32009)


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        (call("message/nothing"), -32601, 200),
        (call("tasks/list", {}), -32601, 200),
        (call("SendMessage"), -32009, 200),
        (call(params=[]), -32602, 200),
        (call(params={}), -32602, 200),
        (call(params={"message": {"messageId": "m1", "role": "user", "parts": []}}), -32602, 200),
        (call(params={"message": {"messageId": "m1", "role": "robot", "parts": [{"kind": "text"}]}}), -32602, 200),
        (call("tasks/get", {"id": "f" * 32}), -32001, 200),
        (call("tasks/get", {"id": 7}), -32602, 200),
        (call("tasks/cancel", {"id": "../x"}), -32001, 200),
        ([call()], -32600, 200),
        (b"{", -32700, 200),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), -32700, 200),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": "\xff"}}', -32700, 200),
        (b" " * (LIMIT + 1), -31413, 413),
    ],
)
async def test_what_is_wrong_is_said_in_codes_of_03(desk, body, code, status):
    """Nothing of the interpreter is in the words, and nothing ran."""
    answer = await posted(desk, body)
    error = answer.json()["error"]
    assert (error["code"], answer.status_code) == (code, status), error
    assert "pydantic" not in error["message"]
    assert "Traceback" not in answer.text
    assert desk.shop.runs == 0


async def test_a_skill_without_a_right_is_refused_as_by_10(desk):
    """By the same words."""
    text = {"kind": "text", "text": "x"}
    metadata = Sent(skill="hidden").attach(message("x")).metadata
    sent = {"messageId": "m1", "role": "user", "parts": [text], "metadata": MessageToDict(metadata)}
    assert (await posted(desk, call(params={"message": sent}))).json()["error"]["code"] == -31403


@pytest.mark.parametrize("path", ["/a2a", "/v03/v1/message:send", "/v03/v1/tasks/x", "/v03/v1/card"])
async def test_nobody_comes_in_unknown(desk, path):
    """401, before anything is read."""
    async with desk.http("nobody") as http:
        del http.headers["A2A-Version"]
        assert (await http.post(path, json=call())).status_code == 401


async def test_the_media_type_is_looked_at(desk):
    """As in 1.0."""
    answer = await posted(desk, call(), **{"Content-Type": "text/plain"})
    assert answer.json()["error"]["code"] == -32005


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/message:send", b"{", 400),
        ("POST", "/v1/message:send", b"[]", 400),
        ("POST", "/v1/message:send", b"{}", 400),
        ("POST", "/v1/message:send", b'{"request": {"messageId": 7}}', 400),
        ("POST", "/v1/message:send", b'{"request": {"messageId": "m", "role": "ROLE_USER", "content": [{}]}}', 400),
        ("POST", "/v1/message:stream", b'{"request": 7}', 400),
        ("POST", "/v1/message:send", b" " * (LIMIT + 1), 413),
        ("POST", "/v1/message:send", b"[" * 200, 400),
        ("POST", "/v1/tasks/x/pushNotificationConfigs", b"[]", 400),
        ("POST", "/v1/tasks/x/pushNotificationConfigs", b"{}", 400),
        ("GET", "/v1/tasks/x?historyLength=many", b"", 400),
        ("GET", "/v1/tasks/x?historyLength=99999999999999999999", b"", 400),
        ("GET", "/v1/tasks/x", b"", 404),
        ("GET", "/v1/tasks", b"", 404),
        ("GET", "/v1/nothing", b"", 404),
        ("DELETE", "/v1/card", b"", 405),
    ],
)
async def test_http_json_refuses_in_a2as_words(desk, method, path, body, status):
    """No 5xx, whatever comes."""
    async with desk.http("ada", **{"Content-Type": "application/json"}) as http:
        del http.headers["A2A-Version"]
        answer = await http.request(method, f"/v03{path}", content=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, status), answer.text
        assert "Traceback" not in answer.text
        answer = await http.request(method, f"/v03{path}", content=body, headers={"A2A-Version": "1.0"})
        assert answer.status_code == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["message", "messageId", "role", "parts", "kind", "text", "file", "bytes", "uri", "data", "metadata", "id",
         "configuration", "blocking", "historyLength", "pushNotificationConfig", "taskId", "contextId", "extensions",
         "request", "content", "url"]
    ), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    method=st.sampled_from(["message/send", "tasks/get", "tasks/cancel", "tasks/pushNotificationConfig/set"]),
    params=JSON,
)
async def test_whatever_comes_is_no_fault_of_ours(desk, method, params):
    """By both bindings: an answer or a refusal, and never an internal error."""
    if isinstance(params, dict) and isinstance(params.get("message"), dict):
        params["message"] = call()["params"]["message"] | params["message"]
    answer = await posted(desk, call(method, params))
    assert answer.status_code < 500
    assert answer.json().get("error", {}).get("code") != -32603, answer.text
    async with desk.http("ada", **{"Content-Type": "application/json"}) as http:
        del http.headers["A2A-Version"]
        for path in ("message:send", "tasks/x/pushNotificationConfigs"):
            answer = await http.post(f"/v03/v1/{path}", content=json.dumps(params))
            assert answer.status_code < 500, answer.text
