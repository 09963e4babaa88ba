"""The app: an agent's routes behind the door, and serving them."""

import gc
import logging
import sys
from collections.abc import Callable

from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.server.routes import create_rest_routes
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from sidecard.agent import Agent
from sidecard.agent_card import REST_03_PATH, REST_PATH
from sidecard.card import SignedCard, card_routes
from sidecard.door import Door
from sidecard.edge import CallerContextBuilder, Edge, not_routed
from sidecard.errors import SidecardError
from sidecard.http_server import http_server
from sidecard.jsonrpc import JsonRpc
from sidecard.protected_resource import ProtectedResource
from sidecard.rest_03 import rest_routes_03
from sidecard.service import Service
from sidecard.settings import Settings
from sidecard.telemetry import Telemetry, configure

log = logging.getLogger("sidecard")

OURS_ALONE: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""FastAPI's own telemetry, which would make a second span for each request; see telemetry.py."""
COLLECT_AFTER = 50_000
"""Objects more than before, after which Python looks for garbage in cycles."""


def create_app(agent: Agent, settings: Settings, telemetry: Telemetry | None = None) -> FastAPI:
    """The agent as an ASGI app: its card, its probes, JSON-RPC at /a2a and HTTP+JSON under /rest."""
    telemetry = telemetry or configure(agent.name, otlp_endpoint=settings.otlp_endpoint)
    service = Service(agent, settings, telemetry)
    app = FastAPI(lifespan=service.lifespan, docs_url=None, redoc_url=None, openapi_url=None, telemetry=OURS_ALONE)
    app.state.service = service
    app.router.routes.extend([Route("/healthz", _alive), Route("/readyz", _ready)])
    serve_on(
        app, service.handler, service.door, service.signed_card, settings.max_body_bytes, resource=service.resource
    )
    telemetry.instrument_app(app)
    return app


def serve_on(
    app: FastAPI,
    handler: RequestHandler,
    door: Door,
    card: Callable[[], SignedCard | None],
    max_body_bytes: int,
    *,
    resource: ProtectedResource | None = None,
) -> None:
    """Put the card, both HTTP bindings and the door before them on an app, and which tokens it takes, if it does."""
    builder = CallerContextBuilder()
    app.router.routes.extend(card_routes(card))
    rest = Starlette(
        routes=create_rest_routes(handler, context_builder=builder), exception_handlers={HTTPException: not_routed}
    )
    legacy = Starlette(routes=rest_routes_03(handler, builder), exception_handlers={HTTPException: not_routed})
    for path, routes in ((REST_PATH, rest), (REST_03_PATH, legacy)):
        routes.router.redirect_slashes = False
        app.router.routes.append(Mount(path, app=routes))
    if resource is not None:
        app.router.routes.append(resource.route())
    app.add_middleware(Edge, jsonrpc=JsonRpc(handler), door=door, max_body_bytes=max_body_bytes, resource=resource)


async def _alive(request: Request) -> JSONResponse:
    failure = request.app.state.service.failure
    return JSONResponse({"alive": failure is None}, 503 if failure else 200)


async def _ready(request: Request) -> JSONResponse:
    service: Service = request.app.state.service
    detail = str(service.failure) if service.failure else ""
    return JSONResponse({"ready": service.ready, "detail": detail}, 200 if service.ready else 503)


def _spare_the_collector() -> None:
    """What is there when serving begins stays; what a request makes is gone by itself, and cycles are rare.

    Looking through all of it every 700 objects took a tenth of an agent's time under load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def serve(agent: Agent) -> None:
    """Serve an agent until it is told to stop. When it is set up wrongly, it says so in one line and exits with 2."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    for quiet in ("httpx", "httpx2", "a2a"):
        logging.getLogger(quiet).setLevel(logging.WARNING)
    try:
        settings = Settings.load(agent.name)
        app = create_app(agent, settings)
    except SidecardError as error:
        log.critical("%s can't start: %s", agent.name, error)
        sys.exit(2)
    server = http_server(app, settings)
    app.state.service.on_failure = lambda: setattr(server, "should_exit", True)
    _spare_the_collector()
    server.run()
    if app.state.service.failure:
        sys.exit(2)
