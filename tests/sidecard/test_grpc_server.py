"""The gRPC binding at its edge: who may call, what is too much, and which status says so."""

import asyncio
import contextlib
import socket

import grpc
import grpc.aio
import pytest
from a2a.types import GetTaskRequest, ListTasksRequest, Message, Part, Role, SendMessageRequest
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status.rpc_status import from_call

from sidecard import Agent, Task, grpc_connections, grpc_server
from sidecard.callers import Caller
from sidecard.door import Door
from sidecard.settings import Settings
from sidecard.telemetry import Telemetry
from sidecard.testing import APP_TOKEN, MemoryStore, served

LIMIT = 20_000
CALLERS = {
    "ada": {"api_key": True, "grants": {"shop": ["look"]}},
    "desk": {"sidecar": True, "grants": {"shop": ["look"]}},
}
KEY = ("x-api-key", "ada's key")
VERSION = ("a2a-version", "1.0")
agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")


@agent.skill(scope="look", idempotent=True)
async def look(text: str, task: Task) -> str:
    """Look."""
    return text[:5]


@pytest.fixture
async def desk():
    async with served(agent, MemoryStore(), CALLERS, max_body_bytes=LIMIT) as desk:
        yield desk


@pytest.fixture
async def channel(desk):
    async with grpc.aio.insecure_channel(desk.grpc_target) as channel:
        yield channel


def asking(text="hat"):
    return SendMessageRequest(message=Message(message_id="m1", role=Role.ROLE_USER, parts=[Part(text=text)]))


async def refusal(call):
    """The status of a call that failed, its words, and the reason among its details."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    status = from_call(error)
    info = ErrorInfo()
    if status is not None:
        assert status.details[0].Unpack(info)
        assert info.domain == "a2a-protocol.org"
    return error.code(), error.details(), info.reason


async def test_a_known_caller_comes_in(channel):
    """By key, or with the app's token."""
    service = A2AServiceStub(channel)
    for metadata in ((KEY, VERSION), (("dapr-api-token", APP_TOKEN), ("dapr-caller-app-id", "desk"), VERSION)):
        assert (await service.SendMessage(asking(), metadata=metadata)).task.artifacts[0].parts[0].text == "hat"


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("x-api-key", "guess"),),
        (("x-api-key", "desk's key"),),
        (("dapr-caller-app-id", "desk"),),
        (("dapr-api-token", APP_TOKEN),),
        (KEY, KEY),
    ],
)
async def test_who_is_not_known_is_unauthenticated(channel, metadata):
    """On calls and streams, before the version is looked at."""
    service = A2AServiceStub(channel)
    for call in (
        service.SendMessage(asking(), metadata=metadata),
        service.ListTasks(ListTasksRequest(), metadata=metadata),
        service.SendStreamingMessage(asking(), metadata=metadata).read(),
    ):
        code, words, reason = await refusal(call)
        assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        assert "x-api-key" in words


@pytest.mark.parametrize("version", [(), (("a2a-version", "0.3"),), (("a2a-version", "2.0"),), (("a2a-version", ""),)])
async def test_other_versions_are_refused(channel, version):
    """FAILED_PRECONDITION, VERSION_NOT_SUPPORTED; none at all means 0.3."""
    code, words, reason = await refusal(A2AServiceStub(channel).SendMessage(asking(), metadata=(KEY, *version)))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_NOT_SUPPORTED")
    assert "1.0" in words


async def test_too_large_a_message_exhausts_resources(channel):
    """The server does not read it."""
    code, _, _ = await refusal(A2AServiceStub(channel).SendMessage(asking("x" * LIMIT), metadata=(KEY, VERSION)))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_errors_of_a2a_have_their_status_and_reason(channel):
    """NOT_FOUND with TASK_NOT_FOUND; what is invalid with the fields."""
    service = A2AServiceStub(channel)
    code, _, reason = await refusal(service.GetTask(GetTaskRequest(id="f" * 32), metadata=(KEY, VERSION)))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
    code, _, reason = await refusal(service.ListTasks(ListTasksRequest(tenant="acme"), metadata=(KEY, VERSION)))
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.SendMessage(SendMessageRequest(), metadata=(KEY, VERSION))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    fields = BadRequest()
    from_call(caught.value).details[1].Unpack(fields)
    assert fields.field_violations[0].field == "message"


