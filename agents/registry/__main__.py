"""Runs the registry: `python -m agents.registry`."""

from agents.registry.server import create_app
from sidecard.http_server import http_server
from sidecard.settings import Settings
from sidecard.telemetry import configure

settings = Settings.load("registry")
app = create_app(settings)
configure(settings.app_id, otlp_endpoint=settings.otlp_endpoint).instrument_app(app)
http_server(app, settings).run()
