"""The door: what it lets in, and that everything else gets an A2A error in the words of its binding."""

import asyncio
import base64
import gzip
import json

import pytest
from a2a.utils.errors import A2A_ERROR_REASONS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sidecard import Agent, Task
from sidecard.door import Door
from sidecard.edge import Edge
from sidecard.strict_json import MAX_DEPTH
from sidecard.testing import APP_TOKEN, FakeWebhooks, MemoryStore, served

LIMIT = 20_000
CALLERS = {
    "ada": {"api_key": True, "tenants": ["acme"], "grants": {"shop": ["look"]}},
    "desk": {"sidecar": True, "grants": {"shop": ["look"]}},
    "idle": {"sidecar": True, "api_key": True, "grants": {"elsewhere": ["look"]}},
}
JSON = {"Content-Type": "application/json"}
INTERPRETER = (
    "Traceback",
    "parseError",
    "object has no attribute",
    "codec",
    "literal",
    "NoneType",
    "Error(",
    "<class",
    ".py",
    "int too",
)


async def nobody(claims):
    return None


async def anybody(claims):
    return "ada"


class Order(BaseModel):
    """What the test skill takes."""

    what: str = "hat"


agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")


@agent.skill(scope="look", idempotent=True)
async def look(order: Order, task: Task) -> str:
    """Look."""
    return f"a {order.what}"


@pytest.fixture(scope="module")
async def desk():
    async with served(agent, MemoryStore(), CALLERS, webhooks=FakeWebhooks(), max_body_bytes=LIMIT) as desk:
        yield desk


@pytest.fixture(scope="module")
async def ada(desk):
    async with desk.http("ada") as http:
        yield http


def text(body="x", **fields):
    """A message, as JSON."""
    return {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": body}], **fields}


def call(method="SendMessage", params=None, **fields):
    """A JSON-RPC request, as JSON."""
    params = {"message": text()} if params is None else params
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params, **fields}


def is_error(response, binding=""):
    """The code of an error that is whole and in its binding's own words, and its message."""
    assert not any(words in response.text for words in INTERPRETER), response.text
    body = response.json()
    rpc = (binding or response.request.url.path) == "/a2a"
    if rpc:
        assert body["jsonrpc"] == "2.0"
        assert body.keys() == {"jsonrpc", "id", "error"}
        code, details = body["error"]["code"], body["error"]["data"]
        assert code != -32603
        assert response.status_code in (200, -code - 31_000)
    else:
        code, details = body["error"]["code"], body["error"]["details"]
        assert code == response.status_code < 500
        assert body["error"]["status"].isupper()
    assert details[0]["reason"] in A2A_ERROR_REASONS.values()
    assert len(body["error"]["message"]) > 8
    return code, body["error"]["message"]


