"""HTTP to places outside of the mesh (foreign agents, token issuers): checked addresses and bounded answers.

What Dapr does inside the mesh is not there: so each request is checked where it goes (`egress`), no redirect is
followed, no proxy is read from the environment, nothing compressed is taken, and no answer may grow without end.
"""

import ssl
from collections.abc import AsyncIterator

import httpcore
import httpx

from sidecard.egress import DestinationRefused, Destinations, Resolver, SafeBackend
from sidecard.errors import AccessDenied

MOST_ANSWER_BYTES = 8_388_608
"""Of an answer that is read as a whole, and of one event of a stream."""
MOST_STREAM_BYTES = 134_217_728
"""Of all events of one stream: their task is put together in memory."""
TIMEOUT = httpx.Timeout(60.0, connect=5.0)
CONNECTIONS = 256
_ENDS_OF_EVENTS = (b"\n\n", b"\r\r", b"\r\n\r\n")


class AnswerRefused(AccessDenied):
    """Somebody outside answers more, or in another form, than is taken: asking again would not help."""


class Outbound:
    """The connections to the outside of one process, shared by the transports that it makes.

    Raises `egress.DestinationRefused` for what the operator does not allow, wherever a request comes from.
    """

    def __init__(
        self, destinations: Destinations, *, resolve: Resolver | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """`resolve` stands in for DNS, and `tls` for the usual certificate authorities, in tests."""
        self.destinations = destinations
        self._backend = SafeBackend(destinations, resolve)
        tls = tls or httpx.create_ssl_context(trust_env=False)
        self._inner = httpx.AsyncHTTPTransport(verify=tls, trust_env=False)
        # httpx takes no network backend; the errors that it names are its own all the same.
        self._inner._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=CONNECTIONS,
            max_keepalive_connections=CONNECTIONS // 8,
            keepalive_expiry=15.0,
            network_backend=self._backend,
        )

    def client(self, auth: httpx.Auth | None = None) -> httpx.AsyncClient:
        """A client of its own over the shared connections. It need not be closed."""
        return httpx.AsyncClient(
            transport=_Checked(self.destinations, self._inner),
            auth=auth,
            headers={"Accept-Encoding": "identity", "User-Agent": "sidecard"},
            timeout=TIMEOUT,
            follow_redirects=False,
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()
        self._backend.close()


class _Checked(httpx.AsyncBaseTransport):
    """One client's way to the shared connections: it checks each request and bounds each answer."""

    def __init__(self, destinations: Destinations, inner: httpx.AsyncBaseTransport) -> None:
        self._destinations, self._inner = destinations, inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._destinations.check(str(request.url))
        response = await self._inner.handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise AnswerRefused(f"{request.url.host} answers compressed, though asked not to")
        streams = response.headers.get("content-type", "").startswith("text/event-stream")
        response.stream = _Bounded(response.stream, request.url.host, streams=streams)
        return response


class _Bounded(httpx.AsyncByteStream):
    """A body that may not grow without end; of a stream of events, neither may one event."""

    def __init__(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream, host: str, *, streams: bool) -> None:
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 -- it comes from an async transport
        self._stream, self._host, self._streams = stream, host, streams

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total, open_event, tail = 0, 0, b""
        async for chunk in self._stream:
            total += len(chunk)
            open_event += len(chunk)
            if self._streams:
                seen = tail + chunk
                if (end := max(seen.rfind(mark) + len(mark) if mark in seen else 0 for mark in _ENDS_OF_EVENTS)) > 0:
                    open_event = len(seen) - end
                tail = seen[-3:]
            if open_event > MOST_ANSWER_BYTES or total > MOST_STREAM_BYTES:
                raise AnswerRefused(f"{self._host} answers more than is taken of anybody")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


__all__ = ["MOST_ANSWER_BYTES", "MOST_STREAM_BYTES", "AnswerRefused", "DestinationRefused", "Outbound"]