async def test_a_store_that_is_down_is_unavailable(desk, channel):
    """UNAVAILABLE, so that clients try again."""
    desk.engine.store.down = True
    code, _, reason = await refusal(A2AServiceStub(channel).GetTask(GetTaskRequest(id="x"), metadata=(KEY, VERSION)))
    desk.engine.store.down = False
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x12\x02\x0a\xff", b"\x12\x03\x0a\x01\xff"])
async def test_bytes_that_are_no_request_are_refused_without_details(channel, body):
    """INVALID_ARGUMENT, on calls and streams, in none of the parser's words; strangers don't even learn that."""
    for call in (
        channel.unary_unary("/lf.a2a.v1.A2AService/SendMessage")(body, metadata=(KEY, VERSION)),
        channel.unary_stream("/lf.a2a.v1.A2AService/SendStreamingMessage")(body, metadata=(KEY, VERSION)).read(),
    ):
        code, words, reason = await refusal(call)
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert "pars" not in words
    code, _, _ = await refusal(channel.unary_unary("/lf.a2a.v1.A2AService/SendMessage")(body))
    assert code == grpc.StatusCode.UNAUTHENTICATED


async def test_nesting_beyond_what_protobuf_reads_is_refused(channel):
    """A hundred levels are more than a stored task could be read back with."""
    body = b""
    for tag in (b"\x0a", b"\x2a") * 60:  # a message in a message in a message ...
        body = tag + varint(len(body)) + body
    call = channel.unary_unary("/lf.a2a.v1.A2AService/SendMessage")
    code, _, _ = await refusal(call(b"\x22" + varint(len(body)) + body, metadata=(KEY, VERSION)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT


def varint(number):
    """A number below 16384 as protobuf writes lengths."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])


async def test_what_is_not_served_is_unimplemented(channel):
    """An unknown method is gRPC's own UNIMPLEMENTED."""
    call = channel.unary_unary("/lf.a2a.v1.A2AService/Nothing")
    code, _, _ = await refusal(call(b"", metadata=(KEY, VERSION)))
    assert code == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("guarded", [True, False])
async def test_what_identifies_nobody_is_not_served(unused_tcp_port, monkeypatch, guarded):
    """Another service that somebody puts on the port, of whatever kind: UNIMPLEMENTED, though there is one."""
    if not guarded:
        monkeypatch.setattr(grpc_server._Admitting, "intercept_service", lambda _, go_on, call: go_on(call))
    server = grpc_server.grpc_server(
        None, Settings(app_id="shop", grpc_port=unused_tcp_port), Telemetry(), Door(somebody)
    )

    async def give(_request, _context):
        return b"given"

    kinds = (grpc.unary_unary_rpc_method_handler(give), grpc.stream_unary_rpc_method_handler(give))
    methods = {f"Method{number}": kind for number, kind in enumerate(kinds)}
    server._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("other.Service", methods),))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{unused_tcp_port}") as channel:
            for method in methods:
                call = channel.unary_unary(f"/other.Service/{method}")
                if guarded:
                    code, _, _ = await refusal(call(b""))
                    assert code == grpc.StatusCode.UNIMPLEMENTED
                else:
                    assert await call(b"") == b"given"
    finally:
        await server.stop(0)


