"""A2A 0.3 by gRPC at its edge: who may call, what is refused, in words that callers of 0.3 know."""

import asyncio

import grpc
import grpc.aio
import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2 as v03
from a2a.types import AgentCard, AgentInterface, OAuthFlows, SecurityScheme
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.struct_pb2 import Struct
from google.rpc.error_details_pb2 import ErrorInfo
from grpc import StatusCode
from grpc_status.rpc_status import from_call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecard import Agent, Task, grpc_03
from sidecard.callers import Caller, Callers, Denied
from sidecard.extension import URI
from sidecard.quotas import Quota, Quotas, QuotasFile
from sidecard.strict_json import MAX_VALUES
from sidecard.tasks.checks import MAX_DATA_DEPTH
from sidecard.testing import FakeWebhooks, MemoryStore, served

CALLERS = {"ada": {"api_key": True, "grants": {"shop": ["look"]}}}
KEY, VERSION = ("x-api-key", "ada's key"), ("a2a-version", "0.3")
SERVICE = v03.DESCRIPTOR.services_by_name["A2AService"]
METHODS = sorted(SERVICE.methods_by_name)
HATS = ParseDict(
    {"message_id": "m1", "role": "ROLE_USER", "content": [{"text": "hat"}], "metadata": {URI: {"skill": "look"}}},
    v03.Message(),
)
agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")


@agent.skill(scope="look", idempotent=True)
async def look(text: str, task: Task) -> str:
    """Look."""
    return text[:5]


@agent.skill(scope="look", idempotent=True)
async def ask(text: str, task: Task) -> str:
    """Ask."""
    return (await task.ask("Which?")).text


@pytest.fixture
async def desk():
    async with served(agent, MemoryStore(), CALLERS, webhooks=FakeWebhooks()) as desk:
        yield desk


@pytest.fixture
async def channel(desk):
    async with grpc.aio.insecure_channel(desk.grpc_target) as channel:
        yield channel


async def call(channel, method, request=None, metadata=(KEY, VERSION)):
    """All that comes back of a method of 0.3's service: its answers. `request` may be bytes."""
    known = SERVICE.methods_by_name[method]
    kind = channel.unary_stream if known.server_streaming else channel.unary_unary
    answer = getattr(v03, known.output_type.name, None)  # Empty is not its own
    calls = kind(f"/{SERVICE.full_name}/{method}", response_deserializer=answer.FromString if answer else None)
    data = request if isinstance(request, bytes) else request.SerializeToString() if request else b""
    given = calls(data, metadata=metadata)
    return [event async for event in given] if known.server_streaming else [await given]


