"""The list of enrolled apps, in the registry's own Dapr state store."""

import asyncio
import random
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from sidecard.errors import StoreUnavailable
from sidecard.registry import Enrolment

LIST_KEY = "apps"
ATTEMPTS = 50
"""More than the apps of an estate that may enrol in the same instant; each round of a race has a winner."""


class _Item(BaseModel):
    """One key of Dapr's bulk answer."""

    data: Enrolment | None = None
    error: str = ""


_FIRST_WRITE = {"concurrency": "first-write", "consistency": "strong"}
_ENROLMENT, _APP_IDS, _ITEMS = TypeAdapter(Enrolment), TypeAdapter(list[str]), TypeAdapter(list[_Item])
_Shape = TypeVar("_Shape")


class Inventory:
    """Enrolments by app-id: one key each, and one key that lists the app-ids, since Dapr's state API can't list keys.

    `sidecar` is a `sidecard.sidecar.sidecar_client`. Each method raises StoreUnavailable when the store doesn't answer.
    """

    def __init__(self, sidecar: httpx.AsyncClient, store: str = "state") -> None:
        self._sidecar, self._path = sidecar, f"/state/{store}"

    async def put(self, enrolment: Enrolment) -> None:
        """Store an enrolment, in place of the app's earlier one, then list it. Concurrent ones lose nothing."""
        value = enrolment.model_dump(mode="json")
        written = await self._write({"key": key_of(enrolment.app_id), "value": value})
        if not written.is_success:
            raise _failed(written)
        await self._list(enrolment.app_id)

    async def get(self, app_id: str) -> Enrolment | None:
        """The app's enrolment, or None."""
        response = await self._read(key_of(app_id))
        return _parse(_ENROLMENT, response.content) if response.content else None

    async def all(self) -> list[Enrolment]:
        """Every enrolment, by app-id."""
        response = await self._read(LIST_KEY)
        app_ids = _parse(_APP_IDS, response.content) if response.content else []
        if not app_ids:
            return []
        keys = [key_of(app_id) for app_id in app_ids]
        answer = await self._request("POST", f"{self._path}/bulk", json={"keys": keys, "parallelism": 10})
        if not answer.is_success:
            raise _failed(answer)
        items = _parse(_ITEMS, answer.content)
        if any(item.error for item in items):
            raise _failed(answer)
        return sorted((item.data for item in items if item.data), key=lambda enrolment: enrolment.app_id)

    async def replace(self, known: Enrolment, enrolment: Enrolment) -> bool:
        """Store an enrolment in place of the one that was read, unless somebody has changed or removed that since."""
        response = await self._read(key_of(known.app_id))
        if not response.content or _parse(_ENROLMENT, response.content) != known:
            return False
        item = {
            "key": key_of(known.app_id),
            "value": enrolment.model_dump(mode="json"),
            "etag": response.headers["etag"],
        }
        return (await self._write({**item, "options": _FIRST_WRITE})).is_success

    async def enlist(self, app_id: str) -> None:
        """Put an app whose enrolment is stored on the list."""
        await self._list(app_id)

    async def unlist(self, app_id: str) -> None:
        """Take an app whose enrolment is deleted off the list; it stays if it has come back meanwhile."""
        await self._list(app_id, listed=False)
        if await self.get(app_id) is not None:
            await self._list(app_id)

    async def _list(self, app_id: str, *, listed: bool = True) -> None:
        """Add an app-id to the list, or take it off, by compare-and-swap; without an ETag, by create-if-absent."""
        for attempt in range(ATTEMPTS):
            response = await self._read(LIST_KEY)
            app_ids = _parse(_APP_IDS, response.content) if response.content else []
            if (app_id in app_ids) == listed:
                return
            others = [other for other in app_ids if other != app_id]
            item: dict[str, Any] = {"key": LIST_KEY, "value": sorted([*others, app_id]) if listed else others}
            if response.content:
                item["etag"] = response.headers["etag"]
            written = await self._write({**item, "options": _FIRST_WRITE})
            if written.is_success:
                return
            # Stores word a lost race differently (409, 500): what is there now tells, on the next round.
            await asyncio.sleep(random.uniform(0, 0.005 * min(attempt + 1, 10)))  # noqa: S311 - spreads retries
        raise StoreUnavailable(f"'{app_id}' could not be listed, others kept writing: enrol again.")

    async def _write(self, item: dict[str, Any]) -> httpx.Response:
        return await self._request("POST", self._path, json=[item])

    async def _read(self, key: str) -> httpx.Response:
        response = await self._request("GET", f"{self._path}/{quote(key, safe='')}")
        if not response.is_success:
            raise _failed(response)
        return response

    async def _request(self, method: str, path: str, json: object = None) -> httpx.Response:
        try:
            return await self._sidecar.request(method, path, json=json)
        except httpx.HTTPError as error:
            raise StoreUnavailable("The registry's sidecar does not answer: start it, then ask again.") from error


def key_of(app_id: str) -> str:
    """Where an app's enrolment is stored."""
    return f"app:{app_id}"


def _parse(shape: TypeAdapter[_Shape], content: bytes) -> _Shape:
    try:
        return shape.validate_json(content)
    except ValidationError as error:
        raise StoreUnavailable(
            "The registry's store holds something that it did not write: give it a store of its own."
        ) from error


def _failed(response: httpx.Response) -> StoreUnavailable:
    return StoreUnavailable(
        f"The registry's state store answers HTTP {response.status_code}: see its sidecar's log, and component 'state'."
    )