async def rpc(http, body, **headers):
    """POST to /a2a whatever it is."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await http.post("/a2a", content=content, headers=JSON | headers)


async def rest(http, path, body=None, method=None, **headers):
    """A request under /rest."""
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    method = method or ("GET" if body is None else "POST")
    return await http.request(method, f"/rest{path}", content=content, headers=JSON | headers)


async def test_what_is_well_formed_comes_in(ada):
    """The same message on both bindings; the id of the request comes back."""
    response = await rpc(ada, call())
    assert (response.status_code, response.json()["id"]) == (200, 7)
    task = response.json()["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    response = await rest(ada, "/message:send", {"message": text()})
    assert response.json()["task"]["id"] == task["id"]
    response = await rest(
        ada, "/message:send", {"message": text()}, **{"Content-Type": "application/a2a+json; charset=utf-8"}
    )
    assert response.json()["task"]["id"] == task["id"]


# -- who -------------------------------------------------------------------------------------------------------------


NOBODY = [
    {},
    {"x-api-key": "guess"},
    {"x-api-key": ""},
    {"x-api-key": "idle's key"},
    {"x-api-key": "desk's key"},
    {"dapr-caller-app-id": "desk"},
    {"dapr-api-token": "guess", "dapr-caller-app-id": "desk"},
    {"dapr-api-token": APP_TOKEN},
    {"dapr-api-token": APP_TOKEN, "dapr-caller-app-id": "unknown"},
    {"dapr-api-token": APP_TOKEN, "dapr-caller-app-id": "ada"},
    {"dapr-api-token": APP_TOKEN, "dapr-caller-app-id": "idle"},
    {"dapr-api-token": APP_TOKEN, "x-api-key": "ada's key"},
    {"authorization": "Bearer x"},
    [("x-api-key", "ada's key"), ("x-api-key", "ada's key")],
    [("dapr-api-token", APP_TOKEN), ("dapr-caller-app-id", "desk"), ("dapr-caller-app-id", "desk")],
]


@pytest.mark.parametrize("headers", NOBODY)
async def test_who_is_not_known_is_turned_away(desk, headers):
    """401 before anything else is looked at, the same words for all, on every path of both bindings."""
    headers = [*(headers.items() if isinstance(headers, dict) else headers), ("A2A-Version", "9")]
    async with desk.http() as http:
        answers = {
            (await http.request(method, path, headers=headers, content=b"\xff")).text
            for method, path in [("POST", "/a2a"), ("GET", "/a2a")]
        }
        assert len(answers) == 1
        assert is_error(await http.post("/a2a", headers=headers, content=b"\xff"))[0] == -31401
        for method, path in [
            ("GET", "/tasks"),
            ("POST", "/message:send"),
            ("GET", "/nothing"),
            ("GET", "/extendedAgentCard"),
        ]:
            assert is_error(await http.request(method, f"/rest{path}", headers=headers))[0] == 401


async def test_the_own_sidecar_is_believed(desk):
    """With the app's token, the app-id it names is who calls."""
    async with desk.http(**{"dapr-api-token": APP_TOKEN, "dapr-caller-app-id": "desk"}) as http:
        response = await rpc(http, call())
    assert "result" in response.json()


async def test_probes_and_the_card_are_anybodys(desk):
    """No caller needed; the card is not signed yet, and says so."""
    async with desk.http() as http:
        assert (await http.get("/.well-known/agent-card.json")).status_code == 503
        assert (await http.get("/healthz")).status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/", "/rest", "/docs", "/openapi.json", "/a2a/", "/A2A", "//a2a", "/a2a/../a2a/x", "/healthz/x", "/" + "x" * 5000],
)
async def test_other_paths_are_not_served(desk, path):
    """404, to anybody, and a short answer."""
    async with desk.http("ada") as http:
        response = await http.get(f"http://agent{path}")
    assert response.status_code == 404
    assert len(response.text) < 200


async def test_websockets_are_closed():
    """Policy violation, without an answer from the app."""
    sent = []

    async def send(event):
        sent.append(event)

    await Edge(None, jsonrpc=None, door=Door(nobody), max_body_bytes=1)(
        {"type": "websocket", "path": "/a2a"}, None, send
    )
    assert sent == [{"type": "websocket.close", "code": 1008}]


# -- version and media type ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "version", ["", "0.3", "0.3.0", "1", "1.1", "2.0", "1.0.x", "v1.0", "1.0,1.0", "nonsense", "1" * 3000]
)
async def test_other_versions_are_refused(desk, version):
    """VersionNotSupported, which says what to send; none at all means 0.3."""
    async with desk.http("ada", **{"A2A-Version": version}) as http:
        response = await rpc(http, call())
        assert is_error(response)[0] == -32009
        assert response.json()["id"] == 7
        assert "A2A-Version: 1.0" in is_error(await rest(http, "/tasks"))[1]
        del http.headers["A2A-Version"]
        code, words = is_error(await rpc(http, call()))
        assert (code, "0.3" in words) == (-32009, True)
        assert is_error(await rest(http, "/tasks"))[0] == 400


