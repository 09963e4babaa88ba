"""What only operators of the estate may do: enrol an agent that lies outside the mesh, and dismiss any."""

from fastapi import APIRouter, Request
from fastapi.exceptions import HTTPException

from agents.registry.body import read_body
from agents.registry.estate import Estate
from sidecard.callers import APP_ID_HEADER, CallersFile
from sidecard.registry import OPERATE, REGISTRY, AppId, Enrolment, ForeignRequest
from sidecard.tasks.act import REFUSED, Act
from sidecard.tasks.ledger import Ledger
from sidecard.telemetry import current_trace_id


class Operators:
    """Who operates the estate, by agents/callers.yaml. What anybody else asks of it is refused, and in the audit."""

    def __init__(self, callers: CallersFile, ledger: Ledger) -> None:
        self._callers, self._ledger = callers, ledger

    def act(self, request: Request, operation: str) -> Act:
        """What an operator asks for, for the audit. Raises HTTPException, 403, for who is none.

        The request came through the own sidecar, which says who calls; agents/callers.yaml says what that one may do.
        """
        act = act_of_app(request, operation)
        grant = self._callers.callers.get(act.caller)
        if grant is None or not grant.sidecar or OPERATE not in grant.grants.get(REGISTRY, ()):
            self.refused(act, "no operator")
            raise HTTPException(
                403, f"'{act.caller}' is no operator: agents/callers.yaml grants it no {OPERATE} at {REGISTRY}."
            )
        act.right = f"scope {OPERATE}"
        return act

    def refused(self, act: Act, why: str) -> None:
        """Record that somebody was refused."""
        act.outcome = f"{REFUSED}{why}"
        self._ledger.refused(act)


def act_of_app(request: Request, operation: str) -> Act:
    """What an app asks for, as its sidecar says which one it is."""
    name = request.headers.get(APP_ID_HEADER, "")
    return Act(operation, caller=name, identity=f"sidecar:{name}", subject=name, trace=current_trace_id())


def operators_routes(estate: Estate, operators: Operators) -> APIRouter:
    """POST /estate looks at a foreign agent, PUT enrols it, DELETE /estate/{app_id} dismisses."""
    routes = APIRouter()

    @routes.post("/estate")
    async def look_at(request: Request) -> Enrolment:
        operators.act(request, "LookAt")
        return await estate.look_at(await read_body(request, ForeignRequest))

    @routes.put("/estate")
    async def enrol(request: Request) -> Enrolment:
        act = operators.act(request, "Enrol")
        return await estate.enrol_foreign(await read_body(request, ForeignRequest), act)

    @routes.delete("/estate/{app_id}", status_code=204)
    async def dismiss(request: Request, app_id: AppId) -> None:
        if not await estate.dismiss(app_id, operators.act(request, "Dismiss")):
            raise HTTPException(404, "No such app is enrolled: GET /agents lists those that are.")

    return routes
