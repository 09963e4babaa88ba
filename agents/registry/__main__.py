"""Runs the registry: `python -m agents.registry`."""

import uvicorn

from agents.registry.server import build
from sidecard.settings import Settings
from sidecard.telemetry import configure

settings = Settings.load("registry")
app = build(settings)
configure(settings.app_id, otlp_endpoint=settings.otlp_endpoint).instrument_app(app)
uvicorn.run(app, host=settings.host, port=settings.app_port, log_level="warning", timeout_graceful_shutdown=3)