async def test_patch_versions_do_not_matter_and_the_version_may_be_a_parameter(desk):
    """1.0.7 is 1.0 (§3.6), and ?A2A-Version= is as good as the header (§3.6.1)."""
    async with desk.http("ada", **{"A2A-Version": "1.0.7"}) as http:
        assert "result" in (await rpc(http, call())).json()
        del http.headers["A2A-Version"]
        assert (await http.get("/rest/tasks?A2A-Version=1.0")).status_code == 200
        response = await http.post("/a2a?A2A-Version=1.0", json=call())
        assert "result" in response.json()
        assert is_error(await http.get("/rest/tasks?A2A-Version=0.3"))[0] == 400


@pytest.mark.parametrize(
    "media_type", ["", "text/plain", "application/xml", "application/jsonx", "application/json; charset=latin-1"]
)
async def test_other_media_types_are_refused(ada, media_type):
    """-32005, and 400 as §5.4 maps it; the reason says which error it is."""
    headers = {"Content-Type": media_type}
    assert is_error(await rpc(ada, call(), **headers))[0] == -32005
    response = await rest(ada, "/message:send", {"message": text()}, **headers)
    assert is_error(response)[0] == 400
    assert response.json()["error"]["details"][0]["reason"] == "CONTENT_TYPE_NOT_SUPPORTED"


async def test_a2a_json_is_not_for_json_rpc(ada):
    """§9.1 says application/json."""
    assert is_error(await rpc(ada, call(), **{"Content-Type": "application/a2a+json"}))[0] == -32005


async def test_compressed_bodies_are_refused(ada):
    """They could unpack to any size."""
    body = gzip.compress(json.dumps(call()).encode())
    assert is_error(await rpc(ada, body, **{"Content-Encoding": "gzip"}))[0] == -32005
    assert is_error(await rest(ada, "/message:send", body, **{"Content-Encoding": "gzip"}))[0] == 400


# -- size ------------------------------------------------------------------------------------------------------------


async def test_too_large_a_body_is_refused_announced_or_not(ada):
    """413 at the limit, before it is parsed; just under it comes in."""
    empty = len(json.dumps(call(params={"message": text("", messageId="full")})))
    fits = call(params={"message": text("x" * (LIMIT - empty), messageId="full")})
    assert len(json.dumps(fits)) == LIMIT
    assert "result" in (await rpc(ada, fits)).json()
    assert is_error(await rpc(ada, b"[" * (LIMIT + 1)))[0] == -31413
    assert is_error(await rest(ada, "/message:send", b"[" * (LIMIT + 1)))[0] == 413

    async def chunks():
        for _ in range(30):
            yield b"x" * 1000

    for path, code in (("/a2a", -31413), ("/rest/message:send", 413)):
        assert is_error(await ada.post(path, content=chunks(), headers=JSON))[0] == code


@pytest.mark.parametrize("length", ["99999999999", "9" * 5000, "20001"])
async def test_an_announced_length_is_enough_to_refuse(ada, length):
    """Nothing is read."""
    assert is_error(await rpc(ada, b"{}", **{"Content-Length": length}))[0] == -31413


@pytest.mark.parametrize("length", ["-1", "x", "1.5", "²"])
async def test_a_length_that_is_no_number_is_refused(ada, length):
    """InvalidRequest."""
    response = await ada.post(
        "/a2a", content=b"{}", headers=[*JSON.items(), ("Content-Length", length.encode("latin-1"))]
    )
    assert is_error(response)[0] == -32600


async def test_a_body_that_breaks_off_is_not_used():
    """The client went away: nothing reaches the routes."""
    edge = Edge(None, jsonrpc=None, door=Door(anybody), max_body_bytes=100)
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(event):
        sent.append(event)

    scope = {"type": "http", "path": "/a2a", "method": "POST", "headers": [], "query_string": b""}
    await edge(scope, receive, send)
    assert b"-32600" in sent[1]["body"]


async def test_a_body_that_trickles_in_is_given_up():
    """It holds nothing for longer than a body may take."""
    edge = Edge(None, jsonrpc=None, door=Door(anybody), max_body_bytes=100, body_seconds=0.05)
    sent = []

    async def receive():
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(event):
        sent.append(event)

    scope = {"type": "http", "path": "/a2a", "method": "POST", "headers": [], "query_string": b""}
    async with asyncio.timeout(5):
        await edge(scope, receive, send)
    assert b"did not come within 0.05 s" in sent[1]["body"]


