"""Requests that would cost an agent its memory or time: what each costs is bounded, and others are served meanwhile.

The agent is a process of its own, whose memory is looked at from outside. What each bound is worth is seen where the
same is sent to an agent that does without it.
"""

import contextlib
import functools
import gzip
import json
import socket
import subprocess
import sys
import threading
import time

import grpc
import httpx
import psutil
import pytest
from a2a.types import Message, Part, Role, SendMessageRequest
from a2a.types.a2a_pb2_grpc import A2AServiceStub

from chaos.servers import ROOT, free_ports

LIMIT = 4_194_304
MEGABYTE = 1 << 20
MOST_GROWTH = 160 * MEGABYTE
HEADERS = {"content-type": "application/json", "a2a-version": "1.0", "x-api-key": "ada's key"}
PROGRAM = """
import asyncio, sys
exec(sys.argv[4], {})
from sidecard import Agent, Task
from sidecard.connections import Patience
from sidecard.http_server import http_server
from sidecard.settings import Settings
from sidecard.testing import MemoryStore, served

agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")

@agent.skill(scope="look", idempotent=True)
async def look(text: str, task: Task) -> str:
    \"\"\"Look.\"\"\"
    return text[:5]

async def main(port, connections, head):
    callers = {"ada": {"api_key": True, "grants": {"shop": ["look"]}}}
    async with served(agent, MemoryStore(), callers) as desk:
        settings = Settings(app_id="shop", app_port=port, connections=connections)
        server = http_server(desk.app, settings, Patience(head=head))
        server.config.lifespan = "off"
        print(desk.grpc_target, flush=True)
        await server.serve()

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
"""
ANY_BODY = """
from sidecard.testing import served_agent
serve_on = served_agent.serve_on
served_agent.serve_on = lambda app, handler, door, card, _, **more: serve_on(app, handler, door, card, 1 << 30, **more)
"""
ANY_HEAD = "import sidecard.http_server as served; served.MAX_HEAD_BYTES = 1 << 30"
ANY_VALUES = "from sidecard.tasks import checks; checks.check_content = lambda _: None"


ANY_JSON = """
import json
from sidecard import strict_json
from sidecard.tasks import checks
strict_json.read_json = lambda body: json.loads(body)
checks.check_content = lambda _: None
"""
UNPACKING = """
import zlib
from sidecard import edge
from sidecard.testing import served_agent

class Unpacked:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        packed = dict(scope.get("headers", ())).get(b"content-encoding")
        body, more = b"", bool(packed)
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if packed:
            body = zlib.decompressobj(47).decompress(body)
            kept = [pair for pair in scope["headers"] if pair[0] not in {b"content-encoding", b"content-length"}]
            scope = {**scope, "headers": kept}

        async def whole():
            return {"type": "http.request", "body": body}

        await self.app(scope, whole if packed else receive, send)

serve_on = served_agent.serve_on

def unpacking(app, *given, **more):
    serve_on(app, *given, **more)
    app.add_middleware(Unpacked)

served_agent.serve_on = unpacking
"""


