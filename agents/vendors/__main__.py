"""Runs the vendor register: `python -m agents.vendors`."""

import httpx

from agents.vendors.server import create_app
from sidecard.http_server import http_server
from sidecard.registry import Registry, keep_enrolled
from sidecard.settings import Settings
from sidecard.sidecar import MeshTransport
from sidecard.telemetry import configure

settings = Settings.load("vendors")


async def enrol() -> None:
    """Be in the inventory, so that others know whom they can call."""
    async with httpx.AsyncClient(transport=MeshTransport(settings)) as mesh:
        await keep_enrolled(Registry(mesh), settings.app_id, f"{settings.card_url}/mcp", "mcp")


telemetry = configure(settings.app_id, otlp_endpoint=settings.otlp_endpoint)
app = create_app(settings.app_api_token, telemetry, enrol)
http_server(app, settings).run()
