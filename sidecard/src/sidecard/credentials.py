"""Our own tokens for agents outside of the mesh: OAuth 2.0 client credentials (RFC 6749 §4.4) and token exchange.

A token is asked for exactly one agent (`resource`, RFC 8707) and exactly the scopes of the skill that is called, kept
in memory until shortly before it expires, and sent to that agent's origin alone. The issuer and what we are called
there are the operator's word, never the card's: a card could name an issuer that only collects client secrets.
"""

import asyncio
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

import httpx
from pydantic import BaseModel, ConfigDict, SecretStr, TypeAdapter, ValidationError

from sidecard.callers.discovery import discover
from sidecard.egress import DestinationRefused, Origin
from sidecard.errors import AccessDenied, AgentUnavailable, ConfigurationError, IssuerNotBelieved, IssuerUnavailable
from sidecard.outbound import Outbound

METADATA_SECONDS = 600.0
"""How long it is believed where an issuer's token endpoint is."""
EARLY_SECONDS = 30.0
"""How long before its end a token is used no more; a short-lived one's last fifth."""
UNSAID_SECONDS = 60.0
"""How long a token is used whose end is not said."""
MOST_TOKENS = 1_024
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 -- a name
_MAY_PASS = frozenset({"temporarily_unavailable", "server_error", "slow_down"})


class OAuthClient(BaseModel):
    """What this agent is called at an issuer, and its secret there."""

    model_config = ConfigDict(extra="forbid")

    client_id: str
    client_secret: SecretStr


_CLIENTS = TypeAdapter(dict[str, OAuthClient])


def parse_clients(secret: str) -> dict[str, OAuthClient]:
    """The clients by issuer in the secret `clients`. Raises ConfigurationError, without its content."""
    try:
        return _CLIENTS.validate_json(secret)
    except ValidationError:
        raise ConfigurationError(
            'the secret clients is not {"<issuer>": {"client_id": "…", "client_secret": "…"}}: '
            "write there what the issuers of foreign agents call this agent, or remove it"
        ) from None


@dataclass(frozen=True, slots=True)
class Authority:
    """What a token is for: one agent, at whose issuer, with which scopes; and whose rights it carries, if not ours."""

    issuer: str
    audience: str
    scope: str
    subject_token: str = ""

    def __repr__(self) -> str:
        return f"Authority({self.issuer!r}, {self.audience!r}, {self.scope!r})"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells it from others in memory, without the subject's token."""
        subject = hashlib.sha256(self.subject_token.encode()).hexdigest() if self.subject_token else ""
        return self.issuer, self.audience, self.scope, subject


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    until: float


