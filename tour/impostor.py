"""A web server that shows somebody else's card, as it is or altered: what a card's signature is there against."""

import json
from http import HTTPStatus
from typing import Any

from demo.local_server import LocalServer, Request

WELL_KNOWN = "/.well-known/agent-card.json"


class Impostor(LocalServer):
    """Serves from construction to `close`, on a free port; a context manager."""

    def __init__(self) -> None:
        self.card: dict[str, Any] = {}
        """What it shows, as JSON."""
        self.asked: list[str] = []
        """Every path that was asked for."""
        super().__init__()

    def respond(self, request: Request) -> None:
        """Show the card, whoever asks for it, and nothing else."""
        request.close_connection = True  # what came with it stays unread
        self.asked.append(request.path)
        known = request.path == WELL_KNOWN
        body = json.dumps(self.card).encode() if known else b""
        request.answer(HTTPStatus.OK if known else HTTPStatus.NOT_FOUND, "application/json", body)
