"""Connections that strangers hold open: how long each may keep this process waiting, and how many there may be.

A server that waits for ever for a request's next byte, or keeps every connection that anybody opens, is out of memory
and of descriptors whenever somebody likes. Whoever is verified once on a connection is a stranger there no more.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger("sidecard")

STRANGERS = 8
"""One place in so many is for strangers; the rest waits for callers that are known, above all the own sidecar."""
ACCEPT_AGAIN_SECONDS = 1.0
"""How long nobody is let in when this machine can't take one more connection."""
GATHERED_BYTES = 16_384
_PROVEN = "sidecard.proven"


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a connection may keep us waiting."""

    handshake: float = 10.0
    """For TLS to be agreed on, before anything else is said."""
    head: float = 10.0
    """For a request line and headers: from its beginning, or from the end of the answer before."""
    body: float = 75.0
    """For a request's body. The A2A bindings give up earlier, with an answer (see `edge`)."""
    write: float = 60.0
    """For a client to read any of what it asked for."""


@dataclass
class Places:
    """The connections of one server: `most` in all, and of those that nobody is known on one in STRANGERS.

    When a stranger comes and all places for strangers are taken, the oldest of them that keeps us waiting has to go:
    so nobody bars the door by standing in it, and who sends a request at once is served.
    """

    most: int
    _taken: set["BoundedConnection"] = field(default_factory=set)
    _strangers: dict["BoundedConnection", None] = field(default_factory=dict)

    def take(self, connection: "BoundedConnection") -> bool:
        """Whether there is room for one more; room may be made by cutting another."""
        if len(self._taken) >= self.most:
            return False
        if len(self._strangers) >= max(1, self.most // STRANGERS):
            oldest = next((one for one in self._strangers if one.waits), None)
            if oldest is None:
                return False
            self.leave(oldest)
            oldest.cut()
        self._taken.add(connection)
        self._strangers[connection] = None
        return True

    def prove(self, connection: "BoundedConnection") -> None:
        """A verified caller uses it."""
        self._strangers.pop(connection, None)

    def leave(self, connection: "BoundedConnection") -> None:
        """It is gone."""
        self._taken.discard(connection)
        self._strangers.pop(connection, None)


class Handshakes:
    """Agrees on TLS with whoever connects, before they are anybody's connection: with as many at once as are strangers.

    When one more comes, the oldest of them has to go, as in Places. By itself asyncio takes any number, and waits a
    minute for each.
    """

    def __init__(
        self, context: ssl.SSLContext, protocol: Callable[[], asyncio.Protocol], connections: int, patience: Patience
    ) -> None:
        """`protocol` makes what speaks when a handshake is done; `connections` is how many the server takes in all."""
        self._context, self._protocol, self._patience = context, protocol, patience
        self._most = max(1, connections // STRANGERS)
        self._under_way: dict[asyncio.Task[None], None] = {}

    async def accept(self, listener: socket.socket) -> None:
        """Let clients in, until it is cancelled; handshakes that are under way then end with it."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except ConnectionError:
                    continue  # gone already
                except OSError as error:
                    log.warning("no connection over TLS can be taken now: %s", error)
                    await asyncio.sleep(ACCEPT_AGAIN_SECONDS)
                    continue
                if len(self._under_way) >= self._most:
                    oldest = next(iter(self._under_way))
                    del self._under_way[oldest]
                    oldest.cancel()
                task = asyncio.create_task(self._agree(connection), name="handshake")
                self._under_way[task] = None
                task.add_done_callback(lambda done: self._under_way.pop(done, None))
                await asyncio.sleep(0)  # it begins, so that it can be cancelled; and others have their turn
        finally:
            for task in self._under_way:
                task.cancel()

    async def _agree(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol, connection, ssl=self._context, ssl_handshake_timeout=self._patience.handshake
            )
        except OSError as error:  # all that TLS, the network and time say
            log.debug("a handshake came to nothing: %s", error)


class GatheredWrites:
    """A transport that sends what is written together: a response's head and body, or the events of one turn.

    uvloop sends each write at once, by a call to the kernel that costs as much as making a short answer.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._gathered: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever a transport has
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send this soon. Much is sent at once, so that whoever writes learns that a reader is slow."""
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self.flush)
        self._gathered.append(data)
        self._size += len(data)
        if self._size >= GATHERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send it now."""
        if self._gathered:
            data = b"".join(self._gathered)
            self._gathered, self._size = [], 0
            if not self._transport.is_closing():
                self._transport.write(data)

    def close(self) -> None:
        """Send what is gathered, and close."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close, whatever was still to be sent."""
        self._gathered = []
        self._transport.abort()


class BoundedConnection(HttpToolsProtocol):
    """One connection, which is cut when it keeps us waiting, or when it has no place.

    It costs a request two readings of the clock: the one timer of a connection is set anew only when it rings.
    """

    _since = 0.0
    """When what it keeps us waiting for began."""
    _unsent = 0
    """Bytes that its client had still to read, when last looked at."""
    _proven = False
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, *given: Any, places: Places, patience: Patience, **named: Any) -> None:  # noqa: ANN401 -- uvicorn's
        super().__init__(*given, **named)
        self._places = places
        self._patience = patience

    @property
    def waits(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, if there is a place."""
        self._writes = GatheredWrites(transport)
        super().connection_made(cast("asyncio.Transport", self._writes))
        self._since = self.loop.time()
        if self._places.take(self):
            self._timer = self.loop.call_later(self._patience.head, self._look)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._places.leave(self)
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def cut(self) -> None:
        """End it now, whatever is under way."""
        self.transport.abort()

    def on_message_begin(self) -> None:
        """A request comes: whoever lets it in can say that its caller is known."""
        super().on_message_begin()
        if not self._proven:
            self.scope.setdefault("extensions", {})[_PROVEN] = {"prove": self._prove}

    def on_headers_complete(self) -> None:
        """Its body comes."""
        self._since = self.loop.time()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """The next request may come."""
        self._since = self.loop.time()
        self._writes.flush()
        super().on_response_complete()

    def _prove(self) -> None:
        self._proven = True
        self._places.prove(self)

    def _look(self) -> None:
        """Cut it if it has kept us waiting too long; otherwise look again when it could have."""
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._since, self._unsent = now, unsent
        patience = self._due()
        left = self._since + patience - now if patience is not None else self._patience.head
        if left <= 0:
            self.cut()
        else:
            self._timer = self.loop.call_later(min(left, self._patience.head), self._look)

    def _due(self) -> float | None:
        """How long it may take for what it keeps us waiting for; None when it is for us to do something."""
        if self._unsent:
            return self._patience.write
        if self.waits:
            return self._patience.head
        if self.cycle.more_body and not self.pipeline:
            return self._patience.body
        return None


def proven(scope: Scope) -> None:
    """Say that a request comes from a verified caller, so that its connection is a stranger's no more."""
    ours = scope.get("extensions", {}).get(_PROVEN)
    if ours is not None:
        ours["prove"]()
