"""Who is revoked: the list that operators write and every app reads, in the registry's own Dapr state store."""

import asyncio
import hashlib
import time
from datetime import UTC, datetime
from typing import Annotated

import httpx
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import HTTPException
from pydantic import ValidationError

from agents.registry.body import read_body
from agents.registry.operators import Operators
from sidecard.callers import Denied
from sidecard.callers.denied import FORMS, mark_of
from sidecard.errors import StoreUnavailable
from sidecard.revocations import MOST, Revocation, RevocationList, RevocationRequest
from sidecard.tasks.act import Act
from sidecard.tasks.ledger import Deed, Ledger

KEY = "revoked"
FRESH_SECONDS = 0.25
"""How long a list that was read answers everybody: each app asks every second."""


class RevokedStore:
    """The list under one key, changed by compare-and-swap. `sidecar` is a `sidecard.sidecar.sidecar_client`.

    What changes it is stored with its record in the audit. Methods raise StoreUnavailable when the store is down.
    """

    def __init__(self, sidecar: httpx.AsyncClient, ledger: Ledger, store: str = "state") -> None:
        self._sidecar, self._ledger, self._path = sidecar, ledger, f"/state/{store}"
        self._reading = asyncio.Lock()
        self._read_at = -FRESH_SECONDS
        self._told = RevocationList()
        self._denied = Denied()

    async def told(self) -> RevocationList:
        """The list, at most FRESH_SECONDS old."""
        async with self._reading:
            if time.monotonic() - self._read_at >= FRESH_SECONDS:
                self._told, _ = await self._read()
                self._denied.become(one.mark for one in self._told.revoked)
                self._read_at = time.monotonic()
            return self._told

    async def denied(self) -> Denied:
        """The same, to ask for a caller."""
        await self.told()
        return self._denied

    async def put(self, revocation: Revocation, act: Act) -> RevocationList:
        """The list with this one; one that is on it already stays as it was."""
        return await self._change(revocation.mark, revocation, act)

    async def remove(self, mark: str, act: Act) -> RevocationList:
        """The list without this one."""
        return await self._change(mark, None, act)

    async def _change(self, mark: str, revocation: Revocation | None, act: Act) -> RevocationList:
        listed, act.skill = RevocationList(), mark

        async def decide() -> Deed | None:
            nonlocal listed
            listed, tag = await self._read()
            if any(one.mark == mark for one in listed.revoked) == (revocation is not None):
                return None
            others = [one for one in listed.revoked if one.mark != mark]
            if revocation is not None and len(others) >= MOST:
                raise HTTPException(422, f"{MOST} are revoked, which is as many as there can be: restore some.")
            revoked = sorted([*others, *([revocation] if revocation else [])], key=lambda one: one.mark)
            listed = RevocationList(revoked=revoked)
            return Deed(act, swaps={KEY: (listed.model_dump_json().encode(), tag)})

        if await self._ledger.do(decide):
            self._read_at = -FRESH_SECONDS
        return listed

    async def _read(self) -> tuple[RevocationList, str]:
        response = await self._request("GET", f"{self._path}/{KEY}")
        if not response.is_success:
            raise StoreUnavailable(
                f"The registry's state store answers HTTP {response.status_code}: see its sidecar's log."
            )
        if not response.content:
            return RevocationList(), ""
        try:
            return RevocationList.model_validate_json(response.content), response.headers["etag"]
        except ValidationError as error:
            raise StoreUnavailable(
                "The registry's store holds something that it did not write: give it a store of its own."
            ) from error

    async def _request(self, method: str, path: str, json: object = None) -> httpx.Response:
        try:
            return await self._sidecar.request(method, path, json=json)
        except httpx.HTTPError as error:
            raise StoreUnavailable("The registry's sidecar does not answer: start it, then ask again.") from error


def revoked_routes(store: RevokedStore, operators: Operators) -> APIRouter:
    """GET /revoked tells every app the list; operators PUT what is to be on it, and DELETE ?mark= what is not."""
    routes = APIRouter()

    @routes.get("/revoked")
    async def tell(request: Request) -> Response:
        body = (await store.told()).model_dump_json().encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    @routes.put("/revoked")
    async def revoke(request: Request) -> RevocationList:
        act = operators.act(request, "Revoke")
        asked = await read_body(request, RevocationRequest, "a revocation")
        if asked.mark in {f"caller:{act.caller}", f"app:{act.caller}"}:
            raise HTTPException(409, "Nobody revokes themselves: they could not take it back.")
        now = datetime.now(UTC)
        return await store.put(Revocation(mark=asked.mark, since=now, by=act.caller, reason=asked.reason), act)

    @routes.delete("/revoked")
    async def restore(request: Request, mark: Annotated[str, Query(max_length=400)]) -> RevocationList:
        act = operators.act(request, "Restore")
        try:
            return await store.remove(mark_of(mark), act)
        except ValueError:
            raise HTTPException(422, f"Name who is meant by {FORMS}.") from None

    return routes