class Served:
    """An agent in a process of its own; `off` is a program that takes a guard away before it starts."""

    def __init__(self, connections=256, head=2.0, off=""):
        [self.port] = free_ports(1)
        command = [sys.executable, "-c", PROGRAM, *map(str, (self.port, connections, head)), off]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.grpc_target = self.process.stdout.readline().strip()
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers=HEADERS, timeout=60, verify=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                self.serves()
                return
        self.stop()
        raise TimeoutError("the agent does not start")

    @property
    def memory(self):
        """Bytes that it holds now."""
        return psutil.Process(self.process.pid).memory_info().rss

    def serves(self):
        """Seconds that somebody else's small request takes."""
        began = time.monotonic()
        answer = self.post(rpc("the same as always", parts=[{"text": "hat"}]))
        assert answer.json()["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
        return time.monotonic() - began

    def post(self, body, path="/a2a", **headers):
        """The answer to one request on a connection of its own."""
        return self.client.post(path, content=body, headers=headers)

    def stop(self):
        """End it."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.client.close()


@pytest.fixture(scope="module")
def shop():
    shop = Served()
    yield shop
    shop.stop()


def rpc(message_id="m1", **message):
    params = {"message": {"messageId": message_id, "role": "ROLE_USER", **message}}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}).encode()


def nested(depth, opening="[", closing="]"):
    return rpc(parts=[{"data": "DEEP"}]).replace(b'"DEEP"', (opening * depth + "1" + closing * depth).encode())


COSTLY = {
    "4 MB of text": lambda: rpc(parts=[{"text": "x" * (LIMIT - 300)}]),
    "a byte too much": lambda: rpc(parts=[{"text": "x" * LIMIT}]),
    "64 MB": lambda: rpc(parts=[{"text": "x" * 64 * MEGABYTE}]),
    "100,000 parts": lambda: rpc(parts=[{"text": ""}] * 100_000),
    "100,000 empty parts": lambda: rpc(parts=[{}] * 100_000),
    "a million zeros": lambda: rpc(parts=[{"data": [0] * 1_000_000}]),
    "a million keys": lambda: rpc(parts=[{"data": {str(n): 0 for n in range(300_000)}}]),
    "one key a million times": lambda: b'{"jsonrpc":"2.0","params":{' + b'"a":1,' * 600_000 + b'"a":1}}',
    "a hundred deep": lambda: nested(100),
    "a million deep": lambda: nested(1_000_000),
    "objects, 100,000 deep": lambda: nested(100_000, '{"a":', "}"),
    "unclosed": lambda: b"[" * 4_000_000,
    "a number of 4 MB": lambda: rpc(parts=[{"data": "N"}]).replace(b'"N"', b"9" * 4_000_000),
    "an exponent": lambda: rpc(parts=[{"data": "N"}]).replace(b'"N"', b"1e" + b"9" * 400_000),
    "no UTF-8": lambda: rpc(parts=[{"text": "X"}]).replace(b"X", b"\xff" * 4_000_000),
    "half a surrogate": lambda: rpc(parts=[{"text": "X"}]).replace(b"X", b"\\ud800" * 600_000),
    "escapes": lambda: rpc(parts=[{"text": "X"}]).replace(b"X", b"\\u0000" * 600_000),
    "NUL": lambda: b"\0" * 4_000_000,
    "blanks": lambda: b" " * 4_000_000,
    "a messageId of 4 MB": lambda: rpc("m" * 4_000_000, parts=[{"text": "x"}]),
    "a million references": lambda: rpc(parts=[{"text": "x"}], referenceTaskIds=["x"] * 800_000),
    "metadata": lambda: rpc(parts=[{"text": "x"}], metadata={"a": ["b"] * 700_000}),
}


def worst_of(shop, send):
    """The answers to what is sent, the most memory that it costs meanwhile, and the longest that others wait."""
    before, waits, held, done = shop.memory, [0.0], [0], threading.Event()

    def others():
        while not done.is_set():
            waits.append(shop.serves())

    def look():
        while not done.wait(0.01):
            held.append(shop.memory - before)

    watching = [threading.Thread(target=others), threading.Thread(target=look)]
    for one in watching:
        one.start()
    try:
        answers = send()
    finally:
        done.set()
        for one in watching:
            one.join()
    return answers, max(held), max(waits)


FAULTLESS = {"4 MB of text"}
"""Those of them that are asked for nothing but work."""


def test_no_body_costs_memory_or_time(shop):
    """Oversize, deep, many, broken: each is answered as the caller's fault, or done, three times over."""
    longest, most = 0.0, 0
    for name, make in COSTLY.items():
        body = make()
        answers, cost, wait = worst_of(shop, lambda body=body: [_sent(shop, body) for _ in range(3)])
        longest, most = max(longest, wait), max(most, cost)
        assert set(answers) <= ({"taken"} if name in FAULTLESS else {"refused", "cut off"}), (name, answers)
        assert wait < 10, name
    print(f"{len(COSTLY)} costly bodies, three times each: {most / MEGABYTE:.0f} MB, others waited {longest:.2f} s")
    assert most < MOST_GROWTH


def _sent(shop, body):
    """What becomes of a body: taken, refused, failed, or cut off while it was still being sent."""
    try:
        answer = shop.post(body)
    except httpx.HTTPError:
        return "cut off"
    if answer.status_code >= 500 or "-32603" in answer.text:
        return "failed"
    return "refused" if "error" in answer.json() else "taken"


@functools.cache
def bomb():
    """What unpacks to a hundred and more megabytes."""
    return gzip.compress(b"[" + b"0," * (64 * MEGABYTE) + b"0]", 1)[:1_000_000]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip", "GZIP"])
def test_a_compressed_body_is_not_unpacked(shop, encoding):
    """A bomb of a thousand times its size is refused as it is."""
    answers, grown, _ = worst_of(shop, lambda: [shop.post(bomb(), **{"content-encoding": encoding}) for _ in range(3)])
    assert grown < MOST_GROWTH / 4
    assert all(answer.status_code in {200, 400, 415} and "error" in answer.json() for answer in answers)
    plain = rpc("said to be packed", parts=[{"text": "hat"}])  # would be served, were its encoding not looked at
    assert "Compressed requests are not taken" in shop.post(plain, **{"content-encoding": encoding}).text


def send_parts(shop):
    """How many of three messages of a hundred thousand parts are taken over gRPC."""
    message = Message(message_id="m1", role=Role.ROLE_USER, parts=[Part(text="x")] * 100_000)
    metadata, taken = (("x-api-key", "ada's key"), ("a2a-version", "1.0")), 0
    with grpc.insecure_channel(shop.grpc_target) as channel:
        for _ in range(3):
            try:
                A2AServiceStub(channel).SendMessage(SendMessageRequest(message=message), metadata=metadata)
                taken += 1
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.INVALID_ARGUMENT:
                    raise
    return taken


def test_many_parts_over_grpc_cost_no_more(shop):
    """Protobuf packs a hundred thousand parts into little; so does the check that counts them before they are read."""
    taken, grown, wait = worst_of(shop, lambda: send_parts(shop))
    print(f"100,000 parts over gRPC: {grown / MEGABYTE:.0f} MB, others waited {wait:.2f} s")
    assert taken == 0
    assert grown < MOST_GROWTH
    assert wait < 10


POST = b"POST /a2a HTTP/1.1\r\nhost: x\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
HEADS = {
    "100,000 headers": b"GET /a2a HTTP/1.1\r\n" + b"a: b\r\n" * 100_000 + b"\r\n",
    "a header of 10 MB": b"GET /a2a HTTP/1.1\r\na: " + b"b" * 10_000_000 + b"\r\n\r\n",
    "a path of 10 MB": b"GET /" + b"a" * 10_000_000 + b" HTTP/1.1\r\n\r\n",
    "a method of 10 MB": b"A" * 10_000_000,
    "a query of 60 KB": b"GET /rest/tasks?" + b"a=b&" * 15_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "headers behind chunks": CHUNKED + b"0\r\n" + b"a: b\r\n" * 100_000,
    "a chunk of many digits": b"POST /a2a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"0" * 10_000_000,
    "a chunk's extension": CHUNKED + b"1;" + b"a" * 10_000_000,
    "two lengths": POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "a length and chunks": POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
}


def test_no_head_costs_memory(shop):
    """Without end, or framed in two ways: the connection is over, and nothing of it is kept."""
    before = shop.memory
    for head in HEADS.values():
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", shop.port), timeout=10) as raw, contextlib.suppress(OSError):
                raw.sendall(head)
                raw.shutdown(socket.SHUT_WR)
                assert not raw.recv(4_096).startswith((b"HTTP/1.1 2", b"HTTP/1.1 5"))
    grown = shop.memory - before
    print(f"{len(HEADS)} heads, three times each: {grown / MEGABYTE:.0f} MB kept")
    assert grown < MOST_GROWTH / 4
    assert shop.serves() < 5


def send_endless(shop, most=64 * MEGABYTE):
    """Bytes of a head without end that are taken before the connection is over, of so many that are sent."""
    taken, more = 0, b"a: " + b"b" * 65_531 + b"\r\n"
    with socket.create_connection(("127.0.0.1", shop.port), timeout=10) as raw, contextlib.suppress(OSError):
        raw.sendall(b"GET /a2a HTTP/1.1\r\n")
        while taken < most:
            raw.sendall(more)
            taken += len(more)
    return taken


def test_a_head_without_end_is_cut_off(shop):
    """What is taken of it is what the system's own buffers take."""
    taken, grown, _ = worst_of(shop, lambda: send_endless(shop))
    print(f"a head of 64 MB: {taken / MEGABYTE:.1f} MB were taken, {grown / MEGABYTE:.0f} MB held")
    assert taken < 32 * MEGABYTE
    assert grown < MOST_GROWTH / 4


def flood(shop, count, say, pause=0.0):
    """Opens connections that say this and then nothing; how many there are at the end, and how long others waited."""
    held, longest = [], 0.0
    try:
        for number in range(count):
            with contextlib.suppress(OSError):
                raw = socket.create_connection(("127.0.0.1", shop.port), timeout=5)
                held.append(raw)
                raw.sendall(say)
            if number % (count // 8) == 0:
                longest = max(longest, shop.serves())
        longest = max(longest, shop.serves())
        time.sleep(pause)
        open_now = len(
            [c for c in psutil.Process(shop.process.pid).net_connections("tcp") if c.status == "ESTABLISHED"]
        )
        return open_now, longest
    finally:
        for raw in held:
            raw.close()


SLOW = b"GET /a2a HTTP/1.1\r\nhost: x\r\nx: "


@pytest.mark.parametrize("say", [b"", SLOW], ids=["silent", "slow headers"])
def test_a_flood_of_connections_shuts_nobody_out(shop, say):
    """Of 1,500 that keep an agent waiting 32 have a place, a caller with a key is served at once, and all are cut."""
    held, waited = flood(shop, 1_500, say)
    left, _ = flood(shop, 8, say, pause=5.0)
    print(f"1,500 connections: {held} held, a caller waited {waited:.2f} s; {left} left when their time was over")
    assert held < 64
    assert waited < 5
    assert left < 4  # of 8 that are alone, and so bar nobody's way


@contextlib.contextmanager
def generous(**given):
    """An agent that does without a bound."""
    shop = Served(**given)
    try:
        yield shop
    finally:
        shop.stop()


def test_without_places_a_flood_is_held():
    """What that is worth: the same, where there are places for all."""
    with generous(connections=100_000, head=600) as shop:
        assert flood(shop, 1_500, SLOW)[0] > 1_000


def test_without_patience_bounded_slow_heads_are_held():
    """And a few of them, for which there are places, where they may take their time."""
    with generous(head=600) as shop:
        assert flood(shop, 8, SLOW, pause=5.0)[0] >= 8


def test_without_a_limit_memory_grows():
    """And the same body, where one of any size is read."""
    with generous(off=ANY_BODY) as shop:
        _, grown, _ = worst_of(shop, lambda: shop.post(COSTLY["64 MB"]()))
        assert grown > MOST_GROWTH


def test_without_a_limit_a_head_is_kept():
    """And the same head."""
    with generous(off=ANY_HEAD) as shop:
        taken, grown, _ = worst_of(shop, lambda: send_endless(shop))
        assert taken >= 64 * MEGABYTE
        assert grown > MOST_GROWTH / 4


def test_without_strict_reading_what_is_broken_gets_in():
    """And the same bodies, where whatever Python takes for JSON is read: each is taken, or fails in our own code."""
    with generous(off=ANY_JSON) as shop:
        for name in ("100,000 parts", "no UTF-8", "a million deep"):
            assert _sent(shop, COSTLY[name]()) in {"taken", "failed"}, name


def test_where_bodies_are_unpacked_a_bomb_takes_memory():
    """And the same bomb, where somebody before us means well."""
    with generous(off=UNPACKING) as shop:
        _, grown, _ = worst_of(shop, lambda: shop.post(bomb(), **{"content-encoding": "gzip"}))
        assert grown > MOST_GROWTH / 4


def test_without_the_count_many_parts_are_taken():
    """And the same parts."""
    with generous(off=ANY_VALUES) as shop:
        assert send_parts(shop) == 3
