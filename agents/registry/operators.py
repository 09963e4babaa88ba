"""What only operators of the estate may do: enrol an agent that lies outside the mesh, and dismiss any."""

from fastapi import APIRouter, Request
from fastapi.exceptions import HTTPException

from agents.registry.body import read_body
from agents.registry.estate import Estate
from sidecard.callers import APP_ID_HEADER, CallersFile
from sidecard.registry import OPERATE, REGISTRY, AppId, Enrolment, ForeignRequest


def operators_routes(estate: Estate, callers: CallersFile) -> APIRouter:
    """POST /estate looks at a foreign agent, PUT enrols it, DELETE /estate/{app_id} dismisses."""
    routes = APIRouter()

    @routes.post("/estate")
    async def look_at(request: Request) -> Enrolment:
        operator_of(request, callers)
        return await estate.look_at(await read_body(request, ForeignRequest))

    @routes.put("/estate")
    async def enrol(request: Request) -> Enrolment:
        operator = operator_of(request, callers)
        return await estate.enrol_foreign(await read_body(request, ForeignRequest), operator)

    @routes.delete("/estate/{app_id}", status_code=204)
    async def dismiss(request: Request, app_id: AppId) -> None:
        if not await estate.dismiss(app_id, operator_of(request, callers)):
            raise HTTPException(404, "No such app is enrolled: GET /agents lists those that are.")

    return routes


def operator_of(request: Request, callers: CallersFile) -> str:
    """The caller's name, if it is an operator of the estate. Raises HTTPException, 403.

    The request came through the own sidecar, which says who calls; agents/callers.yaml says what that one may do.
    """
    name = request.headers.get(APP_ID_HEADER, "")
    grant = callers.callers.get(name)
    if grant is None or not grant.sidecar or OPERATE not in grant.grants.get(REGISTRY, ()):
        raise HTTPException(403, f"'{name}' is no operator: agents/callers.yaml grants it no {OPERATE} at {REGISTRY}.")
    return name
