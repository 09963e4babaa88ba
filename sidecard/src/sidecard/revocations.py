"""The list of who is revoked, which the registry keeps: to write it, and to hear of it every second."""

import asyncio
import logging
from datetime import datetime
from typing import Protocol

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidecard.callers.denied import Denied, Mark
from sidecard.error_words import words_of
from sidecard.errors import AccessDenied, AgentUnavailable, SidecardError
from sidecard.registry import REGISTRY

log = logging.getLogger("sidecard")

HEAR_SECONDS = 1.0
"""How often an app asks; with the registry's own reading of its store, revoking takes effect within twice that."""
HEAR_TIMEOUT = 2.0
REMINDER_SECONDS = 5.0
STORE_KEY = "revoked"
MOST = 10_000
LONGEST_REASON = 500
_UNTRACED = "00-{}-0000000000000001-00"
"""A trace that is not recorded: one of each second's question would bury those of tasks."""


class Revocation(BaseModel):
    """One way of being known that counts for nothing any more: since when, by whose word, and why."""

    model_config = ConfigDict(extra="forbid")

    mark: Mark
    since: datetime
    by: str
    reason: str = ""


class RevocationList(BaseModel):
    """All of them, as the registry tells."""

    model_config = ConfigDict(extra="forbid")

    revoked: list[Revocation] = Field(default_factory=list, max_length=MOST)


class RevocationRequest(BaseModel):
    """What an operator asks the registry to revoke."""

    model_config = ConfigDict(extra="forbid")

    mark: Mark
    reason: str = Field(default="", max_length=LONGEST_REASON)


class Revocations:
    """The registry's list, through an httpx client of the mesh (`http://<app-id>/…`, see `sidecar.MeshTransport`).

    Methods raise AgentUnavailable when the registry can't be reached, AccessDenied when it does not let the caller.
    """

    def __init__(self, client: httpx.AsyncClient, base_url: str = f"http://{REGISTRY}") -> None:
        self._client, self._url = client, f"{base_url.rstrip('/')}/revoked"
        self._tag = ""

    async def all(self) -> RevocationList:
        """The whole list."""
        return _read(await self._request("GET"))

    async def news(self) -> RevocationList | None:
        """The list; None when it is as it was when this was asked before."""
        headers = {"if-none-match": self._tag} if self._tag else {}
        headers["traceparent"] = _UNTRACED.format("1" * 32)
        response = await self._request("GET", headers=headers)
        if response.status_code == httpx.codes.NOT_MODIFIED and self._tag:
            return None
        heard = _read(response)
        self._tag = response.headers.get("etag", "")
        return heard

    async def revoke(self, mark: str, reason: str = "") -> RevocationList:
        """Put a mark on the list; as operator. On it already, it keeps its date. Returns the list as it is then."""
        request = RevocationRequest(mark=mark, reason=reason)
        return _read(await self._request("PUT", json=request.model_dump(mode="json")))

    async def restore(self, mark: str) -> RevocationList:
        """Take a mark off the list, where it is on it; as operator. Returns the list as it is then."""
        return _read(await self._request("DELETE", params={"mark": mark}))

    async def _request(
        self,
        method: str,
        *,
        json: object = None,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        try:
            return await self._client.request(method, self._url, json=json, params=params, headers=headers)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise AgentUnavailable(
                f"The registry can't be reached ({reason}): check that it and the own sidecar run."
            ) from error


def _read(response: httpx.Response) -> RevocationList:
    if response.status_code == httpx.codes.FORBIDDEN:
        raise AccessDenied(f"The registry refuses this caller; see its access rules: {words_of(response)}")
    if not response.is_success:
        raise AgentUnavailable(f"The registry answers HTTP {response.status_code}: {words_of(response)}")
    try:
        return RevocationList.model_validate_json(response.content)
    except ValidationError as error:
        raise AgentUnavailable("The registry answers something else than revocations: check its address.") from error


class Memory(Protocol):
    """Where an app keeps what it has heard, to know it when it starts while the registry is down."""

    async def read(self, keys: list[str]) -> dict[str, bytes]:
        """See StateStore."""

    async def write(self, creates: list[tuple[str, bytes]], upserts: dict[str, bytes]) -> None:
        """See StateStore."""


class Hearing:
    """Keeps an app's `denied` as the registry has it. Without a `memory` nothing is known until the registry answers.

    While the registry can't be asked, what was heard last counts.
    """

    def __init__(self, name: str, denied: Denied, revocations: Revocations, memory: Memory | None = None) -> None:
        self._name, self._denied, self._revocations, self._memory = name, denied, revocations, memory
        self._deaf_since: float | None = None
        self._heard = self._kept = self._told = b""

    async def begin(self) -> None:
        """Return once it is known who is revoked: from the registry, else from memory. Raises StoreUnavailable."""
        if self._memory is not None:
            self._kept = (await self._memory.read([STORE_KEY])).get(STORE_KEY, b"")
        reminder = asyncio.get_running_loop().time() + REMINDER_SECONDS
        while not await self._hear():
            if self._kept and self._recall():
                return
            if asyncio.get_running_loop().time() >= reminder:
                log.warning("%s waits for the registry, to learn who is revoked", self._name)
                reminder += REMINDER_SECONDS
            await asyncio.sleep(HEAR_SECONDS)

    def _recall(self) -> bool:
        try:
            kept = RevocationList.model_validate_json(self._kept)
        except ValidationError:
            log.warning("%s can't read whom it last heard to be revoked", self._name)
            self._kept = b""
            return False
        self._denied.become(revocation.mark for revocation in kept.revoked)
        log.warning("%s starts with the revocations that it heard last: the registry is not there", self._name)
        return True

    async def denied(self) -> Denied:
        """Whom to refuse. Raises AgentUnavailable as long as that is not known."""
        if not self._denied.heard:
            raise AgentUnavailable(f"{self._name} does not know yet who is revoked: check that the registry runs.")
        return self._denied

    async def run(self) -> None:
        """Ask every HEAR_SECONDS, until it is cancelled."""
        while True:
            await asyncio.sleep(HEAR_SECONDS)
            await self._hear()

    async def _hear(self) -> bool:
        try:
            async with asyncio.timeout(HEAR_TIMEOUT):
                heard = await self._revocations.news()
        except (SidecardError, TimeoutError) as error:
            if self._deaf_since is None:
                self._deaf_since = asyncio.get_running_loop().time()
                log.warning("%s can't hear who is revoked, what it heard last counts: %s", self._name, error)
            return False
        if self._deaf_since is not None:
            seconds = asyncio.get_running_loop().time() - self._deaf_since
            log.info("%s hears again who is revoked, after %.0f s", self._name, seconds)
            self._deaf_since = None
        if heard is not None:
            self._denied.become(revocation.mark for revocation in heard.revoked)
            self._heard = heard.model_dump_json().encode()
        await self._remember()
        return True

    async def _remember(self) -> None:
        if self._memory is None or self._heard == self._kept:
            return
        try:
            await self._memory.write([], {STORE_KEY: self._heard})
        except SidecardError as error:
            if self._told != self._heard:
                log.warning("%s can't keep yet who is revoked: %s", self._name, error)
            self._told = self._heard
        else:
            self._kept = self._heard
