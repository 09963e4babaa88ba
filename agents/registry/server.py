"""The registry's HTTP surface: apps enrol themselves, and read who else is there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from agents.registry.inventory import Inventory
from sidecard.callers import APP_ID_HEADER
from sidecard.card import CardCache, fetch_card
from sidecard.errors import CardRejected, ConfigurationError, SidecardError
from sidecard.registry import AppId, Enrolment, EnrolmentRequest
from sidecard.settings import Settings
from sidecard.sidecar import MeshTransport, OwnSidecarOnly, read_secret, sidecar_client
from sidecard.trust import TrustStore
from sidecard.validation import explain

MAX_BODY_BYTES = 16_384


class Desk:
    """Where enrolments are decided: who is believed, and what is written down of it."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """`transport` reaches the own sidecar; nothing is sent before the first request comes in."""
        self.sidecar = sidecar_client(settings, transport)
        self.inventory = Inventory(self.sidecar)
        self._mesh = httpx.AsyncClient(transport=MeshTransport(settings, transport))
        self._cards = CardCache()

    async def enrol(self, request: EnrolmentRequest) -> Enrolment:
        """List an app; an agent only if the card it serves in the mesh is by a pinned key and names it.

        Raises:
            CardRejected: the card is not believed.
            AgentUnavailable: the app serves no card now.
            ConfigurationError, StoreUnavailable: the registry's own secrets or store are not in order.
        """
        now = datetime.now(UTC)
        known = await self.inventory.get(request.app_id)
        enrolment = Enrolment(
            app_id=request.app_id,
            kind=request.kind,
            name=request.app_id,
            card_url=request.url,
            enrolled_at=known.enrolled_at if known else now,
            last_seen=now,
        )
        if request.kind == "a2a":
            enrolment = await self._with_card(enrolment)
        await self.inventory.put(enrolment)
        return enrolment

    async def _with_card(self, enrolment: Enrolment) -> Enrolment:
        trust = TrustStore.parse(await read_secret(self.sidecar, "trust", "publishers"))
        app_id = enrolment.app_id
        verified = await fetch_card(self._mesh, f"http://{app_id}", trust, agent=app_id, cache=self._cards)
        return enrolment.model_copy(
            update={
                "name": verified.card.name,
                "version": verified.card.version,
                "publisher": verified.publisher,
                "skills": [skill.id for skill in verified.card.skills],
                "card_digest": verified.digest,
                "verified_at": enrolment.last_seen,
            }
        )

    async def is_ready(self) -> bool:
        """Whether the own sidecar serves state and secrets."""
        try:
            return (await self.sidecar.get("/healthz/outbound")).is_success
        except httpx.HTTPError:
            return False

    async def close(self) -> None:
        """Close the connections to the sidecar."""
        await self._mesh.aclose()
        await self.sidecar.aclose()


def create_app(settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> FastAPI:
    """The registry as an ASGI app. It answers before its sidecar is up; enrolments then get 503."""
    desk = Desk(settings, transport)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await desk.close()

    app = FastAPI(title="registry", lifespan=lifespan, openapi_url=None)
    app.add_middleware(OwnSidecarOnly, app_api_token=settings.app_api_token)
    app.add_exception_handler(SidecardError, _answer_error)
    app.add_exception_handler(StarletteHTTPException, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_error)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        ready = await desk.is_ready()
        return JSONResponse({"status": "ready" if ready else "waiting for the sidecar"}, 200 if ready else 503)

    @app.put("/agents")
    async def enrol(request: Annotated[EnrolmentRequest, Depends(_enrolment_request)]) -> Enrolment:
        return await desk.enrol(request)

    @app.get("/agents")
    async def agents() -> list[Enrolment]:
        return await desk.inventory.all()

    @app.get("/agents/{app_id}")
    async def agent(app_id: AppId) -> Enrolment:
        enrolment = await desk.inventory.get(app_id)
        if enrolment is None:
            raise HTTPException(404, "No such app is enrolled: GET /agents lists those that are.")
        return enrolment

    return app


async def _enrolment_request(request: Request) -> EnrolmentRequest:
    """The body, if it is sound and about the app that sends it: nobody enrols another."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"An enrolment has at most {MAX_BODY_BYTES} bytes.")
    try:
        enrolment = EnrolmentRequest.model_validate_json(bytes(body))
    except ValidationError as error:
        raise HTTPException(422, f"Not an enrolment: {explain(error)}") from None
    caller = request.headers.get(APP_ID_HEADER, "")
    if caller != enrolment.app_id:
        raise HTTPException(403, f"An app enrols only itself: '{caller}' may not enrol '{enrolment.app_id}'.")
    return enrolment


async def _answer_error(_: Request, error: Exception) -> Response:
    if isinstance(error, StarletteHTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    if isinstance(error, RequestValidationError):
        return JSONResponse({"error": f"No app is called that: {error.errors()[0]['msg']}"}, 404)
    if isinstance(error, CardRejected):
        return JSONResponse({"error": str(error)}, 422)
    # The caller's card, this registry's secrets or its store: all may be in order soon, and the caller asks again.
    headers = {} if isinstance(error, ConfigurationError) else {"Retry-After": "1"}
    return JSONResponse({"error": str(error)}, 503, headers)