async def test_what_nobody_foresaw_says_nothing(desk, channel, monkeypatch):
    """INTERNAL, and the log has the rest; also in streams."""

    def broken(*_args, **_kwargs):
        raise RuntimeError("secret detail")

    service = A2AServiceStub(channel)
    with monkeypatch.context() as patched:
        patched.setattr(desk.engine, "borrow", broken)
        for call in (
            service.GetTask(GetTaskRequest(id="x"), metadata=(KEY, VERSION)),
            service.SendMessage(asking(), metadata=(KEY, VERSION)),
            service.SendStreamingMessage(asking(), metadata=(KEY, VERSION)).read(),
        ):
            code, words, reason = await refusal(call)
            assert (code, reason) == (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR")
            assert "secret" not in words


async def nobody(_claims):
    """Whom the door lets in: nobody."""


async def somebody(_claims):
    """Whom the door lets in: anybody."""
    return Caller("anybody", "anybody", frozenset({"look"}))


@pytest.fixture
async def bounded(unused_tcp_port):
    """Serves the binding without anything behind it, with these bounds, to anybody; returns where."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(seconds=60.0, identify=somebody, **settings):
            settings = Settings(app_id="shop", grpc_port=unused_tcp_port, **settings)
            server = grpc_server.grpc_server(None, settings, Telemetry(), Door(identify), seconds)
            await server.start()
            stack.push_async_callback(server.stop, 0)
            return f"127.0.0.1:{unused_tcp_port}"

        yield start


async def never():
    """The messages of a call that has begun, and says nothing."""
    await asyncio.Event().wait()
    yield b""


async def begun_and_kept(target, calls=20):
    """How many calls somebody without a credential gets the server to keep, by never sending their message."""
    async with grpc.aio.insecure_channel(target) as channel:
        await channel.channel_ready()
        kinds = (("GetTask", channel.stream_unary), ("SubscribeToTask", channel.stream_stream))
        held = [kind(f"/lf.a2a.v1.A2AService/{method}")(never()) for method, kind in kinds * (calls // 2)]
        codes = [asyncio.ensure_future(call.code()) for call in held]
        done, kept = await asyncio.wait(codes, timeout=2)
        assert {code.result() for code in done} <= {grpc.StatusCode.UNAUTHENTICATED}
        for call in held:
            call.cancel()
        await asyncio.wait(codes)
    return len(kept)


async def test_nothing_is_read_of_a_stranger(bounded):
    """Neither waited for: who calls is known from a call's metadata."""
    assert await begun_and_kept(await bounded(identify=nobody)) == 0


async def test_without_a_look_at_the_caller_they_would_all_be_kept(bounded):
    """The door lets anybody in."""
    assert await begun_and_kept(await bounded(identify=somebody)) == 20


@pytest.mark.parametrize(("seconds", "ended"), [(0.2, True), (60.0, False)])
async def test_a_call_whose_message_does_not_come_is_ended(bounded, seconds, ended):
    """Without the guard it would be waited for as long as the connection lasts."""
    async with grpc.aio.insecure_channel(await bounded(seconds)) as channel:
        await channel.channel_ready()
        for method, kind in (("GetTask", channel.stream_unary), ("SubscribeToTask", channel.stream_stream)):
            call = kind(f"/lf.a2a.v1.A2AService/{method}")(never())
            code = asyncio.ensure_future(call.code())
            await asyncio.wait([code], timeout=1)
            assert code.done() is ended
            assert not ended or code.result() == grpc.StatusCode.DEADLINE_EXCEEDED
            call.cancel()
            await asyncio.wait([code])


async def test_a_call_without_a_message_is_refused(channel):
    """It ends before it has said anything."""

    async def nothing():
        for one in ():
            yield one

    for call in (
        channel.stream_unary("/lf.a2a.v1.A2AService/GetTask")(nothing(), metadata=(KEY, VERSION)),
        channel.stream_stream("/lf.a2a.v1.A2AService/SubscribeToTask")(nothing(), metadata=(KEY, VERSION)).read(),
    ):
        code, _, reason = await refusal(call)
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


@pytest.mark.parametrize(("milliseconds", "ended"), [(300, True), (60_000, False)])
async def test_a_connection_that_says_nothing_is_cut(bounded, monkeypatch, milliseconds, ended):
    """It is not even HTTP/2 yet."""
    monkeypatch.setitem(grpc_server._LIMITS, "grpc.server_handshake_timeout_ms", milliseconds)
    host, _, port = (await bounded()).partition(":")
    reader, writer = await asyncio.open_connection(host, port)

    async def end():
        with contextlib.suppress(ConnectionError):
            while await reader.read(1_000):
                pass

    ending = asyncio.ensure_future(end())
    await asyncio.wait([ending], timeout=1.5)
    assert ending.done() is ended
    writer.close()
    ending.cancel()


async def test_there_is_an_end_to_all_connections(bounded, monkeypatch):
    """So that they can't take every descriptor."""
    monkeypatch.setattr(grpc_connections, "LOOK_SECONDS", 60.0)
    host, _, port = (await bounded(connections=16)).partition(":")
    opened = [await asyncio.open_connection(host, port) for _ in range(24)]

    async def greeted(reader):
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1):
                return bool(await reader.read(9))  # the server's settings
        return False

    assert sum(await asyncio.gather(*(greeted(reader) for reader, _ in opened))) == 16
    for _, writer in opened:
        writer.close()


async def by_key(claims):
    """Whom the door lets in: who has the key."""
    return Caller("ada", "ada", frozenset({"look"})) if claims.key == KEY[1] else None


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


