"""The load tool: callers on keep-alive connections, each with one request at a time. A process of its own.

`python -m bench.load` reads an Order as JSON from standard input and prints a Seen as JSON. Bodies are made ahead and
answers are only looked through, so that it takes little of the machine that it shares with what it measures.
"""

import asyncio
import itertools
import json
import secrets
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import cast

import uvloop

HEAD_END = b"\r\n\r\n"
STREAM_END = b"0\r\n\r\n"
EVENT = b"\ndata: "
CHUNK = b"chunk "


class Wrong(Exception):
    """The other side answered something else than expected: what is measured then means nothing."""


@dataclass
class Order:
    """What to do: `callers` at once against http://127.0.0.1:`port``path`, until `seconds` are over or `count` done.

    `method` is SendMessage, SendStreamingMessage or ListTasks, or "" for a bare POST of `text`; `text` is what the
    message says; `expect` must be in each answer, as must that many `chunks`; `tenant` is where it is sent.
    """

    port: int
    method: str = "SendMessage"
    path: str = "/a2a"
    headers: dict[str, str] = field(default_factory=dict)
    callers: int = 1
    seconds: float = 1.0
    count: int = 0
    warm_up: int = 5
    text: str = "hello"
    expect: str = "TASK_STATE_COMPLETED"
    chunks: int = 0
    tenant: str = ""


@dataclass
class Seen:
    """What came of it: requests per second, their p50 and p99 in ms; of streams, events each and p50 of the first."""

    done: int
    per_second: float
    p50_ms: float
    p99_ms: float
    events: float
    first_p50_ms: float


class Caller(asyncio.Protocol):
    """One connection, with one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._received = bytearray()
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.first = 0.0

    def data_received(self, data: bytes) -> None:
        """A piece of the answer."""
        received = self._received
        received += data
        head = received.find(HEAD_END)
        if head < 0:
            return
        begin = head + len(HEAD_END)
        if not self.first and received.find(EVENT, begin) >= 0:
            self.first = time.perf_counter()
        at = received[:head].lower().find(b"content-length: ")  # daprd writes what it says itself in capitals
        if at >= 0:
            complete = len(received) - begin >= int(received[at + 16 : received.index(b"\r", at)])
        else:
            complete = received.endswith(STREAM_END)
        if complete and not self._answer.done():
            self._answer.set_result(bytes(received))

    def connection_lost(self, error: Exception | None) -> None:
        """Too early, if somebody still waits."""
        if not self._answer.done():
            self._answer.set_exception(Wrong(f"the connection was lost ({error}): {bytes(self._received[:300])!r}"))

    def send(self, request: bytes) -> asyncio.Future[bytes]:
        """Send a request. The future is its answer, head and body; `first` is when its first event came."""
        self._received.clear()
        self._answer = asyncio.get_running_loop().create_future()
        self.first = 0.0
        self._transport.write(request)
        return self._answer


def requests(order: Order) -> Iterator[bytes]:
    """Requests, each with a messageId of its own."""
    headers = {"host": "127.0.0.1", "content-type": "application/json", "a2a-version": "1.0", **order.headers}
    head = f"POST {order.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    run = secrets.token_hex(6)
    for number in itertools.count():
        params: dict[str, object] = {}
        if order.method != "ListTasks":
            parts = [{"text": order.text, "mediaType": "text/plain"}]
            params = {"message": {"messageId": f"{run}-{number}", "role": "ROLE_USER", "parts": parts}}
        if order.tenant:
            params["tenant"] = order.tenant
        call = {"jsonrpc": "2.0", "id": number, "method": order.method, "params": params}
        body = json.dumps(call).encode() if order.method else order.text.encode()
        yield f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def run(order: Order) -> Seen:
    """Do it. Raises Wrong."""
    made, expect = requests(order), order.expect.encode()
    took: list[float] = []
    firsts: list[float] = []
    events = 0
    began = ended = 0.0

    async def call(left: Iterator[object]) -> None:
        nonlocal events, ended
        _, caller = await asyncio.get_running_loop().create_connection(Caller, "127.0.0.1", order.port)
        for _ in left:
            request = next(made)
            sent = time.perf_counter()
            answer = await caller.send(request)
            ended = time.perf_counter()
            if expect not in answer or answer.count(CHUNK) < order.chunks:
                raise Wrong(f"unexpected answer: {answer[:1_000]!r}")
            took.append(ended - sent)
            if caller.first:
                firsts.append(caller.first - sent)
                events += answer.count(EVENT)

    def until() -> Iterator[None]:
        while time.perf_counter() - began < order.seconds:
            yield

    await call(iter(range(order.warm_up)))
    took.clear()
    firsts.clear()
    events, began = 0, time.perf_counter()
    left = iter(range(order.count))
    await asyncio.gather(*(call(left if order.count else until()) for _ in range(order.callers)))
    seconds = ended - began
    return Seen(
        done=len(took),
        per_second=len(took) / seconds,
        p50_ms=statistics.median(took) * 1_000,
        p99_ms=sorted(took)[len(took) * 99 // 100] * 1_000,
        events=events / len(took),
        first_p50_ms=statistics.median(firsts) * 1_000 if firsts else 0.0,
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(uvloop.run(run(Order(**json.load(sys.stdin)))))))
