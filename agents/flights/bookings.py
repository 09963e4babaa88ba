"""Bookings, kept in the agent's state store: one per booking key, whatever is retried."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from pydantic import ValidationError

from agents.flights.models import Ticket
from sidecard.errors import StoreUnavailable
from sidecard.settings import Settings
from sidecard.sidecar import sidecar_client

ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Without the letters and digits that people take for one another."""


def reference_for(key: str) -> str:
    """The booking reference that belongs to a key: six characters, always the same for the same key."""
    digest = hashlib.sha256(key.encode()).digest()
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in digest[:6])


class Bookings:
    """Tickets by reference. Keeping the same ticket again changes nothing."""

    def __init__(self, sidecar: httpx.AsyncClient, store: str = "state") -> None:
        """`sidecar` is a client of the own sidecar's HTTP API."""
        self._sidecar = sidecar
        self._store = store

    @classmethod
    @asynccontextmanager
    async def of(cls, agent: str) -> AsyncIterator["Bookings"]:
        """The bookings in this agent's own state store; the way to it is closed behind the `async with` block."""
        async with sidecar_client(Settings.load(agent)) as sidecar:
            yield cls(sidecar)

    async def keep(self, ticket: Ticket) -> Ticket:
        """Store a ticket unless its reference is taken; returns what is stored. Raises StoreUnavailable."""
        item = {
            "key": f"booking:{ticket.reference}",
            "value": ticket.model_dump(mode="json"),
            "options": {"concurrency": "first-write", "consistency": "strong"},
        }
        try:
            await self._sidecar.post(f"/state/{self._store}", json=[item])
        except httpx.HTTPError as error:
            raise StoreUnavailable("The booking can't be kept: the own sidecar does not answer.") from error
        # Stores name a taken key differently; what is there now decides.
        stored = await self.find(ticket.reference)
        if stored is None:
            raise StoreUnavailable("The booking was not kept: the state store does not take it now; try again.")
        return stored

    async def find(self, reference: str) -> Ticket | None:
        """The ticket with that reference, or None. Raises StoreUnavailable."""
        try:
            response = await self._sidecar.get(f"/state/{self._store}/booking:{reference}")
            response.raise_for_status()
            return Ticket.model_validate_json(response.content) if response.content else None
        except (httpx.HTTPError, ValidationError) as error:
            raise StoreUnavailable(f"Booking {reference} can't be read: the state store does not answer.") from error
