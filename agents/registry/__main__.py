"""Run the registry: `python -m agents.registry`."""

import uvicorn
from sidecard.settings import Settings

from agents.registry.server import build

if __name__ == "__main__":
    settings = Settings.load("registry")
    uvicorn.run(build(settings), host=settings.host, port=settings.app_port, log_level="warning")
