"""A small web server beside a demo or a tour: on 127.0.0.1, in a background thread, for as long as it is needed."""

import sys
import threading
from abc import ABC, abstractmethod
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class LocalServer(ABC):
    """Serves from construction to `close`; a context manager.

    Args:
        port: 0 for a free one.
    """

    def __init__(self, port: int = 0) -> None:
        self._server = _Server(("127.0.0.1", port), Request)
        self._server.owner = self
        name = type(self).__name__.lower()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name=name, daemon=True)
        self._thread.start()

    @abstractmethod
    def respond(self, request: "Request") -> None:
        """Answer a GET or POST, in a thread of its connection. Sets `close_connection` where a body stays unread."""

    @property
    def url(self) -> str:
        """Its base URL, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Request(BaseHTTPRequestHandler):
    """A request to a LocalServer, and the way its answer goes back. Nothing is written to the terminal."""

    protocol_version = "HTTP/1.1"  # clients keep their connections
    timeout = 60
    server: "_Server"

    def do_GET(self) -> None:
        """Let the server's owner answer."""
        self.server.owner.respond(self)

    do_POST = do_GET  # noqa: N815 -- the base class's name

    def answer(self, status: HTTPStatus, media_type: str, body: bytes = b"") -> None:
        """Send this, as a whole."""
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")  # else a client may send its next request on it
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay quiet: the terminal is for what is shown there."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: LocalServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that was stopped; all else is a defect."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]
