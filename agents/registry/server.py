"""The registry's HTTP surface: apps enrol themselves, and read who else is there; operators enrol and dismiss."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from agents.registry.body import read_body
from agents.registry.estate import Estate, NameTaken
from agents.registry.operators import Operators, act_of_app, operators_routes
from agents.registry.revoked import RevokedStore, revoked_routes
from sidecard.callers import CallersFile
from sidecard.egress import DestinationRefused
from sidecard.errors import CardRejected, ConfigurationError, SidecardError
from sidecard.registry import AppId, Enrolment, EnrolmentRequest
from sidecard.settings import Settings
from sidecard.sidecar import OwnSidecarOnly
from sidecard.tasks.ledger import Ledger, SwappingStore
from sidecard.tasks.store import DaprStateStore

log = logging.getLogger("sidecard")

FORGET_SECONDS = 3_600.0
"""How often the registry looks for what its audit need not keep any longer."""


def create_app(
    settings: Settings, transport: httpx.AsyncBaseTransport | None = None, store: SwappingStore | None = None
) -> FastAPI:
    """The registry as an ASGI app. It answers before its sidecar is up; enrolments then get 503."""
    callers = CallersFile.read(settings.callers_file)

    def open_store() -> SwappingStore:
        token = settings.dapr_api_token.get_secret_value()
        return store or DaprStateStore(grpc_port=settings.dapr_grpc_port, token=token)

    ledger = Ledger(open_store, keep_days=settings.audit_days)
    operators = Operators(callers, ledger)
    estate = Estate(settings, ledger, _names(callers), transport)
    revoked = RevokedStore(estate.sidecar, ledger)

    app = FastAPI(title="registry", lifespan=partial(_lifespan, estate, ledger), openapi_url=None)
    app.add_middleware(OwnSidecarOnly, app_api_token=settings.app_api_token, denied=revoked.denied)
    app.add_exception_handler(SidecardError, _answer_error)
    app.add_exception_handler(StarletteHTTPException, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_error)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        ready = await estate.is_ready()
        return JSONResponse({"status": "ready" if ready else "waiting for the sidecar"}, 200 if ready else 503)

    @app.put("/agents")
    async def enrol(request: Request) -> Enrolment:
        enrolment, act = await read_body(request, EnrolmentRequest), act_of_app(request, "Enrol")
        if act.caller != enrolment.app_id:
            act.skill = enrolment.app_id
            operators.refused(act, "another app's name")
            raise HTTPException(403, f"An app enrols only itself: '{act.caller}' may not enrol '{enrolment.app_id}'.")
        return await estate.enrol(enrolment, act)

    @app.get("/agents")
    async def agents() -> list[Enrolment]:
        return await estate.inventory.all()

    @app.get("/agents/{app_id}")
    async def agent(app_id: AppId) -> Enrolment:
        enrolment = await estate.inventory.get(app_id)
        if enrolment is None:
            raise HTTPException(404, "No such app is enrolled: GET /agents lists those that are.")
        return enrolment

    app.include_router(operators_routes(estate, operators))
    app.include_router(revoked_routes(revoked, operators))
    return app


def _names(callers: CallersFile) -> set[str]:
    """The names in agents/callers.yaml, of callers and of those that they call: no foreign agent may bear one."""
    return {*callers.callers, *(agent for grant in callers.callers.values() for agent in grant.grants)}


@asynccontextmanager
async def _lifespan(estate: Estate, ledger: Ledger, _: FastAPI) -> AsyncIterator[None]:
    keeping = [asyncio.create_task(estate.keep_verified()), asyncio.create_task(_keep_forgetting(ledger))]
    yield
    for one in keeping:
        one.cancel()
    await asyncio.gather(*keeping, return_exceptions=True)
    await ledger.close()
    await estate.close()


async def _keep_forgetting(ledger: Ledger) -> None:
    """Have the audit forget what is old, now and then. Runs until it is cancelled."""
    while True:
        await asyncio.sleep(FORGET_SECONDS)
        try:
            await ledger.forget()
        except SidecardError as error:
            log.warning("The audit forgets nothing now: %s", error)


async def _answer_error(_: Request, error: Exception) -> Response:
    if isinstance(error, StarletteHTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    if isinstance(error, RequestValidationError):
        return JSONResponse({"error": f"No app is called that: {error.errors()[0]['msg']}"}, 404)
    if isinstance(error, CardRejected | DestinationRefused | NameTaken):
        return JSONResponse({"error": str(error)}, 422)
    # The caller's card, this registry's secrets or its store: all may be in order soon, and the caller asks again.
    headers = {} if isinstance(error, ConfigurationError) else {"Retry-After": "1"}
    return JSONResponse({"error": str(error)}, 503, headers)
