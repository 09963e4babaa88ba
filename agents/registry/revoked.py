"""Who is revoked: the list that operators write and every app reads, in the registry's own Dapr state store."""

import asyncio
import hashlib
import random
import time
from datetime import UTC, datetime
from typing import Annotated

import httpx
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import HTTPException
from pydantic import ValidationError

from agents.registry.body import read_body
from agents.registry.operators import operator_of
from sidecard.callers import CallersFile, Denied
from sidecard.callers.denied import FORMS, mark_of
from sidecard.errors import StoreUnavailable
from sidecard.revocations import MOST, Revocation, RevocationList, RevocationRequest

KEY = "revoked"
FRESH_SECONDS = 0.25
"""How long a list that was read answers everybody: each app asks every second."""
ATTEMPTS = 20


class RevokedStore:
    """The list under one key, changed by compare-and-swap. `sidecar` is a `sidecard.sidecar.sidecar_client`.

    Methods raise StoreUnavailable when the store doesn't answer.
    """

    def __init__(self, sidecar: httpx.AsyncClient, store: str = "state") -> None:
        self._sidecar, self._path = sidecar, f"/state/{store}"
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

    async def put(self, revocation: Revocation) -> RevocationList:
        """The list with this one; one that is on it already stays as it was."""
        return await self._change(revocation.mark, revocation)

    async def remove(self, mark: str) -> RevocationList:
        """The list without this one."""
        return await self._change(mark, None)

    async def _change(self, mark: str, revocation: Revocation | None) -> RevocationList:
        for attempt in range(ATTEMPTS):
            known, tag = await self._read()
            listed = any(one.mark == mark for one in known.revoked)
            if listed == (revocation is not None):
                return known
            others = [one for one in known.revoked if one.mark != mark]
            if revocation is not None and len(others) >= MOST:
                raise HTTPException(422, f"{MOST} are revoked, which is as many as there can be: restore some.")
            revoked = sorted([*others, *([revocation] if revocation else [])], key=lambda one: one.mark)
            changed = RevocationList(revoked=revoked)
            item = {"key": KEY, "value": changed.model_dump(mode="json"), **({"etag": tag} if tag else {})}
            options = {"concurrency": "first-write", "consistency": "strong"}
            written = await self._request("POST", self._path, json=[{**item, "options": options}])
            if written.is_success:
                self._read_at = -FRESH_SECONDS
                return changed
            # Stores word a lost race differently (409, 500): what is there now tells, on the next round.
            await asyncio.sleep(random.uniform(0, 0.005 * (attempt + 1)))  # noqa: S311 -- spreads retries
        raise StoreUnavailable("The list could not be changed, others kept writing: try again.")

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


def revoked_routes(store: RevokedStore, callers: CallersFile) -> APIRouter:
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
        operator = operator_of(request, callers)
        asked = await read_body(request, RevocationRequest, "a revocation")
        if asked.mark in {f"caller:{operator}", f"app:{operator}"}:
            raise HTTPException(409, "Nobody revokes themselves: they could not take it back.")
        now = datetime.now(UTC)
        return await store.put(Revocation(mark=asked.mark, since=now, by=operator, reason=asked.reason))

    @routes.delete("/revoked")
    async def restore(request: Request, mark: Annotated[str, Query(max_length=400)]) -> RevocationList:
        operator_of(request, callers)
        try:
            return await store.remove(mark_of(mark))
        except ValueError:
            raise HTTPException(422, f"Name who is meant by {FORMS}.") from None

    return routes