async def test_head_is_served_like_get(ada):
    """Without a body, so without a media type to check."""
    response = await ada.request("HEAD", "/rest/tasks")
    assert (response.status_code, response.content) == (200, b"")


# -- JSON ------------------------------------------------------------------------------------------------------------


def nested(depth, opening=b"[", closing=b"]"):
    return opening * depth + closing * depth


BROKEN = [
    b"",
    b" ",
    b"{",
    b"nonsense",
    b'{"a": 1,}',
    b"{'a': 1}",
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00",
    b'{"a": "\xff"}',
    b'{"a": "\xed\xa0\x80"}',
    rb'{"a": "\ud800"}',
    rb'{"\udc00": 1}',
    b'{"a": NaN}',
    b'{"a": -Infinity}',
    b'{"a": 1e999}',
    b'{"a": ' + b"9" * 301 + b"}",
    b'{"a": ' + b"9" * 5000 + b"}",
    b'{"a": 1, "a": 2}',
    b'{"x": [{"a": 1, "a": 2}]}',
    nested(MAX_DEPTH + 1),
    nested(9_000),
    nested(3_000, b'{"a":', b"}")[:-3000] + b"1" + b"}" * 3000,
    b"[" * 19_000,
    b'{"a": "' + b'\\"' * 9_000 + b"[" * 100,
    b'"' + b"\\" * 9_001,
]


@pytest.mark.parametrize("body", BROKEN, ids=lambda body: repr(body[:24]))
async def test_what_is_not_json_is_refused(ada, body):
    """-32700 and 400 in plain words: bad syntax, bad UTF-8, and what parsers disagree on."""
    assert is_error(await rpc(ada, body))[0] == -32700
    assert is_error(await rest(ada, "/message:send", body))[0] == 400
    assert is_error(await rest(ada, "/tasks/x/pushNotificationConfigs", body, "POST"))[0] == 400


async def test_brackets_inside_strings_are_not_depth(ada):
    """Text may be full of them; data may be nested up to the limit."""
    response = await rpc(ada, call(params={"message": text("[{" * 500 + '"', messageId="brackets")}))
    assert "result" in response.json()
    deepest = json.loads(nested(MAX_DEPTH - 6))
    parts = [{"data": {"what": "hat", "more": deepest}}]
    response = await rpc(ada, call(params={"message": text(messageId="deep", parts=parts)}))
    assert "result" in response.json()
    parts = [{"data": {"what": "hat", "more": [deepest]}}]
    assert is_error(await rpc(ada, call(params={"message": text(messageId="deeper", parts=parts)})))[0] == -32700


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([call(), call()], -32600),
        ([], -32600),
        (None, -32600),
        (5, -32600),
        ("call", -32600),
        ({}, -32600),
        (call(jsonrpc="1.0"), -32600),
        (call(jsonrpc=2.0), -32600),
        (call(id=True), -32600),
        (call(id=1.5), -32600),
        (call(id={}), -32600),
        (call(method=5), -32600),
        (call(method=None), -32600),
        (call(extra=1), -32600),
        (call(method=""), -32601),
        (call(method="message/send"), -32601),
        (call(method="rpc.x"), -32601),
        (call(method="__init__"), -32601),
        (call(params=[]), -32602),
        (call(params="x"), -32602),
        (call(params=5), -32602),
        (call() | {"params": None}, -32602),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_no_request_is_refused(ada, body, code):
    """Envelope -32600, method -32601, params -32602; the id comes back where it can."""
    response = await rpc(ada, body)
    assert is_error(response)[0] == code
    usable = isinstance(body, dict) and isinstance(body.get("id"), int | str)
    assert response.json()["id"] == (body["id"] if usable else None)


async def test_an_id_may_be_text_a_number_or_null(ada):
    """Whatever it is, it comes back."""
    for number in ("x", 0, -5, None, 10**30):
        assert (await rpc(ada, call("ListTasks", {}, id=number))).json()["id"] == number


# -- fields ----------------------------------------------------------------------------------------------------------

