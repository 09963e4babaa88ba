"""Runs the vendor register: `python -m agents.vendors`."""

import uvicorn
from sidecard.settings import Settings
from sidecard.telemetry import configure

from agents.vendors.server import create_app

if __name__ == "__main__":
    settings = Settings.load("vendors")
    recorder = configure(settings.app_id, otlp_endpoint=settings.otlp_endpoint)
    app = create_app(settings.app_api_token, recorder)
    uvicorn.run(app, host=settings.host, port=settings.app_port, log_level="warning")
