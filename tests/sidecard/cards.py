"""A card with every field that a signature has to do with, as JSON and as a message."""

from a2a.types import AgentCard
from google.protobuf.json_format import ParseDict

FULL = {
    "name": "flights",
    "description": "Finds and books flights, für alle 🛫.",
    "version": "1.0.0",
    "provider": {"organization": "Travel Desk", "url": "https://desk.example"},
    "supportedInterfaces": [
        {"url": "https://desk.example/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    ],
    "capabilities": {"streaming": True, "pushNotifications": False},
    "defaultInputModes": ["application/json"],
    "defaultOutputModes": ["application/json"],
    "skills": [{"id": "book", "name": "Book", "description": "Books.", "tags": ["travel"]}],
}


def card(content: dict = FULL) -> AgentCard:
    """A card of this content."""
    return ParseDict(content, AgentCard())