RAW = base64.b64encode(b"some bytes").decode()
WRONG = [
    ({"message": None}, "message"),
    ({"message": 5}, "message must be an object"),
    ({"message": [text()]}, "message must be an object"),
    ({"message": text(messageId=5)}, "message.messageId must be a string"),
    ({"message": text(messageId=None)}, "message_id"),
    ({"message": text(messageId="")}, "message_id"),
    ({"message": text(message_id="m1")}, "message.messageId is given twice"),
    ({"message": text(contextId={})}, "message.contextId must be a string"),
    ({"message": text(taskId=1)}, "message.taskId must be a string"),
    ({"message": text(role="user")}, "message.role must be one of ROLE_USER, ROLE_AGENT"),
    ({"message": text(role=1)}, "message.role must be one of"),
    ({"message": text(role=[])}, "message.role must be one of"),
    ({"message": text(role="ROLE_AGENT")}, "ROLE_USER"),
    ({"message": text(parts={})}, "message.parts must be a list"),
    ({"message": text(parts="x")}, "message.parts must be a list"),
    ({"message": text(parts=[])}, "parts"),
    ({"message": text(parts=[None])}, "message.parts[0] must be an object"),
    ({"message": text(parts=["x"])}, "message.parts[0] must be an object"),
    ({"message": text(parts=[{}])}, "every part"),
    ({"message": text(parts=[{"unknown": 1}])}, "every part"),
    ({"message": text(parts=[{"text": 1}])}, "message.parts[0].text must be a string"),
    ({"message": text(parts=[{"text": "a", "data": 1}])}, "message.parts[0].data is given twice, or beside another"),
    ({"message": text(parts=[{"raw": "not base64!"}])}, "message.parts[0].raw must be base64"),
    ({"message": text(parts=[{"raw": RAW + "A"}])}, "must be base64"),
    ({"message": text(parts=[{"raw": [1]}])}, "must be base64"),
    ({"message": text(parts=[{"url": 1}])}, "message.parts[0].url must be a string"),
    ({"message": text(parts=[{"text": "x", "metadata": 1}])}, "message.parts[0].metadata must be an object"),
    ({"message": text(parts=[{"text": "x", "filename": 1}])}, "filename must be a string"),
    ({"message": text(parts=[{"text": "x", "mediaType": 1}])}, "mediaType must be a string"),
    ({"message": text(metadata=[])}, "message.metadata must be an object"),
    ({"message": text(extensions="x")}, "message.extensions must be a list"),
    ({"message": text(extensions=[1])}, "message.extensions[0] must be a string"),
    ({"message": text(referenceTaskIds=[None])}, "message.referenceTaskIds[0] must be a string"),
    ({"message": text(), "tenant": 1}, "tenant must be a string"),
    ({"message": text(), "metadata": "x"}, "metadata must be an object"),
    ({"message": text(), "configuration": 1}, "configuration must be an object"),
    ({"message": text(), "configuration": {"historyLength": "x"}}, "historyLength must be an integer"),
    ({"message": text(), "configuration": {"historyLength": 1.5}}, "historyLength must be an integer"),
    ({"message": text(), "configuration": {"historyLength": True}}, "historyLength must be an integer"),
    ({"message": text(), "configuration": {"historyLength": 2**31}}, "historyLength must be an integer"),
    ({"message": text(), "configuration": {"historyLength": -1}}, "negative"),
    ({"message": text(), "configuration": {"returnImmediately": "yes"}}, "returnImmediately must be true or false"),
    ({"message": text(), "configuration": {"returnImmediately": 1}}, "returnImmediately must be true or false"),
    ({"message": text(), "configuration": {"acceptedOutputModes": "x"}}, "acceptedOutputModes must be a list"),
    (
        {"message": text(), "configuration": {"taskPushNotificationConfig": 1}},
        "taskPushNotificationConfig must be an object",
    ),
    ({"message": text(), "configuration": {"taskPushNotificationConfig": {}}}, "url"),
    ({}, "message"),
]


