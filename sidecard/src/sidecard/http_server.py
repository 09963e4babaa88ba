"""How every app of ours listens: uvicorn, with a bound on what a request may send before anybody knows whose it is."""

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sidecard.settings import Settings

MAX_HEAD_BYTES = 65_536
"""Bytes of a request before its body: as much as the sidecars take (`readBufferSize` in dapr.yaml)."""


def http_server(app: ASGIApp, settings: Settings) -> uvicorn.Server:
    """A server for the app, not started, on the address that settings name; told to stop, it takes 3 s at most."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.app_port,
        http=BoundedHead,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)


class BoundedHead(HttpToolsProtocol):
    """Refuses a request line and headers above MAX_HEAD_BYTES; by itself httptools keeps whatever comes, of anybody."""

    _in_head = True
    _head_bytes = 0

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

    def on_headers_complete(self) -> None:
        """It has ended."""
        self._in_head = False
        super().on_headers_complete()
