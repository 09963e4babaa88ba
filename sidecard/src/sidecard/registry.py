"""The inventory of agents, as an agent or the command line sees it: enrol oneself, list the others."""

import asyncio
import logging
from datetime import datetime
from typing import Annotated, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sidecard.error_answers import words_of
from sidecard.errors import AccessDenied, AgentUnavailable, CardRejected

log = logging.getLogger("sidecard")

HEARTBEAT_SECONDS = 20.0
RETRY_SECONDS = 1.0
REGISTRY = "registry"
"""The registry's app-id."""


def _web_address(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"must be a URL: {error}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError("must be an http or https URL")
    return url


AppId = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Kind = Literal["a2a", "mcp"]


class EnrolmentRequest(BaseModel):
    """What an app says of itself; all else the registry takes from its verified card."""

    model_config = ConfigDict(extra="forbid")

    app_id: AppId
    kind: Kind
    url: Annotated[str, Field(max_length=2_048), AfterValidator(_web_address)]


class Enrolment(BaseModel):
    """One app in the inventory. `verified_at` is None and the card's fields are empty for an MCP server."""

    app_id: AppId
    kind: Kind
    name: str
    version: str = ""
    publisher: str = ""
    skills: list[str] = []
    card_digest: str = ""
    card_url: str
    enrolled_at: datetime
    last_seen: datetime
    verified_at: datetime | None = None


_ENROLMENT = TypeAdapter(Enrolment)
_ENROLMENTS = TypeAdapter(list[Enrolment])
_Shape = TypeVar("_Shape")


class Registry:
    """The registry, through an httpx client of the mesh (`http://<app-id>/…`, see `sidecar.MeshTransport`)."""

    def __init__(self, client: httpx.AsyncClient, base_url: str = f"http://{REGISTRY}") -> None:
        self._client, self._url = client, f"{base_url.rstrip('/')}/agents"

    async def enrol(self, app_id: str, url: str, kind: Kind = "a2a") -> Enrolment:
        """Enrol the app that calls, or confirm that it still runs. The registry fetches and verifies its card first.

        Raises:
            CardRejected: the registry does not believe the card; enrolling again does not help.
            AgentUnavailable: it can't be reached, or can't reach this app, now.
        """
        response = await self._request("PUT", self._url, json={"app_id": app_id, "kind": kind, "url": url})
        if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            raise CardRejected(f"The registry does not list '{app_id}': {words_of(response)}")
        return _read(_ENROLMENT, response)

    async def agents(self) -> list[Enrolment]:
        """Every app in the inventory, by app-id. Raises AgentUnavailable."""
        return _read(_ENROLMENTS, await self._request("GET", self._url))

    async def agent(self, app_id: str) -> Enrolment:
        """One app of the inventory.

        Raises:
            AgentUnavailable: it is not enrolled, or the registry can't be reached.
        """
        response = await self._request("GET", f"{self._url}/{quote(app_id, safe='')}")
        if response.status_code == httpx.codes.NOT_FOUND:
            raise AgentUnavailable(f"'{app_id}' is not in the registry: start it, it enrols itself.")
        return _read(_ENROLMENT, response)

    async def _request(self, method: str, url: str, json: dict[str, str] | None = None) -> httpx.Response:
        try:
            return await self._client.request(method, url, json=json)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise AgentUnavailable(
                f"The registry can't be reached ({reason}): check that it and the own sidecar run."
            ) from error


async def keep_enrolled(registry: Registry, app_id: str, url: str, kind: Kind = "a2a") -> None:
    """Enrol an app, again and again: the inventory sees that it is still there. Runs until it is cancelled."""
    told = ""
    while True:
        try:
            await registry.enrol(app_id, url, kind)
        except (AgentUnavailable, CardRejected) as error:
            if str(error) != told:
                log.warning("%s is not in the registry yet: %s", app_id, error)
                told = str(error)
            await asyncio.sleep(RETRY_SECONDS)
        else:
            told = ""
            await asyncio.sleep(HEARTBEAT_SECONDS)


def _read(shape: TypeAdapter[_Shape], response: httpx.Response) -> _Shape:
    if response.status_code == httpx.codes.FORBIDDEN:
        raise AccessDenied(f"The registry refuses this caller; let it in, in its access rules: {words_of(response)}")
    if not response.is_success:
        raise AgentUnavailable(f"The registry answers HTTP {response.status_code}: {words_of(response)}")
    try:
        return shape.validate_json(response.content)
    except ValidationError as error:
        raise AgentUnavailable("The registry answers something else than enrolments: check its address.") from error
