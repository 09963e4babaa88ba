"""Agent Cards on the wire: fetched and verified, signed and served at the well-known path. A2A 1.0 §8.2 and §8.6."""

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import urlsplit

import httpx
import rfc8785
from a2a.client.card_resolver import parse_agent_card
from a2a.types import AgentCard
from a2a.utils.constants import AGENT_CARD_WELL_KNOWN_PATH
from opentelemetry import metrics
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sidecard.card_03 import readable_by_03
from sidecard.errors import AccessDenied, AgentUnavailable, CardRejected
from sidecard.signature import NOT_JSON, card_dict
from sidecard.trust import TrustStore, VerifiedCard, Verifier, verify

MAX_CARD_BYTES = 1_048_576
_FETCHES = metrics.get_meter("sidecard").create_counter(
    "sidecard.card.fetches", unit="{fetch}", description="Agent Card fetches: verified, rejected or unavailable."
)


@dataclass(frozen=True)
class _Cached:
    etag: str
    body: bytes


class CardCache:
    """The last body and ETag of each card, so that an unchanged one isn't sent again. What is in it is not trusted."""

    def __init__(self, size: int = 64) -> None:
        self._size = size
        self._entries: OrderedDict[str, _Cached] = OrderedDict()

    def get(self, url: str) -> _Cached | None:
        """The card last seen at this URL."""
        return self._entries.get(url)

    def put(self, url: str, etag: str | None, body: bytes) -> None:
        """Remember a card; one without ETag can't be revalidated, so it is forgotten."""
        self._entries.pop(url, None)
        if etag:
            self._entries[url] = _Cached(etag, body)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)


async def fetch_card(
    client: httpx.AsyncClient,
    url: str,
    trust: TrustStore | Verifier,
    *,
    agent: str | None = None,
    cache: CardCache | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109 - one limit for connecting, headers and body together
) -> VerifiedCard:
    """The card at an agent's base URL, verified against the pinned keys now, whether it came anew or from the cache.

    Args:
        client: reaches the URL; in the mesh, one over `sidecar.MeshTransport`.
        url: the agent's base URL, or the card's own.
        trust: the pinned keys; or what else decides, such as `trust.Pinned.verify` where nobody signs the cards.
        agent: the name the card must bear, so that one agent can't show another's card.
        cache: lets the agent answer "304 Not Modified".
        timeout: seconds for the whole fetch.

    Raises:
        AgentUnavailable: the agent can't be reached or serves no card now (AccessDenied: not to this app).
        CardRejected: what it serves is not a card, or not one to believe.
    """
    result = "unavailable"
    try:
        card_url = _card_url(url)
        card = await get_card(client, url, cache=cache, timeout=timeout)
        verified = verify(card, trust) if isinstance(trust, TrustStore) else trust(card)
        if agent is not None and verified.card.name != agent:
            raise CardRejected(
                f"{card_url} serves the card of '{verified.card.name}', not '{agent}': check the address."
            )
        result = "verified"
    except CardRejected:
        result = "rejected"
        raise
    finally:
        _FETCHES.add(1, {"result": result})
    return verified


async def get_card(
    client: httpx.AsyncClient,
    url: str,
    *,
    cache: CardCache | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109 - as above
) -> AgentCard:
    """The card at an agent's base URL, not verified: nothing of it may be used before it is (`fetch_card` does both).

    Raises AgentUnavailable, and CardRejected for what is no card.
    """
    card_url = _card_url(url)
    return parse_card(await _fetch(client, card_url, cache, timeout), card_url)


def parse_card(body: bytes, source: str) -> AgentCard:
    """The card in a JSON body, unverified. Fields that A2A 1.0 does not know are left out.

    Raises:
        CardRejected: it is no Agent Card; `source` tells where it came from.
    """
    try:
        return parse_agent_card(json.loads(body))
    except NOT_JSON as error:
        reason = str(error).partition("\n")[0][:200]
        raise CardRejected(f"{source} is not an Agent Card of A2A 1.0 ({reason}): ask its owner to mend it.") from error


