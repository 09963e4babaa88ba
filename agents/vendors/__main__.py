"""Runs the vendor register: `python -m agents.vendors`."""

import asyncio

import httpx

from agents.vendors.server import create_app
from sidecard.callers import Denied
from sidecard.http_server import http_server
from sidecard.registry import Registry, keep_enrolled
from sidecard.revocations import Hearing, Revocations
from sidecard.settings import Settings
from sidecard.sidecar import MeshTransport
from sidecard.telemetry import configure

settings = Settings.load("vendors")
mesh = httpx.AsyncClient(transport=MeshTransport(settings))
hearing = Hearing(settings.app_id, Denied(), Revocations(mesh))


async def with_the_registry() -> None:
    """Hear who is revoked, and be in the inventory, so that others know whom they can call."""
    await hearing.begin()
    enrolment = keep_enrolled(Registry(mesh), settings.app_id, f"{settings.card_url}/mcp", "mcp")
    await asyncio.gather(hearing.run(), enrolment)


telemetry = configure(settings.app_id, otlp_endpoint=settings.otlp_endpoint)
app = create_app(settings.app_api_token, telemetry, with_the_registry, hearing.denied)
http_server(app, settings).run()