async def come_in(target, seconds):
    """Whether a caller with a key gets an answer on a new connection in time; a client connects again by itself."""
    options = [("grpc.max_reconnect_backoff_ms", 200), ("grpc.min_reconnect_backoff_ms", 100),
               ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.use_local_subchannel_pool", 1)]  # fmt: skip
    async with grpc.aio.insecure_channel(target, options) as channel:
        call = A2AServiceStub(channel).GetTask(
            GetTaskRequest(), metadata=(KEY, ("a2a-version", "9")), timeout=seconds, wait_for_ready=True
        )
        return await call.code() == grpc.StatusCode.FAILED_PRECONDITION  # the version, which is looked at afterwards


async def flooded(target, known, at_once=200, most=2_000):
    """How many of `known` callers come in, one after the other, while strangers take every place they can get."""
    host, _, port = target.partition(":")
    held, came = [], 0

    async def flood():
        while True:
            with contextlib.suppress(OSError):
                held.append(await asyncio.open_connection(host, port))
                held[-1][1].write(PREFACE)
            await asyncio.sleep(0 if len(held) < most else 0.02)

    flooding = asyncio.create_task(flood())
    try:
        async with asyncio.timeout(10):
            while len(held) < at_once:  # noqa: ASYNC110 -- any condition
                await asyncio.sleep(0.01)
        for _ in range(known):
            came += await come_in(target, 5.0 if known > 1 else 1.5)
    finally:
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        for _, writer in held:
            writer.close()
    return came


async def test_strangers_keep_no_caller_out(bounded):
    """However many there are: the oldest of them make room."""
    assert await flooded(await bounded(identify=by_key, connections=64), 3) == 3


async def test_without_places_kept_free_they_do(bounded, monkeypatch):
    """Nobody looks who stands there."""
    monkeypatch.setattr(grpc_connections, "LOOK_SECONDS", 600.0)
    assert await flooded(await bounded(identify=by_key, connections=64), 1) == 0


async def test_who_is_known_is_not_cut_for_strangers(bounded):
    """A connection that a caller has used stays, however old, through a flood."""
    target = await bounded(identify=by_key, connections=64)
    async with grpc.aio.insecure_channel(target) as channel:
        states = []

        async def ask():
            metadata = (KEY, ("a2a-version", "9"))
            call = A2AServiceStub(channel).GetTask(GetTaskRequest(), metadata=metadata, timeout=5)
            return await call.code()

        assert await ask() == grpc.StatusCode.FAILED_PRECONDITION
        watching = asyncio.create_task(watch(channel, states))
        assert await flooded(target, 2) == 2
        assert await ask() == grpc.StatusCode.FAILED_PRECONDITION
        watching.cancel()
    assert states == []


async def test_other_sockets_of_the_process_are_not_touched(bounded):
    """Not those of other ports, nor our own connections to that number elsewhere, however many they are."""
    target = await bounded(identify=by_key, connections=16)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    others = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
    assert await flooded(target, 2) == 2
    assert not any(reader.at_eof() for reader, _ in others)
    for _, writer in others:
        writer.close()
    server.close()


async def test_where_nothing_can_be_seen_that_is_said(bounded, monkeypatch, caplog):
    """And served all the same."""
    monkeypatch.setattr(grpc_connections, "_DESCRIPTORS", "/nowhere")
    monkeypatch.setattr(grpc_connections, "LOOK_SECONDS", 0.0)
    target = await bounded(identify=by_key)
    async with asyncio.timeout(5):
        while "strangers may fill it" not in caplog.text:  # noqa: ASYNC110 -- any condition
            await asyncio.sleep(0.01)
    assert await come_in(target, 5.0)


def test_a_peer_has_the_name_that_grpc_gives_it():
    """Also IPv6, whose brackets gRPC escapes."""
    places = grpc_connections.GrpcPlaces(1, 16)
    places.prove("ipv6:%5B::1%5D:5")
    places.prove("ipv4:127.0.0.1:6")
    assert set(places._proven) == {"ipv6:[::1]:5", "ipv4:127.0.0.1:6"}
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("::1", port)) as near, listening.accept()[0] as far:
            assert grpc_connections._peer_of(far, port) == f"ipv6:[::1]:{near.getsockname()[1]}"
            assert grpc_connections._peer_of(near, port) == ""


async def watch(channel, states):
    """Note whatever happens to a channel's connection."""
    while True:
        await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        states.append(channel.get_state())
        await asyncio.sleep(0.01)