class Tokens:
    """Tokens of ours, asked for when they are needed and kept while they are good; at most one request for each."""

    def __init__(
        self,
        outbound: Outbound,
        clients: Mapping[str, OAuthClient],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = outbound.client()
        self._clients = dict(clients)
        self._clock = clock
        self._tokens: OrderedDict[tuple[str, str, str, str], _Token] = OrderedDict()
        self._asking: dict[tuple[str, str, str, str], asyncio.Task[_Token]] = {}
        self._endpoints: dict[str, tuple[str, float]] = {}

    @property
    def issuers(self) -> Collection[str]:
        """Those that know us: whose client we are."""
        return self._clients.keys()

    async def token(self, authority: Authority, *, instead_of: str = "") -> str:
        """A token that is good for some seconds at least, and is not `instead_of`, which was just refused.

        Raises:
            AccessDenied: the issuer gives us none, and would not if it were asked again; or we are not known there.
            AgentUnavailable: the issuer can't be reached now.
        """
        key = authority.key
        known = self._tokens.get(key)
        if known is not None and known.until > self._clock() and known.value != instead_of:
            self._tokens.move_to_end(key)
            return known.value
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.create_task(self._ask(authority), name="token")
            asking.add_done_callback(lambda done: self._asked(key, done))
        return (await asyncio.shield(asking)).value  # who gives up waiting takes it from nobody else

    def _asked(self, key: tuple[str, str, str, str], done: "asyncio.Task[_Token]") -> None:
        del self._asking[key]
        if done.cancelled() or done.exception():
            self._tokens.pop(key, None)
            return
        self._tokens[key] = done.result()
        self._tokens.move_to_end(key)
        if len(self._tokens) > MOST_TOKENS:
            self._tokens.popitem(last=False)

    async def _ask(self, authority: Authority) -> _Token:
        client = self._clients.get(authority.issuer)
        if client is None:
            raise AccessDenied(
                f"no client of ours is known at {authority.issuer}: write its id and secret into the secret clients"
            )
        asked_at = self._clock()
        basic = httpx.BasicAuth(*map(quote_plus, (client.client_id, client.client_secret.get_secret_value())))
        try:
            endpoint = await self._endpoint(authority.issuer)
            answer = await self._http.post(endpoint, data=_form(authority), auth=basic)
            told = json.loads(answer.content)
            if not answer.is_success:
                raise _refused(authority, answer, told)
            return _read(told, authority, asked_at)
        except IssuerNotBelieved as error:
            raise AccessDenied(f"{authority.issuer} is not asked for a token: {error}") from None
        except IssuerUnavailable as error:
            raise AgentUnavailable(f"{authority.issuer} can't be asked for a token: {error}") from None
        except DestinationRefused as error:
            raise AccessDenied(f"{authority.issuer} is not asked for a token: {error}") from None
        except httpx.HTTPError as error:
            raise AgentUnavailable(f"{authority.issuer} can't be reached ({type(error).__name__})") from None
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise AgentUnavailable(f"{authority.issuer} answers something else than a token") from None

    async def _endpoint(self, issuer: str) -> str:
        """The issuer's token endpoint, by its own metadata (OpenID Connect Discovery §4, RFC 8414)."""
        known = self._endpoints.get(issuer)
        if known and known[1] > self._clock():
            return known[0]
        metadata = await discover(self._http, issuer, verifies=False)
        endpoint = metadata.endpoint("token_endpoint")
        if not endpoint or Origin.of(endpoint).scheme != Origin.of(issuer).scheme:
            raise AccessDenied(f"{issuer} has no token endpoint that is reached as safely as itself")
        self._endpoints[issuer] = endpoint, self._clock() + METADATA_SECONDS
        return endpoint


class Bearer(httpx.Auth):
    """Sends our token with each request to one origin, and none anywhere else; a 401 gets a new one, once."""

    def __init__(self, tokens: Tokens, authority: Authority, origin: Origin) -> None:
        self._tokens, self._authority, self._origin = tokens, authority, origin

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See httpx."""
        if Origin.of(str(request.url)) != self._origin:
            yield request
            return
        token = await self._tokens.token(self._authority)
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            fresh = await self._tokens.token(self._authority, instead_of=token)
            request.headers["Authorization"] = f"Bearer {fresh}"
            yield request


def _form(authority: Authority) -> dict[str, str]:
    form = {"grant_type": "client_credentials", "resource": authority.audience}
    if authority.scope:
        form["scope"] = authority.scope
    if authority.subject_token:
        form |= {"grant_type": EXCHANGE, "subject_token": authority.subject_token, "subject_token_type": ACCESS_TOKEN}
    return form


def _refused(authority: Authority, answer: httpx.Response, told: Any) -> AgentUnavailable:  # noqa: ANN401 -- JSON
    """Why there is no token: in the issuer's one word (RFC 6749 §5.2), since its sentences may quote what we sent."""
    word = str(told["error"])[:60]
    passes = answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS or word in _MAY_PASS
    return (AgentUnavailable if passes else AccessDenied)(
        f"{authority.issuer} gives no token for {authority.scope or 'no scope'} at {authority.audience}: {word!r}"
    )


def _read(answer: Any, authority: Authority, asked_at: float) -> _Token:  # noqa: ANN401 -- JSON
    value, kind, seconds = (answer.get(name) for name in ("access_token", "token_type", "expires_in"))
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value or not value:
        raise AgentUnavailable(f"{authority.issuer} answers something else than a token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise AccessDenied(f"{authority.issuer} gives out tokens of another kind than bearer tokens")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        seconds = UNSAID_SECONDS
    return _Token(value, asked_at + seconds - min(EARLY_SECONDS, seconds / 5))
