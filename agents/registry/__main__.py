"""Runs the registry: `python -m agents.registry`."""

import uvicorn
from sidecard.settings import Settings
from sidecard.telemetry import configure

from agents.registry.server import build

settings = Settings.load("registry")
app = build(settings)
configure(settings.app_id, otlp_endpoint=settings.otlp_endpoint).instrument_app(app)
uvicorn.run(app, host=settings.host, port=settings.app_port, log_level="warning", timeout_graceful_shutdown=3)
