"""The inventory of agents, as an agent or the command line sees it: enrol oneself, list the others, enrol foreign ones.

Apps of the estate enrol themselves, as often as their heart beats. Agents outside it are enrolled by an operator.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sidecard.callers import CallersFile
from sidecard.error_words import words_of
from sidecard.errors import AccessDenied, AgentUnavailable, CardRejected, ConfigurationError
from sidecard.trust import VerifiedCard

log = logging.getLogger("sidecard")

HEARTBEAT_SECONDS = 20.0
RETRY_SECONDS = 1.0
REGISTRY = "registry"
"""The registry's app-id."""
OPERATE = "estate:operate"
"""The scope that an operator holds at the registry, in agents/callers.yaml: to enrol and dismiss."""
MOST_CALLERS = 1_000
_NUMBERS = re.compile(r"v?([0-9]{1,9}(?:\.[0-9]{1,9}){0,5})")


def _web_address(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"must be a URL: {error}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError("must be an http or https URL")
    return url


Url = Annotated[str, Field(max_length=2_048), AfterValidator(_web_address)]
AppId = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Kind = Literal["a2a", "mcp"]
Lets = dict[Annotated[str, Field(max_length=256)], list[Annotated[str, Field(max_length=256)]]]
"""Callers' names, and the scopes that each holds."""


class EnrolmentRequest(BaseModel):
    """What an app says of itself; all else the registry takes from its verified card."""

    model_config = ConfigDict(extra="forbid")

    app_id: AppId
    kind: Kind
    url: Url
    lets: Annotated[Lets, Field(max_length=MOST_CALLERS)] = {}


class ForeignRequest(BaseModel):
    """What an operator says of an agent outside the mesh.

    `name` is what it is to be called here, by default made of its card's name; `publisher` who must have signed its
    card. `pin` believes the very card that it serves instead, signed or not. `digest` is the card's that the operator
    was shown: another one is refused.
    """

    model_config = ConfigDict(extra="forbid")

    url: Url
    name: AppId | None = None
    publisher: Annotated[str, Field(max_length=256)] = ""
    pin: bool = False
    digest: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""


class Demand(BaseModel):
    """One thing that an agent's card demands of its callers.

    `kind` is the type of security scheme (`oauth2`, `openIdConnect`, `http bearer`, `apiKey`, `mutualTLS`); `issuer`
    where its tokens come from: the address of the issuer's metadata, else of its token endpoint; `scopes` which ones.
    """

    scheme: str
    kind: str
    issuer: str = ""
    scopes: list[str] = []


class Enrolment(BaseModel):
    """One app in the inventory. `verified_at` is None and the card's fields are empty for an MCP server.

    `lets` says whom it lets call which of its scopes, in its own words. A `foreign` agent was enrolled by an operator
    and lies outside the mesh, at its `card_url`; `demands` is what it wants of callers, any one of these, each with all
    that it needs. One that is `pinned` is believed by `card_digest`, any other by its publisher's keys. While there is
    a `problem` it is shown, and not used. `signed_at` is of the newest signature that was ever seen.
    """

    app_id: AppId
    kind: Kind
    name: str
    version: str = ""
    publisher: str = ""
    skills: list[str] = []
    card_digest: str = ""
    card_url: str
    kid: str = ""
    signed_at: datetime | None = None
    enrolled_at: datetime
    last_seen: datetime
    verified_at: datetime | None = None
    lets: Lets = {}
    foreign: bool = False
    pinned: bool = False
    demands: list[list[Demand]] = []
    problem: str = ""

    def refuse_older(self, found: VerifiedCard) -> None:
        """Raises CardRejected for a card that is older than the one listed here: somebody shows it again.

        The later signature is the newer card, also where its version is lower: only the publisher can sign. Cards
        whose signatures do not say when they were made are compared by their versions.
        """
        if found.digest == self.card_digest or found.publisher != self.publisher or self.pinned:
            return
        if self.signed_at is not None:
            older = found.signed_at is None or found.signed_at < self.signed_at
        else:
            older = found.signed_at is None and _is_lower(found.card.version, self.version)
        if older:
            raise CardRejected(
                f"The card of '{self.app_id}' is older than the one that was seen {self.verified_at:%Y-%m-%d %H:%M} "
                f"UTC (version {self.version}, now {found.card.version}): somebody shows an old one again. If its "
                "publisher went back to it, it has to be signed anew."
            )


_ENROLMENT = TypeAdapter(Enrolment)
_ENROLMENTS = TypeAdapter(list[Enrolment])
_Shape = TypeVar("_Shape")


class Registry:
    """The registry, through an httpx client of the mesh (`http://<app-id>/…`, see `sidecar.MeshTransport`)."""

    def __init__(self, client: httpx.AsyncClient, base_url: str = f"http://{REGISTRY}") -> None:
        self._client, self._url = client, f"{base_url.rstrip('/')}/agents"
        self._estate = f"{base_url.rstrip('/')}/estate"

    async def enrol(
        self, app_id: str, url: str, kind: Kind = "a2a", lets: Mapping[str, list[str]] | None = None
    ) -> Enrolment:
        """Enrol the app that calls, or confirm that it still runs. The registry fetches and verifies its card first.

        `lets` is whom it lets call which of its scopes.

        Raises:
            CardRejected: the registry does not believe the card; enrolling again does not help.
            AgentUnavailable: it can't be reached, or can't reach this app, now.
        """
        said = {"app_id": app_id, "kind": kind, "url": url, "lets": dict(lets or {})}
        response = await self._request("PUT", self._url, json=said)
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
            raise AgentUnavailable(
                f"'{app_id}' is not in the registry: start it, it enrols itself; one outside the mesh is enrolled by "
                "`sidecard enrol URL`."
            )
        return _read(_ENROLMENT, response)

    async def look_at(self, request: ForeignRequest) -> Enrolment:
        """What the registry would list of a foreign agent, with nothing written down; for operators.

        Raises:
            CardRejected: its card is not believed, or is where it can't be; `digest`, if given, is of another one.
            AccessDenied: the caller is no operator.
            AgentUnavailable: the registry can't be reached, or can't reach the agent, now.
        """
        return self._foreign(request, await self._request("POST", self._estate, json=request.model_dump()))

    async def enrol_foreign(self, request: ForeignRequest) -> Enrolment:
        """List a foreign agent, or anew with what its card says now; for operators. Raises as `look_at`."""
        return self._foreign(request, await self._request("PUT", self._estate, json=request.model_dump()))

    async def dismiss(self, app_id: str) -> None:
        """Take an agent off the list; for operators. An app of the mesh that runs comes back by itself.

        Raises:
            AccessDenied: the caller is no operator.
            ConfigurationError: it is not listed.
            AgentUnavailable: the registry can't be reached.
        """
        response = await self._request("DELETE", f"{self._estate}/{quote(app_id, safe='')}")
        if response.status_code == httpx.codes.NOT_FOUND:
            raise ConfigurationError(f"'{app_id}' is not in the registry: `sidecard agents` lists who is.")
        _check(response)

    def _foreign(self, request: ForeignRequest, response: httpx.Response) -> Enrolment:
        if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            raise CardRejected(f"The registry does not list {request.url}: {words_of(response)}")
        return _read(_ENROLMENT, response)

    async def _request(self, method: str, url: str, json: object = None) -> httpx.Response:
        try:
            return await self._client.request(method, url, json=json)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise AgentUnavailable(
                f"The registry can't be reached ({reason}): check that it and the own sidecar run."
            ) from error


def lets_of(file: CallersFile, agent: str) -> dict[str, list[str]]:
    """Whom agents/callers.yaml lets call an agent, and which of its scopes each holds."""
    granted = {name: grant.grants.get(agent) for name, grant in sorted(file.callers.items())}
    return {name: sorted(scopes) for name, scopes in granted.items() if scopes}


async def keep_enrolled(
    registry: Registry, app_id: str, url: str, kind: Kind = "a2a", lets: Mapping[str, list[str]] | None = None
) -> None:
    """Enrol an app, again and again: the inventory sees that it is still there. Runs until it is cancelled."""
    told = ""
    while True:
        try:
            await registry.enrol(app_id, url, kind, lets)
        except (AgentUnavailable, CardRejected) as error:
            if str(error) != told:
                log.warning("%s is not in the registry yet: %s", app_id, error)
                told = str(error)
            await asyncio.sleep(RETRY_SECONDS)
        else:
            told = ""
            await asyncio.sleep(HEARTBEAT_SECONDS)


def _is_lower(version: str, than: str) -> bool:
    """Whether one version comes before another; never, where one is not made of numbers."""
    found, known = (_NUMBERS.match(text) for text in (version, than))
    if found is None or known is None:
        return False
    return [int(n) for n in found[1].split(".")] < [int(n) for n in known[1].split(".")]


def _check(response: httpx.Response) -> None:
    if response.status_code == httpx.codes.FORBIDDEN:
        raise AccessDenied(f"The registry refuses this caller; let it in, in its access rules: {words_of(response)}")
    if not response.is_success:
        raise AgentUnavailable(f"The registry answers HTTP {response.status_code}: {words_of(response)}")


def _read(shape: TypeAdapter[_Shape], response: httpx.Response) -> _Shape:
    _check(response)
    try:
        return shape.validate_json(response.content)
    except ValidationError as error:
        raise AgentUnavailable("The registry answers something else than enrolments: check its address.") from error
