"""Paths and gRPC methods in every spelling, at an app's own ports: each is served by its exact name, to who is known.

What is sent is written here byte by byte, by no client that would tidy it up or refuse to send it. An attack counts the
operations that were begun; its twins take away the look at the caller, or the exactness.
"""

import asyncio
import contextlib
import posixpath
from urllib.parse import unquote

import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2 as v03
from a2a.types import a2a_pb2
from a2a.utils.errors import TaskNotFoundError
from fastapi import FastAPI
from google.protobuf.json_format import ParseDict

from sidecard import grpc_server
from sidecard.app import serve_on
from sidecard.callers import Caller
from sidecard.door import Door
from sidecard.http_server import http_server
from sidecard.settings import Settings
from sidecard.telemetry import Telemetry
from tests.desk import rpc
from tests.listening import exchange, serving
from tests.security.spellings import METHOD_TRICKS, TRICKS, spell_method

KEY = "the key"
AT_ONCE = 16
SERVICES = {file.services_by_name["A2AService"] for file in (a2a_pb2.DESCRIPTOR, v03.DESCRIPTOR)}
MESSAGE = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
REQUESTS = {
    "SendMessageRequest": ParseDict({"message": MESSAGE}, a2a_pb2.SendMessageRequest()),
    "GetTaskRequest": a2a_pb2.GetTaskRequest(id="x"),
}


class Spy:
    """Operations, none of which finds anything: `begun` has those that were begun, and for which tenant."""

    def __init__(self):
        self.begun = []

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)

        async def one(params, _context):
            self.begun.append((name, params.tenant))
            raise TaskNotFoundError

        async def several(params, _context):
            self.begun.append((name, params.tenant))
            raise TaskNotFoundError
            yield

        return several if name in {"on_message_send_stream", "on_subscribe_to_task"} else one


async def with_the_key(claims):
    """Whom the door lets in."""
    return Caller("ada", "ada", frozenset({"look"})) if claims.key == KEY else None


async def anybody(_claims):
    """Whom a door lets in that looks at nobody."""
    return Caller("ada", "ada", frozenset({"look"}))


async def in_turn(attacks):
    """Attacks, so many at once."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(attack):
        async with places:
            await attack

    await asyncio.gather(*map(one, attacks))


# -- gRPC ------------------------------------------------------------------------------------------------------------


def number(value, prefix, first=0):
    """An integer as HPACK writes it (RFC 7541 §5.1)."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([first | value])
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def frame(kind, flags, stream, payload=b""):
    """A frame of HTTP/2 (RFC 9113 §4.1)."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


async def speak(port, headers, message=b""):
    """One gRPC call with just these headers; returns when the server has done with it."""
    block = b"".join(
        b"\0" + number(len(name), 7) + name + number(len(value), 7) + value
        for name, value in ((name.encode(), value.encode("utf-8")) for name, value in headers)
    )
    head, *more = (block[at : at + 16_000] for at in range(0, len(block), 16_000))
    data = frame(1, 0 if more else 4, 1, head)
    data += b"".join(frame(9, 4 if piece is more[-1] else 0, 1, piece) for piece in more)
    data += frame(0, 1, 1, b"\0" + len(message).to_bytes(4) + message)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + data)
            async with asyncio.timeout(10):
                while True:
                    length, kind, flags, stream = _head(await reader.readexactly(9))
                    await reader.readexactly(length)
                    if kind == 7 or (stream == 1 and (kind == 3 or (kind in {0, 1} and flags & 1))):
                        return  # GOAWAY, RST_STREAM, END_STREAM
    finally:
        writer.close()


def _head(data):
    return int.from_bytes(data[:3]), data[3], data[4], int.from_bytes(data[5:])


def called(path, *more):
    """The headers of a call."""
    return [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers"),
            ("content-type", "application/grpc"), *more]  # fmt: skip


@pytest.fixture
async def grpc_port(unused_tcp_port):
    """Serves the binding over a spy; returns both."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(identify=with_the_key):
            spy, settings = Spy(), Settings(app_id="shop", grpc_port=unused_tcp_port)
            server = grpc_server.grpc_server(spy, settings, Telemetry(), Door(identify))
            await server.start()
            stack.push_async_callback(server.stop, 0)
            return unused_tcp_port, spy

        yield start


def exact():
    """Each method with its service, its version, a message that it takes, and another method."""
    for service in SERVICES:
        names = [method.name for method in service.methods]
        version = "1.0" if service.full_name.startswith("lf.") else "0.3"
        for method, other in zip(service.methods, names[1:] + names[:1], strict=True):
            yield service.full_name, method.name, other, version, _message(version, method.input_type.name)


