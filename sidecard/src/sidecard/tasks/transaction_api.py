"""Dapr's HTTP API of state transactions, for those that are written all the time.

A small transaction costs this process a third of what it costs over grpc.aio, whose every call goes through a thread of
its own, and its caller waits a millisecond less (docs/performance.md). A large one is better off over gRPC: JSON costs.
"""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from typing import cast

import httptools
from pydantic_core import to_json

from sidecard.errors import StoreUnavailable, TaskConflict

KEPT_OPEN = 4
"""Connections that wait for the next transaction. A replica's journal needs one; a sign of life may come meanwhile."""
_QUOTE = b'"'

Answer = tuple[int, bytes]
"""HTTP's status, and the body."""


class TransactionApi:
    """One component's transactions, over connections that stay open; each has one to itself while it is answered."""

    def __init__(self, *, port: int, token: str, component: str) -> None:
        """`port` is the sidecar's HTTP port on this machine, `token` what its API takes."""
        self._port = port
        head = f"POST /v1.0/state/{component}/transaction HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        head += f"dapr-api-token: {token}\r\nContent-Type: application/json\r\nContent-Length: "
        self._head = head.encode("latin-1")
        self._idle: list[_Connection] = []

    async def write(
        self,
        creates: Sequence[tuple[str, bytes]],
        upserts: Mapping[str, bytes],
        deletes: Sequence[str],
        *,
        seconds: float,
    ) -> None:
        """See StateStore.write; its outcome is not known either when no answer comes within so many `seconds`."""
        operations = [_upsert(key, value, "first-write") for key, value in sorted(creates)]
        operations += [_upsert(key, upserts[key], "last-write") for key in sorted(upserts)]
        operations += [{"operation": "delete", "request": {"key": key}} for key in sorted(deletes)]
        body = to_json({"operations": operations})
        status, said = await self._ask(b"%b%d\r\n\r\n%b" % (self._head, len(body), body), seconds)
        if status == 204:  # noqa: PLR2004
            return
        words = said[:1_000].decode("utf-8", "replace")
        if creates and status == 500:  # noqa: PLR2004 -- what it says when a key is taken, and of much else
            raise TaskConflict(f"the state store refused a write: {words}")
        raise StoreUnavailable(f"the state store does not answer (HTTP {status}): {words}")

    def close(self) -> None:
        """Close the connections."""
        for connection in self._idle:
            connection.cut()

    async def _ask(self, request: bytes, seconds: float) -> Answer:
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(seconds):
                connection = await self._connection()
                return await connection.ask(request)
        except TimeoutError:
            raise StoreUnavailable(f"the sidecar does not answer within {seconds:g} s") from None
        except OSError as error:
            raise StoreUnavailable(f"the sidecar does not answer: {error}") from error
        finally:
            if connection is not None:
                self._put_back(connection)

    async def _connection(self) -> "_Connection":
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", self._port)
        return connection

    def _put_back(self, connection: "_Connection") -> None:
        """Keep it for the next one, unless an answer may still come on it."""
        if connection.open and not connection.asked and len(self._idle) < KEPT_OPEN:
            self._idle.append(connection)
        else:
            connection.cut()


def packed(value: bytes) -> bytes:
    """A value as the HTTP API has the component store it: JSON, whose strings have no place for bytes."""
    return _QUOTE + base64.b64encode(value) + _QUOTE


def unpacked(stored: bytes) -> bytes:
    """The value of what is stored, whichever API it went through.

    What goes through gRPC is stored as it is, so what begins like this must be `packed` there.
    """
    return base64.b64decode(stored) if looks_packed(stored) else stored


def looks_packed(value: bytes) -> bool:
    """Whether `unpacked` would take it for packed."""
    return value[:1] == _QUOTE


def _upsert(key: str, value: bytes, concurrency: str) -> dict[str, object]:
    options = {"concurrency": concurrency, "consistency": "strong"}
    text = base64.b64encode(value).decode("ascii")
    return {"operation": "upsert", "request": {"key": key, "value": text, "options": options}}


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection, on which one request is under way at most."""

    def __init__(self) -> None:
        self.open = False
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._answer: asyncio.Future[Answer] | None = None

    @property
    def asked(self) -> bool:
        """Whether an answer is yet to come."""
        return self._answer is not None

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a request; its answer, or OSError when the connection ends before."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def cut(self) -> None:
        """End it now."""
        self._transport.abort()

    # -- what asyncio and httptools tell ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.open = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.cut()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        answer, self._answer = self._answer, None
        body, self._body = self._body, b""
        self.open = self.open and self._parser.should_keep_alive()
        if answer is not None and not answer.done():
            answer.set_result((self._parser.get_status_code(), body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the connection broke") if exc is None else exc)