@pytest.mark.parametrize(("params", "words"), WRONG, ids=lambda value: str(value)[:60])
async def test_a_field_of_the_wrong_type_is_named(ada, params, words):
    """InvalidParams on both bindings, by sending and by streaming, in the same words."""
    for method in ("SendMessage", "SendStreamingMessage"):
        code, said = is_error(await rpc(ada, call(method, params)))
        assert code == -32602
        assert words in said
    for path in ("send", "stream"):
        assert is_error(await rest(ada, f"/message:{path}", params)) == (400, said)


async def test_unknown_fields_are_ignored_and_both_names_are_taken(ada):
    """A2A 1.0 §5.7, and ProtoJSON."""
    message = {"message_id": "m1", "role": "ROLE_USER", "parts": [{"text": "x", "new": 1}], "new": {}}
    assert "result" in (await rpc(ada, call(params={"message": message, "new": [], "configuration": None}))).json()
    configuration = {"historyLength": "1", "history_length_": 5}
    response = await rest(ada, "/message:send", {"message": text(), "configuration": configuration})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("GetTask", {}, "id"),
        ("GetTask", {"id": 5}, "id must be a string"),
        ("GetTask", {"id": "x", "historyLength": -1}, "negative"),
        ("CancelTask", {}, "id"),
        ("SubscribeToTask", {}, "id"),
        ("ListTasks", {"status": "NOPE"}, "status must be one of TASK_STATE_SUBMITTED"),
        ("ListTasks", {"status": 3}, "status must be one of"),
        ("ListTasks", {"pageSize": "abc"}, "pageSize must be an integer"),
        ("ListTasks", {"pageSize": 0}, "pageSize"),
        ("ListTasks", {"pageToken": "?"}, "pageToken"),
        ("ListTasks", {"pageToken": 5}, "pageToken must be a string"),
        ("ListTasks", {"statusTimestampAfter": "yesterday"}, "statusTimestampAfter must be a time"),
        ("ListTasks", {"statusTimestampAfter": 5}, "statusTimestampAfter must be a time"),
        ("ListTasks", {"includeArtifacts": "true"}, "includeArtifacts must be true or false"),
        ("CreateTaskPushNotificationConfig", {"taskId": "x"}, "url"),
        ("CreateTaskPushNotificationConfig", {"taskId": "x", "url": 5}, "url must be a string"),
        ("CreateTaskPushNotificationConfig", {"taskId": "x", "url": "https://x", "authentication": {}}, "scheme"),
        ("GetTaskPushNotificationConfig", {"taskId": "x"}, "id"),
        ("ListTaskPushNotificationConfigs", {}, "task_id"),
        ("DeleteTaskPushNotificationConfig", {"id": "x"}, "task_id"),
        ("GetExtendedAgentCard", {"tenant": 5}, "tenant must be a string"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_parameters_of_every_method_are_checked(ada, method, params, words):
    """InvalidParams, naming the field."""
    code, said = is_error(await rpc(ada, call(method, params)))
    assert code == -32602
    assert words in said


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("pageSize=abc", "pageSize must be an integer"),
        ("pageSize=", "pageSize must be an integer"),
        ("pageSize=1.5", "pageSize must be an integer"),
        ("pageSize=99999999999999999999", "pageSize must be an integer"),
        ("pageSize=%D9%A3", "pageSize must be an integer"),
        ("pageSize=0", "pageSize"),
        ("pageSize=101", "pageSize"),
        ("historyLength=-1", "negative"),
        ("historyLength=x", "historyLength must be an integer"),
        ("status=NOPE", "status must be one of"),
        ("status=", "status must be one of"),
        ("status=3", "status must be one of"),
        ("includeArtifacts=maybe", "includeArtifacts must be true or false"),
        ("statusTimestampAfter=yesterday", "statusTimestampAfter must be a time"),
        ("statusTimestampAfter=99999-01-01T00:00:00Z", "statusTimestampAfter must be a time"),
        ("pageToken=%FF%00", "pageToken"),
        ("pageToken=" + "9" * 6000, "pageToken"),
        ("pageToken=gQDPAAAAF0h25_8", None),
        ("pageToken=gQD7", None),
        ("contextId=" + "x" * 10_000, None),
        ("unknown=1&page_size=abc&=&&%FF=%FF", None),
        ("pageSize=2&pageSize=3&status=TASK_STATE_COMPLETED&includeArtifacts=true", None),
    ],
)
async def test_query_parameters_are_checked(ada, query, words):
    """What can't be meant is refused by name; what is unknown is ignored."""
    response = await ada.get(f"/rest/tasks?{query}")
    if words is None:
        assert response.status_code == 200
    else:
        code, said = is_error(response)
        assert (code, words in said) == (400, True), said