def reached_at(card: AgentCard, base: str) -> AgentCard:
    """The card with its JSON-RPC interface alone, at this base URL: of the public one only the path is believed.

    Raises:
        AgentUnavailable: it has no JSON-RPC interface, the binding that is spoken here.
    """
    interface = next((i for i in card.supported_interfaces if i.protocol_binding == "JSONRPC"), None)
    if interface is None:
        raise AgentUnavailable(f"{card.name} serves no JSON-RPC, the only binding that is spoken here.")
    here = AgentCard()
    here.CopyFrom(card)
    del here.supported_interfaces[:]
    added = here.supported_interfaces.add()
    added.CopyFrom(interface)
    added.url = base + urlsplit(interface.url).path
    return here


@dataclass(frozen=True)
class SignedCard:
    """A card as it is served: always the same bytes, so that its ETag is a strong one."""

    card: AgentCard
    modified: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    body: bytes = field(init=False)
    etag: str = field(init=False)

    def __post_init__(self) -> None:
        body = rfc8785.dumps(readable_by_03(self.card, card_dict(self.card)))
        object.__setattr__(self, "body", body)
        object.__setattr__(self, "etag", f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def card_routes(get_card: Callable[[], SignedCard | None], *, max_age: int = 300) -> list[Route]:
    """The public card's route: GET and HEAD, cacheable for `max_age` seconds, 503 while `get_card` has none yet."""

    async def serve(request: Request) -> Response:
        signed = get_card()
        if signed is None:
            return JSONResponse(
                {"error": "The card is not signed yet, because the sidecar is still starting: ask again in a second."},
                503,
                {"Retry-After": "1", "Cache-Control": "no-store"},
            )
        headers = {
            "Cache-Control": f"public, max-age={max_age}",
            "ETag": signed.etag,
            "Last-Modified": format_datetime(signed.modified.astimezone(UTC), usegmt=True),
        }
        if _is_current(request, signed):
            return Response(None, 304, headers)
        return Response(signed.body, 200, headers, media_type="application/json")

    return [Route(AGENT_CARD_WELL_KNOWN_PATH, serve, methods=["GET"])]  # Starlette answers HEAD with it


def _is_current(request: Request, signed: SignedCard) -> bool:
    """Whether the client has this card already. RFC 9110 §13.1: an ETag given outranks a date given."""
    if (tags := request.headers.get("if-none-match")) is not None:
        return tags.strip() == "*" or signed.etag in {tag.strip().removeprefix("W/") for tag in tags.split(",")}
    try:
        since = parsedate_to_datetime(request.headers.get("if-modified-since", ""))
    except (ValueError, TypeError, OverflowError):
        return False
    return since.tzinfo is not None and signed.modified.replace(microsecond=0) <= since


def _card_url(url: str) -> str:
    return url if url.endswith(AGENT_CARD_WELL_KNOWN_PATH) else url.rstrip("/") + AGENT_CARD_WELL_KNOWN_PATH


async def _fetch(client: httpx.AsyncClient, url: str, cache: CardCache | None, seconds: float) -> bytes:
    """The body at the URL, or from the cache when it is unchanged. Nothing in it has been verified."""
    known = cache.get(url) if cache else None
    # Bodies come as they are: a compressed one could unpack to any size.
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if known:
        headers["If-None-Match"] = known.etag
    try:
        async with (
            asyncio.timeout(seconds),
            client.stream("GET", url, headers=headers, follow_redirects=False) as response,
        ):
            if known and response.status_code == httpx.codes.NOT_MODIFIED:
                return known.body
            _check_answer(response, url)
            body = await _read(response, url)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise AgentUnavailable(f"No card from {url} ({reason}): check that it and the own sidecar run.") from error
    if cache:
        cache.put(url, response.headers.get("etag"), body)
    return body


def _check_answer(response: httpx.Response, url: str) -> None:
    if response.status_code == httpx.codes.FORBIDDEN:
        raise AccessDenied(f"{url} refuses this caller (HTTP 403): let it in, in the agent's access rules.")
    if response.status_code != httpx.codes.OK:
        raise AgentUnavailable(f"No card from {url} (HTTP {response.status_code}): check that the agent runs there.")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise CardRejected(f"{url} serves {media_type or 'no media type'}, not JSON: check the address.")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise CardRejected(f"{url} serves a compressed card, though asked not to: its owner must switch that off.")


async def _read(response: httpx.Response, url: str) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_CARD_BYTES:
            raise CardRejected(f"The card at {url} is larger than {MAX_CARD_BYTES} bytes: its owner must shorten it.")
    return bytes(body)