def _message(version, kind):
    if version == "1.0":
        request = REQUESTS.get(kind, getattr(a2a_pb2, kind)())
        return request.SerializeToString()
    request = getattr(v03, kind)()
    if kind == "SendMessageRequest":
        request.request.CopyFrom(v03.Message(message_id="m", role="ROLE_USER", content=[v03.Part(text="hello")]))
    for name in {"name", "parent"} & set(request.DESCRIPTOR.fields_by_name):
        setattr(
            request, name, "tasks/x" + ("/pushNotificationConfigs/y" if "Config" in kind and name == "name" else "")
        )
    return request.SerializeToString()


STRANGERS = (
    (),
    (("x-api-key", "guess"),),
    (("x-api-key", KEY), ("x-api-key", KEY)),
    (("dapr-caller-app-id", "desk"), ("x-original-url", "/healthz"), ("x-rewrite-url", "/healthz")),
)


async def call_unknown(port, spy):
    """Operations begun for nobody, by the exact name of each method, or by one that comes twice; and how many tried."""
    attacks = []
    for service, method, _, version, message in exact():
        path = f"/{service}/{method}"
        odd = (
            [(":path", "/grpc.health.v1.Health/Check"), *called(path)],
            [*called(path), (":path", "/grpc.health.v1.Health/Check")],
            [(name, "GET" if name == ":method" else value) for name, value in called(path)],
            [(name, "application/json" if name == "content-type" else value) for name, value in called(path)],
        )
        for headers in (*(called(path, *stranger) for stranger in STRANGERS), *odd):
            attacks.append(speak(port, [*headers, ("a2a-version", version)], message))  # noqa: PERF401
    await in_turn(attacks)
    return spy.begun, len(attacks)


async def spell_methods(port, spy, *headers):
    """Operations begun by any spelling of a method but the exact one; and how many were tried."""
    attacks = []
    for service, method, other, version, message in exact():
        for trick in METHOD_TRICKS:
            path = spell_method(trick, service, method, other)
            attacks.append(speak(port, called(path, ("a2a-version", version), *headers), message))
    await in_turn(attacks)
    return spy.begun, len(attacks)


async def test_no_method_is_served_to_a_stranger(grpc_port):
    """By its exact name, with whatever beside it; to who is known each is."""
    port, spy = await grpc_port()
    begun, tried = await call_unknown(port, spy)
    print(f"{tried} calls of strangers, {len(begun)} were served")
    assert begun == []
    for service, method, _, version, message in exact():
        await speak(port, called(f"/{service}/{method}", ("a2a-version", version), ("x-api-key", KEY)), message)
    assert len({name for name, _ in spy.begun}) == 11
    assert len(spy.begun) == 21


async def test_to_whoever_calls_they_would_be_served(grpc_port):
    """What that is worth: nobody looks who calls."""
    begun, _ = await call_unknown(*await grpc_port(anybody))
    assert len(begun) >= 21 * len(STRANGERS)


@pytest.mark.parametrize("headers", [(), (("x-api-key", KEY),)], ids=["nobody", "known"])
async def test_a_method_has_one_name(grpc_port, headers):
    """No other spelling is it, or any other method: not for strangers, nor for who is known."""
    begun, tried = await spell_methods(*await grpc_port(), *headers)
    print(f"{tried} spellings of methods, {len(begun)} were served")
    assert begun == []
    assert tried > 1_000


def tidy(path):
    """What somebody means who spells a path like this, perhaps."""
    path = unquote(path).replace("\\", "/").partition("#")[0].partition("?")[0].partition("\0")[0].strip(" \t/;.")
    return "/" + posixpath.normpath(path).lstrip("/")


async def test_if_methods_were_tidied_up_spellings_would_be_served(grpc_port, monkeypatch):
    """What that is worth."""
    real = grpc_server._Admitting.intercept_service

    async def tidied(self, go_on, call):
        return await real(self, go_on, type(call)(tidy(call.method), call.invocation_metadata))

    monkeypatch.setattr(grpc_server._Admitting, "intercept_service", tidied)
    begun, _ = await spell_methods(*await grpc_port(), ("x-api-key", KEY))
    assert len(begun) > 100


# -- HTTP ------------------------------------------------------------------------------------------------------------