@pytest.mark.parametrize("query", ["historyLength=-1", "historyLength=x", "historyLength=99999999999"])
async def test_query_parameters_of_a_task_are_checked(ada, query):
    """Before the task is looked up."""
    for path in ("/tasks/x", "/acme/tasks/x"):
        assert is_error(await ada.get(f"/rest{path}?{query}"))[0] == 400


@pytest.mark.parametrize(
    "task_id",
    [
        "x",
        "f" * 32,
        "x" * 8000,
        "..%2F..%2Fhealthz",
        "%00",
        "%0A",
        "%FF",
        "log:x:1",
        "a%20b",
        "%F0%9F%8E%A9",
        "%2e%2e",
        "'--",
    ],
)
async def test_odd_ids_are_tasks_that_are_not_there(ada, task_id):
    """404 in the binding's words, whatever the id; ids never become keys unseen."""
    for method, path in (
        ("GET", ""),
        ("POST", ":cancel"),
        ("POST", ":subscribe"),
        ("GET", ":subscribe"),
        ("GET", "/pushNotificationConfigs"),
        ("GET", "/pushNotificationConfigs/x"),
        ("DELETE", "/pushNotificationConfigs/x"),
    ):
        response = await ada.request(method, f"/rest/tasks/{task_id}{path}")
        assert is_error(response)[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/rest/", 404),
        ("GET", "/rest/nothing", 404),
        ("GET", "/rest/tasks/", 404),
        ("GET", "/rest//tasks", 404),
        ("GET", "/rest/a/b/tasks", 404),
        ("GET", "/rest/tasks/x/y", 404),
        ("GET", "/rest/message:send", 405),
        ("PUT", "/rest/message:send", 405),
        ("POST", "/rest/tasks", 405),
        ("DELETE", "/rest/tasks/x/pushNotificationConfigs", 404),
        ("DELETE", "/rest/tasks/x", 404),
        ("PATCH", "/rest/acme/tasks", 405),
        ("GET", "/a2a", 405),
        ("PUT", "/a2a", 405),
        ("DELETE", "/a2a", 405),
        ("OPTIONS", "/a2a", 405),
    ],
)
async def test_paths_and_methods_that_are_not_served(ada, method, path, status):
    """404 or 405, in the binding's own words; a 405 says what is allowed."""
    response = await ada.request(method, path)
    is_error(response)
    assert response.status_code == status
    assert ("allow" in response.headers) == (status == 405)


async def test_posts_that_need_no_body_may_have_none(ada):
    """Cancel and subscribe say all in their path; no media type is asked for then."""
    for path in ("/rest/tasks/x:cancel", "/rest/tasks/x:subscribe"):
        assert is_error(await ada.post(path))[0] == 404
        assert is_error(await ada.post(path, content=b"[]", headers=JSON))[0] == 400


async def test_a_tenant_comes_in_the_path_the_body_or_the_query(ada):
    """Wherever it is, it counts; two that differ are refused."""

    async def owned(path, **body):
        response = await rest(ada, path, {"message": text(messageId="tenanted"), **body})
        return response.json()["task"]["id"] if response.status_code == 200 else is_error(response)

    acme = await owned("/acme/message:send")
    assert await owned("/message:send", tenant="acme") == acme
    assert await owned("/acme/message:send", tenant="acme") == acme
    assert await owned("/message:send") != acme
    assert (await owned("/acme/message:send", tenant="other"))[0] == 400
    assert (await owned("/other/message:send"))[0] == 403
    for path, status in {
        f"/acme/tasks/{acme}": 200,
        f"/tasks/{acme}?tenant=acme": 200,
        f"/tasks/{acme}": 404,
        f"/acme/tasks/{acme}?tenant=other": 400,
        f"/other/tasks/{acme}": 403,
    }.items():
        assert (await ada.get(f"/rest{path}")).status_code == status, path
    assert (await rest(ada, f"/tasks/{acme}:cancel", {"tenant": "acme"})).status_code == 400
    assert (await rest(ada, f"/tasks/{acme}:cancel", {})).status_code == 404


