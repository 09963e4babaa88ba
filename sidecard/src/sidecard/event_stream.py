"""Server-sent events to one client (WHATWG HTML §9.2)."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

from starlette.types import Receive, Send

PING_SECONDS = 15.0
"""How long a stream may be silent before a comment keeps proxies from taking it for dead."""
PING = b": ping\r\n\r\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def event(data: bytes, *, kind: str = "", place: str = "") -> bytes:
    """One event; `data` has no line breaks. `place` is its id."""
    named = b"event: %b\r\n" % kind.encode() if kind else b""
    numbered = b"id: %b\r\n" % place.encode() if place else b""
    return b"%b%bdata: %b\r\n\r\n" % (numbered, named, data)


class EventStream:
    """One response. It costs one small task and one timer beside the request's own."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._left = False
        self._sent_at = asyncio.get_running_loop().time()
        self._timer: asyncio.TimerHandle | None = None
        self._ping: asyncio.Task[None] | None = None

    async def give(self, events: AsyncIterator[bytes]) -> None:
        """Send events until there are no more, or the client is gone; then no more of them are asked for."""
        loop = asyncio.get_running_loop()
        giving = cast("asyncio.Task[object]", asyncio.current_task())
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        watching = loop.create_task(self._watch(giving), name="client of an event stream")
        self._remember(loop)
        try:
            async for one in events:
                self._sent_at = loop.time()
                await self._write(one)
            await self._send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            if not self._left:
                raise
            giving.uncancel()
        finally:
            for ending in (watching, self._timer, self._ping):
                if ending is not None:
                    ending.cancel()

    async def _watch(self, giving: "asyncio.Task[object]") -> None:
        """End the stream when its client goes away."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        giving.cancel()

    def _remember(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send a comment when nothing was sent for a while, and again as long as nothing is."""
        silent = loop.time() - self._sent_at
        if silent >= PING_SECONDS and self._timer is not None:
            self._ping = loop.create_task(self._write(PING))
            silent = 0.0
        self._timer = loop.call_later(max(PING_SECONDS - silent, 0.0), self._remember, loop)

    async def _write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
