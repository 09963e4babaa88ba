"""The loopback redirect of `sidecard login` (RFC 8252 §7.3): where the browser brings the issuer's answer."""

import secrets
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

from sidecard.errors import SignInFailed

CALLBACK = "/callback"
_CLOSE = b"<!doctype html><title>sidecard</title><p>%s You can close this window.</p>"


class Redirect:
    """Where the browser comes back to: one address of this machine, open for as long as somebody signs in."""

    def __init__(self) -> None:
        self._answer: dict[str, str] | None = None
        self._state = ""
        self._server = HTTPServer(("127.0.0.1", 0), self._handler())
        self.uri = f"http://127.0.0.1:{self._server.server_port}{CALLBACK}"

    def __enter__(self) -> "Redirect":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def wait(self, state: str, patience: float) -> dict[str, str]:
        """The parameters that the browser comes back with. Who comes with another state is refused, and waited on."""
        self._state, deadline = state, time.monotonic() + patience
        while self._answer is None:
            self._server.timeout = deadline - time.monotonic()
            if self._server.timeout <= 0:
                raise SignInFailed("Nobody has signed in in time: try again, or with --device.")
            self._server.handle_request()
        return self._answer

    def _take(self, query: str) -> bool:
        """Take an answer, if it is to what was asked here: nobody else knows the state."""
        try:
            said = parse_qs(query, keep_blank_values=True, max_num_fields=50)
        except ValueError:
            return False
        if not secrets.compare_digest(said.get("state", [""])[0].encode(), self._state.encode()):
            return False
        if any(len(values) > 1 for values in said.values()):
            return False
        self._answer = {name: values[0] for name, values in said.items()}
        return True

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        take = self._take

        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # for a whole request: meanwhile nobody else is served

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                taken = url.path == CALLBACK and take(url.query)
                self.send_response(200 if taken else 400)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Cache-Control", "no-store")
                self.send_header("Referrer-Policy", "no-referrer")
                self.send_header("Content-Security-Policy", "default-src 'none'")
                self.end_headers()
                self.wfile.write(_CLOSE % (b"Go on in the terminal." if taken else b"This is not what was asked for."))

            def log_message(self, *_: object) -> None:
                """The address has the code in it."""

        return Handler
