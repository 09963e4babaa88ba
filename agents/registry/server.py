"""The registry's HTTP surface: apps enrol themselves, and read who else is there; operators enrol and dismiss."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from agents.registry.body import read_body
from agents.registry.estate import Estate, NameTaken
from agents.registry.operators import operators_routes
from agents.registry.revoked import RevokedStore, revoked_routes
from sidecard.callers import APP_ID_HEADER, CallersFile
from sidecard.egress import DestinationRefused
from sidecard.errors import CardRejected, ConfigurationError, SidecardError
from sidecard.registry import AppId, Enrolment, EnrolmentRequest
from sidecard.settings import Settings
from sidecard.sidecar import OwnSidecarOnly


def create_app(settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> FastAPI:
    """The registry as an ASGI app. It answers before its sidecar is up; enrolments then get 503."""
    callers = CallersFile.read(settings.callers_file)
    estate = Estate(settings, _names(callers), transport)
    revoked = RevokedStore(estate.sidecar)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        verifying = asyncio.create_task(estate.keep_verified(), name="keep_verified")
        yield
        verifying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await verifying
        await estate.close()

    app = FastAPI(title="registry", lifespan=lifespan, openapi_url=None)
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
    async def enrol(request: Annotated[EnrolmentRequest, Depends(_enrolment_request)]) -> Enrolment:
        return await estate.enrol(request)

    @app.get("/agents")
    async def agents() -> list[Enrolment]:
        return await estate.inventory.all()

    @app.get("/agents/{app_id}")
    async def agent(app_id: AppId) -> Enrolment:
        enrolment = await estate.inventory.get(app_id)
        if enrolment is None:
            raise HTTPException(404, "No such app is enrolled: GET /agents lists those that are.")
        return enrolment

    app.include_router(operators_routes(estate, callers))
    app.include_router(revoked_routes(revoked, callers))
    return app


def _names(callers: CallersFile) -> set[str]:
    """The names in agents/callers.yaml, of callers and of those that they call: no foreign agent may bear one."""
    return {*callers.callers, *(agent for grant in callers.callers.values() for agent in grant.grants)}


async def _enrolment_request(request: Request) -> EnrolmentRequest:
    """The body, if it is sound and about the app that sends it: nobody enrols another."""
    enrolment = await read_body(request, EnrolmentRequest)
    caller = request.headers.get(APP_ID_HEADER, "")
    if caller != enrolment.app_id:
        raise HTTPException(403, f"An app enrols only itself: '{caller}' may not enrol '{enrolment.app_id}'.")
    return enrolment


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