# -- anything --------------------------------------------------------------------------------------------------------

FIELDS = [
    "message",
    "configuration",
    "metadata",
    "tenant",
    "messageId",
    "message_id",
    "contextId",
    "taskId",
    "role",
    "parts",
    "text",
    "raw",
    "url",
    "data",
    "filename",
    "mediaType",
    "extensions",
    "referenceTaskIds",
    "historyLength",
    "returnImmediately",
    "acceptedOutputModes",
    "id",
    "status",
    "pageSize",
    "pageToken",
    "statusTimestampAfter",
    "includeArtifacts",
    "taskPushNotificationConfig",
    "authentication",
    "scheme",
    "token",
    "taskId",
]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        ["ROLE_USER", "TASK_STATE_WORKING", "2026-03-03T10:00:00Z", "https://x/", "look", "m1", "\u0000", "YQ=="]
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
PARTS = st.lists(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("text", "raw", "url", "data", "metadata", "filename"), VALUES)),
    max_size=2,
)
MESSAGES = st.fixed_dictionaries(
    {"messageId": st.text(max_size=4) | VALUES, "role": st.just("ROLE_USER") | VALUES, "parts": PARTS | VALUES},
    optional={"contextId": VALUES, "taskId": VALUES, "metadata": VALUES, "extensions": VALUES},
)
SENDS = st.fixed_dictionaries({"message": MESSAGES | VALUES}, optional={"configuration": VALUES, "metadata": VALUES})
METHODS = st.sampled_from(
    [
        "SendMessage",
        "SendStreamingMessage",
        "GetTask",
        "ListTasks",
        "CancelTask",
        "SubscribeToTask",
        "CreateTaskPushNotificationConfig",
        "GetTaskPushNotificationConfig",
        "ListTaskPushNotificationConfigs",
        "DeleteTaskPushNotificationConfig",
        "GetExtendedAgentCard",
    ]
)
REQUESTS = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": METHODS, "params": SENDS | st.dictionaries(st.sampled_from(FIELDS), VALUES)},
    optional={"id": LEAVES},
)
PATHS = st.sampled_from(["/message:send", "/message:stream", "/tasks/x:cancel", "/tasks/x/pushNotificationConfigs"])


def in_order(response):
    """No 5xx, no internal error, no words of the interpreter."""
    assert response.status_code < 500
    if response.headers["content-type"].startswith("text/event-stream"):
        return
    body = response.json()
    if "error" in body:
        is_error(response)


fuzzed = settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@fuzzed
@given(body=REQUESTS | VALUES)
async def test_any_json_to_json_rpc_is_answered_in_order(ada, body):
    """Whatever the JSON: a result, or a clear error."""
    in_order(await rpc(ada, body))


@fuzzed
@given(path=PATHS, body=SENDS | VALUES)
async def test_any_json_to_rest_is_answered_in_order(ada, path, body):
    """Whatever the JSON: a result, or a clear error."""
    in_order(await rest(ada, path, body, "POST"))


@fuzzed
@given(
    query=st.dictionaries(
        st.sampled_from(FIELDS), st.text(max_size=6) | st.sampled_from(["1", "true", "TASK_STATE_FAILED"])
    )
)
async def test_any_query_is_answered_in_order(ada, query):
    """Whatever the parameters: a list, or a clear error."""
    in_order(await ada.get("/rest/tasks", params=query))


@fuzzed
@given(body=st.binary(max_size=60))
async def test_any_bytes_are_answered_in_order(ada, body):
    """Whatever the bytes."""
    in_order(await rpc(ada, body))
