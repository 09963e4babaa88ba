"""A web server that shows somebody else's card, as it is or altered: what a card's signature is there against."""

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

WELL_KNOWN = "/.well-known/agent-card.json"


class Impostor:
    """Serves from construction to `close`, on a free port of 127.0.0.1; a context manager."""

    def __init__(self) -> None:
        self.card: dict[str, Any] = {}
        """What it shows, as JSON."""
        self.asked: list[str] = []
        """Every path that was asked for."""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.impostor = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="impostor", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Its base URL."""
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


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    impostor: Impostor


class _Handler(BaseHTTPRequestHandler):
    timeout = 10
    server: _Server

    def do_GET(self) -> None:
        impostor = self.server.impostor
        impostor.asked.append(self.path)
        known = self.path == WELL_KNOWN
        body = json.dumps(impostor.card).encode() if known else b""
        self.send_response(HTTPStatus.OK if known else HTTPStatus.NOT_FOUND)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 -- the base class's name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay quiet: the terminal is for the tour."""