async def refusal(*given, **named):
    """The status of a call that fails, its words, and the reason among its details."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(*given, **named)
    error, info = caught.value, ErrorInfo()
    told = from_call(error)
    assert told is not None, error
    assert told.details[0].Unpack(info)
    return error.code(), error.details(), info.reason


async def served_to(channel, metadata):
    """The methods that answer this caller anything but that it is nobody."""
    found = []
    for method in METHODS:
        try:
            await call(channel, method, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() == StatusCode.UNAUTHENTICATED:
                continue
        found.append(method)
    return found


async def test_a_stranger_is_served_by_no_method(channel):
    """Not even told what is wrong with what it says; a caller that is known is."""
    for metadata in ((VERSION,), (("x-api-key", "guess"), VERSION), (("dapr-caller-app-id", "ada"),), (KEY, KEY)):
        assert await served_to(channel, metadata) == []
    assert len(METHODS) == 10
    assert await served_to(channel, (KEY, VERSION)) == METHODS


async def test_without_a_look_at_the_caller_it_would_be(channel, monkeypatch):
    """The door lets anybody in."""

    async def anybody(*_):
        return Caller("anybody", "anybody", frozenset({"look"}))

    monkeypatch.setattr(Callers, "_proven", anybody)
    assert await served_to(channel, ()) == METHODS


@pytest.mark.parametrize("denied", [True, False])
async def test_who_is_revoked_is_nobody(desk, channel, denied, monkeypatch):
    """From the next call on, and as long as that holds."""
    desk.denied.become(["caller:ada"])
    if not denied:
        monkeypatch.setattr(Denied, "covers", lambda *_: False)
    assert (await served_to(channel, (KEY, VERSION)) == []) is denied


async def test_nothing_of_a_stranger_is_waited_for(channel):
    """Its call ends though its message never comes."""

    async def never():
        await asyncio.Event().wait()
        yield b""

    for method, kind in (("GetTask", channel.stream_unary), ("TaskSubscription", channel.stream_stream)):
        begun = kind(f"/{SERVICE.full_name}/{method}")(never())
        async with asyncio.timeout(5):
            assert await begun.code() == StatusCode.UNAUTHENTICATED


async def test_quotas_are_those_of_every_binding():
    """RESOURCE_EXHAUSTED, with the time to wait."""
    quotas = Quotas(QuotasFile(each_caller=Quota(rate=0.01, burst=2)), {})
    async with (
        served(agent, MemoryStore(), CALLERS, quotas=quotas) as desk,
        grpc.aio.insecure_channel(desk.grpc_target) as channel,
    ):
        for _ in range(2):
            await call(channel, "SendMessage", v03.SendMessageRequest(request=HATS))
        code, words, reason = await refusal(channel, "SendMessage", v03.SendMessageRequest(request=HATS))
    assert (code, reason) == (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS")
    assert words.startswith("TooManyRequests: ")


@pytest.mark.parametrize("version", [(), (("a2a-version", "0.3"),), (("a2a-version", "0.3.0"),)])
async def test_its_version_is_03_or_not_said(channel, version):
    """As by the other bindings."""
    [answer] = await call(channel, "SendMessage", v03.SendMessageRequest(request=HATS), (KEY, *version))
    assert answer.task.artifacts[0].parts[0].text == "hat"


@pytest.mark.parametrize("version", ["1.0", "0.2", "0.30", "2.0", "x"])
async def test_other_versions_are_refused(channel, version):
    """1.0 has a service of its own."""
    code, words, reason = await refusal(
        channel, "SendMessage", v03.SendMessageRequest(request=HATS), (KEY, ("a2a-version", version))
    )
    assert (code, reason) == (StatusCode.FAILED_PRECONDITION, "VERSION_NOT_SUPPORTED")
    assert words.startswith("VersionNotSupportedError: ")


@pytest.mark.parametrize(
    "name",
    ["", "x", "tasks/", "tasks//x", "tasks/x/", "tasks/x/../y", "x/tasks/y", "TASKS/x", "tasks/x/y"],
)
async def test_a_task_is_named_whole_and_exactly(channel, name):
    """Nothing before or behind its name is left out, as it would be by the SDK's reader."""
    for method, request in (
        ("GetTask", v03.GetTaskRequest(name=name)),
        ("CancelTask", v03.CancelTaskRequest(name=name)),
        ("TaskSubscription", v03.TaskSubscriptionRequest(name=name)),
        ("ListTaskPushNotificationConfig", v03.ListTaskPushNotificationConfigRequest(parent=name)),
        ("GetTaskPushNotificationConfig", v03.GetTaskPushNotificationConfigRequest(name=f"{name}/x")),
        ("DeleteTaskPushNotificationConfig", v03.DeleteTaskPushNotificationConfigRequest(name=f"{name}/x/y")),
    ):
        code, words, reason = await refusal(channel, method, request)
        assert (code, reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_PARAMS"), method
        assert words.startswith("InvalidParamsError: ")


async def test_errors_have_the_names_that_callers_look_for(channel):
    """And the status and reason that 1.0 gives them."""
    for method, request in (
        ("GetTask", v03.GetTaskRequest(name="tasks/x")),
        ("CancelTask", v03.CancelTaskRequest(name="tasks/..")),
        ("TaskSubscription", v03.TaskSubscriptionRequest(name="tasks/x")),
        ("GetTaskPushNotificationConfig", v03.GetTaskPushNotificationConfigRequest(
            name="tasks/x/pushNotificationConfigs/y")),
    ):  # fmt: skip
        code, words, reason = await refusal(channel, method, request)
        assert (code, reason) == (StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
        assert words.startswith("TaskNotFoundError: ")


def deep(levels):
    """Data nested so deep."""
    data = Struct()
    for _ in range(levels):
        outer = Struct()
        outer.fields["x"].struct_value.CopyFrom(data)
        data = outer
    return data


def sent(**more):
    """A message that is like any other, but for this."""
    message = v03.Message()
    message.CopyFrom(HATS)
    message.MergeFrom(v03.Message(**more))
    return v03.SendMessageRequest(request=message)


NAN = Struct()
NAN.fields["x"].number_value = float("nan")


@pytest.mark.parametrize(
    "request_",
    [
        v03.SendMessageRequest(),
        v03.SendMessageRequest(request=v03.Message(message_id="m1", content=[v03.Part(text="hat")])),
        sent(content=[v03.Part()]),
        sent(content=[v03.Part(file=v03.FilePart(file_with_bytes=b"\xff\xfe"))]),
        sent(content=[v03.Part(file=v03.FilePart(file_with_bytes=b"a"))]),
        sent(content=[v03.Part(text="x")] * MAX_VALUES),
        sent(metadata=NAN),
        sent(content=[v03.Part(data=v03.DataPart(data=NAN))]),
        sent(content=[v03.Part(data=v03.DataPart(data=deep(MAX_DATA_DEPTH)))]),
        v03.SendMessageRequest(request=HATS, configuration={"accepted_output_modes": ["x"] * MAX_VALUES}),
        v03.SendMessageRequest(request=HATS, configuration={"history_length": -1}),
    ],
)
async def test_what_no_message_can_hold_is_refused(channel, request_):
    """INVALID_ARGUMENT, of calls and streams, and nothing of the interpreter is in the words."""
    for method in ("SendMessage", "SendStreamingMessage"):
        code, words, reason = await refusal(channel, method, request_)
        assert (code, reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_PARAMS")
        assert not any(word in words for word in ("Unsupported part", "codec", "Traceback", "pydantic"))


async def test_too_many_parts_are_counted_before_they_are_read(channel, monkeypatch):
    """Reading costs more than counting; without the count they are all read."""
    read = []
    real = grpc_03.FromProto.message_send_params
    monkeypatch.setattr(grpc_03.FromProto, "message_send_params", lambda asked: read.append(asked) or real(asked))
    many = sent(content=[v03.Part(text="x")] * MAX_VALUES)
    await refusal(channel, "SendMessage", many)
    assert not read
    monkeypatch.setattr(grpc_03, "check_values", lambda *_: None)
    await refusal(channel, "SendMessage", many)
    assert read


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\x0a\xff", b"\x0a\x03\x0a\x01\xff"])
async def test_bytes_that_are_no_request_are_refused(channel, body):
    """In none of the parser's words."""
    for method in ("SendMessage", "SendStreamingMessage", "GetTask"):
        code, words, reason = await refusal(channel, method, body)
        assert (code, reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert "pars" not in words


async def test_an_answer_without_words_says_nothing_of_why(channel, monkeypatch):
    """INTERNAL, and the log has the rest."""

    def broken(*_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(grpc_03.ToProto, "task", broken)
    for method in ("SendMessage", "SendStreamingMessage"):
        code, words, reason = await refusal(channel, method, v03.SendMessageRequest(request=HATS))
        assert (code, reason) == (StatusCode.INTERNAL, "INTERNAL_ERROR")
        assert "secret" not in words


async def test_a_webhook_is_set_by_either_name_of_its_parent(channel):
    """0.3's own documents and its SDK differ; its id stands within it, or beside it."""
    asked = sent(content=[v03.Part(text="red")])
    asked.request.metadata.update({URI: {"skill": "ask"}})
    [answer] = await call(channel, "SendMessage", asked)
    name, url = f"tasks/{answer.task.id}", "https://hooks.example.org/"
    for parent, config_id, within in ((name, "one", ""), (f"{name}/pushNotificationConfigs", "x", "two")):
        config = v03.TaskPushNotificationConfig(push_notification_config={"id": within, "url": url})
        request = v03.CreateTaskPushNotificationConfigRequest(parent=parent, config_id=config_id, config=config)
        [made] = await call(channel, "CreateTaskPushNotificationConfig", request)
        assert made.name == f"{name}/pushNotificationConfigs/{within or config_id}"


def test_a_card_tells_what_03_has_words_for():
    """A device code it has not; what remains is told."""
    scopes, url = {"look": "look"}, "https://issuer.example.org/token"
    device = OAuthFlows(device_code={"token_url": url, "scopes": scopes})
    client = OAuthFlows(client_credentials={"token_url": url, "scopes": scopes})
    card = AgentCard(
        name="shop",
        supported_interfaces=[AgentInterface(url="x", protocol_binding="GRPC", protocol_version="0.3")],
        security_schemes={
            "device": SecurityScheme(oauth2_security_scheme={"flows": device}),
            "client": SecurityScheme(oauth2_security_scheme={"flows": client}),
            "tls": SecurityScheme(mtls_security_scheme={}),
        },
        security_requirements=[{"schemes": {name: {}}} for name in ("device", "client", "tls")],
        skills=[{"id": "look", "security_requirements": [{"schemes": {"device": {}}}]}],
    )
    told = grpc_03._card(card)
    assert set(told.security_schemes) == {"client", "tls"}
    assert [set(one.schemes) for one in told.security] == [{"client"}, {"tls"}]
    assert not told.skills[0].security


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["request", "messageId", "role", "content", "text", "file", "fileWithBytes", "fileWithUri", "data", "metadata",
         "configuration", "blocking", "historyLength", "pushNotification", "taskId", "contextId", "extensions", "url",
         "name", "parent", "config", "configId", "pushNotificationConfig", "authentication", "schemes", "id"]
    ), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(method=st.sampled_from(METHODS), params=JSON, name=st.text(max_size=20), raw=st.binary(max_size=40))
async def test_whatever_comes_is_no_fault_of_ours(channel, method, params, name, raw):
    """An answer or a refusal, and never an internal error or one that gRPC makes up."""
    kind = getattr(v03, SERVICE.methods_by_name[method].input_type.name)
    request = kind()
    if isinstance(params, dict):
        try:
            ParseDict(params, request, ignore_unknown_fields=True)
        except (ParseError, ValueError, TypeError, AttributeError):
            request = kind()
    if "name" in kind.DESCRIPTOR.fields_by_name:
        request.name = f"tasks/{name}"
    found = StatusCode.OK
    for body in (request.SerializeToString(), raw):
        try:
            await call(channel, method, body)
        except grpc.aio.AioRpcError as error:
            found = error.code()
        assert found not in {StatusCode.UNKNOWN, StatusCode.INTERNAL}
