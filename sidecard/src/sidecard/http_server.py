"""How every app of ours listens: uvicorn, with bounds on what anybody may send and hold, known or not."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from sidecard.connections import BoundedConnection, Handshakes, Patience, Places
from sidecard.errors import ConfigurationError
from sidecard.settings import Settings
from sidecard.tls import EXTENSION, TlsFiles, server_context

MAX_HEAD_BYTES = 65_536
"""Bytes of a request before its body: as much as the sidecars take (`readBufferSize` in dapr.yaml)."""
_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


def http_server(app: ASGIApp, settings: Settings, patience: Patience | None = None) -> uvicorn.Server:
    """A server for the app, not started, on the address that settings name; told to stop, it takes 3 s at most."""
    return uvicorn.Server(_config(app, settings, patience))


@contextlib.asynccontextmanager
async def served_over_tls(
    app: ASGIApp, settings: Settings, patience: Patience | None = None
) -> AsyncIterator[int | None]:
    """Serve an app that is served already on `settings.tls_port` as well; does nothing where settings name none.

    Gives the port. Handshakes are bounded in time and number, as connections are. A client that shows a certificate
    which the client CA did not issue gets no connection.

    Raises ConfigurationError: the port is taken, or the certificates can't be used.
    """
    files = TlsFiles.of(settings)
    if settings.tls_port is None or files is None:
        yield None
        return
    context = server_context(files)
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.tls_port), family=family)
    except OSError as error:
        raise ConfigurationError(f"SIDECARD_TLS_PORT {settings.tls_port} can't be served: {error.strerror}") from error
    server = _OverTls(_config(app, settings, patience, lifespan="off"), context, settings, patience)
    serving = asyncio.create_task(server.serve([listener]), name="tls")
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


def _config(
    app: ASGIApp,
    settings: Settings,
    patience: Patience | None = None,
    **more: Any,  # noqa: ANN401 -- as uvicorn has them
) -> uvicorn.Config:
    protocol = partial(BoundedHead, places=Places(settings.connections), patience=patience or Patience())
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.app_port,
        http=cast("type[asyncio.Protocol]", protocol),
        ws="none",  # nothing here speaks WebSocket, and such a connection would leave our bounds
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=3,
        **more,
    )


class _OverTls(uvicorn.Server):
    """A second server in a process, which leaves signals to the first and bounds the handshakes before connections."""

    def __init__(
        self, config: uvicorn.Config, context: ssl.SSLContext, settings: Settings, patience: Patience | None
    ) -> None:
        super().__init__(config)
        self._handshakes = Handshakes(context, self._connection, settings.connections, patience or Patience())
        self._accepting: list[asyncio.Task[None]] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, by itself: asyncio's own server would let anybody begin any number of handshakes."""
        self.servers = []
        for listener in sockets or []:
            listener.setblocking(False)
            listener.listen(self.config.backlog)
            self._accepting.append(asyncio.create_task(self._handshakes.accept(listener), name="accept"))
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nobody any more, then end as any server does."""
        for accepting in self._accepting:
            accepting.cancel()
        await asyncio.wait(self._accepting)
        await super().shutdown(sockets)

    def _connection(self) -> asyncio.Protocol:
        made = cast("type[Any]", self.config.http_protocol_class)
        return cast("asyncio.Protocol", made(config=self.config, server_state=self.server_state, app_state={}))


class BoundedHead(BoundedConnection):
    """Refuses a request line and headers above MAX_HEAD_BYTES; by itself httptools keeps whatever comes, of anybody.

    What is known of a connection's TLS it puts into the scope of each request, as ASGI's TLS extension wants it.
    """

    _in_head = True
    _head_bytes = 0
    _tls: dict[object, object] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The handshake is done, if there is one."""
        super().connection_made(transport)
        connection = transport.get_extra_info("ssl_object")
        if connection is not None:
            certificate = connection.getpeercert(binary_form=True)
            self._tls = {
                "server_cert": None,
                "client_cert_chain": [ssl.DER_cert_to_PEM_cert(certificate)] if certificate else [],
                "client_cert_name": None,
                "client_cert_error": None,
                "tls_version": _VERSIONS.get(connection.version()),
                "cipher_suite": None,
            }

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head has become too long."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response(f"The request's headers are larger than {MAX_HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()
        if self._tls is not None:
            self.scope.setdefault("extensions", {})[EXTENSION] = self._tls

    def on_headers_complete(self) -> None:
        """It has ended."""
        self._in_head = False
        super().on_headers_complete()
