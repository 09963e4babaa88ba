"""Connections that strangers hold open: how long each is waited for, and how many there may be."""

import asyncio
import contextlib
import socket
import ssl
import time

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from sidecard.connections import GATHERED_BYTES, STRANGERS, GatheredWrites, Handshakes, Patience, proven
from sidecard.http_server import http_server, served_over_tls
from sidecard.settings import Settings
from tests.listening import end_of, exchange, serving
from tests.sidecard.authority import Authority

QUICK = Patience(head=0.3, body=0.3, write=0.3)
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
KNOWN = b"GET /known HTTP/1.1\r\nhost: x\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"
MUCH = 16_000_000


class App:
    """Answers at once, slowly, much, with the whole body; a caller of /known is known."""

    def __init__(self):
        self.finished = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return
        answer: Response = PlainTextResponse("in")
        if scope["path"] == "/known":
            proven(scope)
        elif scope["path"] == "/slow":
            await asyncio.sleep(3 * QUICK.head)
        elif scope["path"] == "/much":
            answer = Response(b"x" * MUCH)
        elif scope["path"] == "/body":
            while (await receive()).get("more_body"):
                pass
            answer = JSONResponse("all")
        await answer(scope, receive, send)
        self.finished += 1


@pytest.fixture
async def serve():
    """Serves App with these settings, patient for 0.3 s; returns the port."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(patience=QUICK, **settings):
            server = http_server(App(), Settings(app_id="shop", **settings), patience)
            return await stack.enter_async_context(serving(server))

        yield start


async def drip(port, first, drop, pause=0.05):
    """Sends `first`, then `drop` again and again; how long the server bore it, in seconds, 2 at most."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    closed = asyncio.ensure_future(end_of(reader))
    with contextlib.suppress(ConnectionError):
        writer.write(first)
        while not closed.done() and time.monotonic() < began + 2:
            writer.write(drop)
            await writer.drain()
            await asyncio.wait([closed], timeout=pause)
    closed.cancel()
    writer.close()
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\n", b"x: y\r\n"),
        (b"G", b""),
        (GET, b""),
        (GET + b"GET / HTTP/1.1\r\n", b"x: y\r\n"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n", b"x"),
        (b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n", b"x"),
        (b"POST /body HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["nothing", "headers", "half a word", "a request", "a second head", "body of none", "body", "chunks"],
)
async def test_who_keeps_us_waiting_is_cut(serve, first, drop):
    """Whatever part of a request it is that does not come."""
    assert await drip(await serve(), first, drop) < 1.5


async def test_without_patience_s_end_it_is_borne(serve):
    """What the test above is worth."""
    assert await drip(await serve(Patience(head=60)), b"GET / HTTP/1.1\r\n", b"x: y\r\n") > 1.9


async def test_who_waits_for_us_is_not_cut(serve):
    """However long an answer takes; nor who sends one request after the other."""
    port = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(SLOW)
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\nin")
    for _ in range(6):
        writer.write(GET)
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\nin")
        await asyncio.sleep(QUICK.head / 3)
    writer.close()


async def test_who_reads_nothing_is_cut(serve):
    """What was to be sent is let go; who reads slowly gets all of it."""
    port = await serve()
    for pause, whole in ((1.5, False), (0.02, True)):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
        writer.write(b"GET /much HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        got = 0
        with contextlib.suppress(ConnectionError):
            await asyncio.sleep(pause)
            while chunk := await reader.read(400_000):
                got += len(chunk)
                await asyncio.sleep(0.01 if whole else 0)
        assert (got >= MUCH) is whole
        writer.close()


async def test_strangers_cannot_bar_the_door(serve):
    """Those that only stand there make room, the oldest first, for whoever comes and asks something."""
    port = await serve(Patience(head=60), connections=16)  # two places for strangers
    standing = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET)
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\nin")
    assert [await end_of(reader) for reader, _ in standing[:10]] == [b""] * 10
    for _, other in [*standing, (reader, writer)]:
        other.close()


async def test_who_is_known_is_not_cut_for_strangers(serve):
    """The own sidecar keeps its connections."""
    port = await serve(Patience(head=60), connections=16)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(KNOWN)
    await reader.readuntil(b"\r\n\r\nin")
    standing = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
    assert await end_of(standing[9][0]) == b""
    writer.write(GET)
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\nin")
    for _, other in [*standing, (reader, writer)]:
        other.close()


async def test_there_is_an_end_to_all_connections(serve):
    """Callers that are known can't take every descriptor either; when one leaves, there is room again."""
    port = await serve(Patience(head=60), connections=16)
    known = []
    for _ in range(16):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(KNOWN)
        await reader.readuntil(b"\r\n\r\nin")
        known.append((reader, writer))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await end_of(reader) == b""
    writer.close()
    known.pop()[1].close()
    async with asyncio.timeout(10):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                assert b"200 OK" in await reader.readuntil(b"\r\n\r\nin")
                break
    for _, other in [*known, (reader, writer)]:
        other.close()


async def test_nobody_speaks_websocket_here(serve):
    """Such a connection would have left these bounds: the request is answered as any other."""
    asked = (
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert b"101" not in (await exchange(await serve(), asked)).split(b"\r\n")[0]


@pytest.fixture
async def over_tls(tmp_path):
    """Serves App over TLS with these settings; returns the port, and the context of a client."""
    authority = Authority(tmp_path)
    files = authority.server()
    tls = {"tls_certificate": files.certificate, "tls_key": files.key}
    async with contextlib.AsyncExitStack() as stack:

        async def start(patience=QUICK, **settings):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            settings = Settings(app_id="shop", tls_port=port, **tls, **settings)
            await stack.enter_async_context(served_over_tls(App(), settings, patience))
            return port, ssl.create_default_context(cafile=str(authority.file))

        yield start


async def silent(port, calls=16):
    """How many connections somebody keeps who never begins a handshake."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(calls)]
    ends = [asyncio.ensure_future(end_of(reader)) for reader, _ in opened]
    _, kept = await asyncio.wait(ends, timeout=1.5)
    for _, writer in opened:
        writer.close()
    await asyncio.wait(ends)
    return len(kept)


async def test_a_handshake_is_not_waited_for_long(over_tls):
    """Ten seconds, unless told otherwise; asyncio's own minute is for friends."""
    port, _ = await over_tls(Patience(handshake=0.3, head=60))
    assert await silent(port) == 0
    assert Patience().handshake == 10


async def test_without_their_end_handshakes_are_borne(over_tls):
    """What the test above is worth."""
    port, _ = await over_tls(Patience(handshake=60, head=0.3))
    assert await silent(port) == 16


async def test_there_is_an_end_to_handshakes_under_way(over_tls):
    """As many as there are places for strangers; the oldest makes room, so that whoever goes on is served."""
    port, context = await over_tls(Patience(handshake=60), connections=16)
    assert await silent(port) == 16 // STRANGERS
    standing = [await asyncio.open_connection("127.0.0.1", port) for _ in range(16)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(GET)
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\nin")
    for _, other in [*standing, (reader, writer)]:
        other.close()


async def test_without_a_bound_they_are_all_borne(over_tls, monkeypatch):
    """What the test above is worth: nobody counts."""
    begin = Handshakes.__init__
    monkeypatch.setattr(Handshakes, "__init__", lambda self, one, other, _, last: begin(self, one, other, 8_192, last))
    port, _ = await over_tls(Patience(handshake=60), connections=16)
    assert await silent(port) == 16


async def test_a_handshake_that_fails_disturbs_nobody(over_tls, caplog):
    """Whoever speaks something else, or goes away, is let go without a word; others are served."""
    port, context = await over_tls()
    await exchange(port, GET)
    (await asyncio.open_connection("127.0.0.1", port))[1].close()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(GET)
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\nin")
    writer.close()
    assert not caplog.records


class Transport:
    """What a connection has sent."""

    def __init__(self):
        self.sent = []
        self.ended = ""

    def write(self, data):
        assert not self.ended
        self.sent.append(data)

    def close(self):
        self.ended = "closed"

    def abort(self):
        self.ended = "aborted"

    def is_closing(self):
        return bool(self.ended)


async def test_what_is_written_in_one_turn_is_sent_together():
    """In order, and without waiting for more; the next turn's is another."""
    transport = Transport()
    gathered = GatheredWrites(transport)
    gathered.write(b"head ")
    gathered.write(b"body")
    assert transport.sent == []
    await asyncio.sleep(0)
    assert transport.sent == [b"head body"]
    gathered.write(b"more")
    gathered.flush()
    await asyncio.sleep(0)
    assert transport.sent == [b"head body", b"more"]


async def test_much_is_sent_at_once():
    """So that a slow reader's buffer fills, and whoever writes waits for it."""
    transport = Transport()
    gathered = GatheredWrites(transport)
    for _ in range(3):
        gathered.write(b"x" * (GATHERED_BYTES // 2))
    assert transport.sent == [b"x" * GATHERED_BYTES]


async def test_what_is_gathered_is_sent_before_the_end_and_nothing_after_it():
    """An aborted connection sends nothing more."""
    closed, aborted, lost = Transport(), Transport(), Transport()
    for transport in closed, aborted, lost:
        gathered = GatheredWrites(transport)
        gathered.write(b"last words")
        if transport is closed:
            gathered.close()
        elif transport is aborted:
            gathered.abort()
        else:
            transport.ended = "lost"
        assert gathered.is_closing()
    await asyncio.sleep(0)
    assert (closed.sent, aborted.sent, lost.sent) == ([b"last words"], [], [])


async def test_an_answer_is_sent_in_one_piece(serve):
    """Its head does not travel before its body."""
    port = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET)
    answer = await reader.read(1_000)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"\r\n\r\nin")
    writer.close()