OPEN = ("healthz", "readyz", ".well-known/agent-card.json")
SEND = rpc("SendMessage", {"message": MESSAGE})
BODIES = {
    "a2a": SEND, "rest/message:send": b'{"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}}',
    "v03/v1/message:send": b'{"request": {"messageId": "m", "role": "ROLE_USER", "content": [{"text": "x"}]}}',
    "rest/tasks": b"", "rest/extendedAgentCard": b"", "v03/v1/card": b"",
}  # fmt: skip
"""Closed paths, and what their operation takes."""
BEHIND = {"on_message_send", "on_list_tasks", "on_get_extended_agent_card"}
"""Those operations. (`rest/tasks/.` is another one, rightly: it asks for a task whose id is a dot.)"""


@pytest.fixture
async def http_port():
    """Serves both HTTP bindings over a spy, each app behind `wrap`; returns both."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(identify=with_the_key, wrap=lambda app: app):
            spy, app = Spy(), FastAPI(openapi_url=None)
            serve_on(app, spy, Door(identify), lambda: None, 100_000)
            server = http_server(wrap(app), Settings(app_id="shop"))
            return await stack.enter_async_context(serving(server)), spy

        yield start


async def ask(port, method, target, body, *headers):
    """One request whose target is written as it is."""
    lines = ["host: x", "connection: close", "content-type: application/json", f"content-length: {len(body)}", *headers]
    head = "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""])
    await exchange(port, head.encode("latin-1") + body)


def same(target, closed):
    """Whether a target is that path and no other, by what URLs are: its fragment, query and encoding aside."""
    path = target.removeprefix("http://127.0.0.1").partition("#")[0].partition("?")[0]
    return unquote(path) == f"/{closed}"


async def spell_paths(port, spy, *headers):
    """Operations begun, for no tenant, by spellings of closed paths that are other paths; and how many were tried."""
    attacks = []
    for closed, body in BODIES.items():
        version = "a2a-version: " + ("0.3" if closed.startswith("v03") else "1.0")
        for trick in TRICKS:
            for opened in OPEN:
                path = trick.format(open=opened, closed=closed, upper=closed.upper(), long=opened + "/" + "x" * 5_000,
                                    first=f"%{ord(closed[0]):x}{closed[1:]}")  # fmt: skip
                target = path if path.startswith("http:") else f"/{path}"
                if headers and same(target, closed):
                    continue
                method = "POST" if body else "GET"
                attacks.append(ask(port, method, target, body, version, *headers))
    await in_turn(attacks)
    return [name for name, tenant in spy.begun if name in BEHIND and not tenant], len(attacks)


async def test_no_path_is_served_to_a_stranger(http_port):
    """Spelled beside one that is open to all, or as it is; to who is known each is."""
    port, spy = await http_port()
    begun, tried = await spell_paths(port, spy)
    for closed, body in BODIES.items():
        for headers in (
            "x-api-key: guess",
            "dapr-caller-app-id: desk",
            "x-original-url: /healthz",
            "x-rewrite-url: /healthz",
            "x-forwarded-prefix: /healthz",
            "x-http-method-override: GET",
        ):
            await ask(port, "POST" if body else "GET", f"/{closed}", body, "a2a-version: 1.0", headers)  # fmt: skip
    print(f"{tried} spellings of paths by strangers, {len(spy.begun)} were served")
    assert spy.begun == begun == []
    assert tried > 500
    for closed, body in BODIES.items():
        version = "a2a-version: " + ("0.3" if closed.startswith("v03") else "1.0")
        await ask(port, "POST" if body else "GET", f"/{closed}", body, version, f"x-api-key: {KEY}")
    assert len(spy.begun) == len(BODIES)


async def test_to_whoever_asks_they_would_be_served(http_port):
    """What that is worth: nobody looks who asks."""
    assert len((await spell_paths(*await http_port(anybody)))[0]) > 50


async def test_a_path_is_no_other_path(http_port):
    """For who is known, too: what is checked is what is served."""
    begun, tried = await spell_paths(*await http_port(), f"x-api-key: {KEY}")
    print(f"{tried} spellings of paths, {len(begun)} were served as another")
    assert begun == []
    assert tried > 500


async def test_if_paths_were_tidied_up_spellings_would_be_served(http_port):
    """What that is worth."""

    def tidied(app):
        async def serve(scope, receive, send):
            if scope["type"] == "http":
                scope = {**scope, "path": tidy(scope["path"])}
            await app(scope, receive, send)

        return serve

    assert len((await spell_paths(*await http_port(wrap=tidied), f"x-api-key: {KEY}"))[0]) > 50
