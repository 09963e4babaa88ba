"""Cards on the wire: served with cache headers, fetched with limits, verified every time."""

import json
from datetime import UTC, datetime

import httpx
import pytest
from a2a.client import A2ACardResolver
from a2a.types import AgentCard
from google.protobuf.json_format import ParseDict
from jwcrypto.jwk import JWK
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from starlette.applications import Starlette

from sidecard import card as card_module
from sidecard.card import MAX_CARD_BYTES, CardCache, SignedCard, card_routes, fetch_card, parse_card
from sidecard.errors import AccessDenied, AgentUnavailable, CardRejected
from sidecard.signature import card_dict, digest, sign
from sidecard.trust import TrustStore

PATH = "/.well-known/agent-card.json"
KEY = JWK.generate(kty="EC", crv="P-256", kid="flights-1", alg="ES256")
CARD = sign(
    ParseDict({"name": "flights", "version": "1.0.0", "provider": {"organization": "Travel Desk"}}, AgentCard()), KEY
)
MODIFIED = datetime(2026, 3, 3, 12, 30, tzinfo=UTC)
TRUST = TrustStore.parse(
    json.dumps({"publishers": {"Travel Desk": {"keys": [KEY.export_public(as_dict=True)]}}}),
)
NOBODY = TrustStore.parse('{"publishers": {}}')


def serving(signed: SignedCard | None, *, max_age: int = 300) -> httpx.AsyncClient:
    app = Starlette(routes=card_routes(lambda: signed, max_age=max_age))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://flights")


def answering(handler) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(handler))


def answer(body: bytes | str, **headers: str) -> httpx.AsyncClient:
    sent = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return answering(lambda _: httpx.Response(200, content=body, headers=sent))


@pytest.fixture
def signed() -> SignedCard:
    return SignedCard(CARD, MODIFIED)


async def test_the_card_is_served_cacheable(signed):
    """The card comes as JSON with Cache-Control, a strong ETag and Last-Modified. A2A 1.0 §8.6.1."""
    async with serving(signed, max_age=60) as client:
        response = await client.get(PATH)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "public, max-age=60"
    assert response.headers["etag"] == signed.etag
    assert signed.etag.startswith('"')
    assert response.headers["last-modified"] == "Tue, 03 Mar 2026 12:30:00 GMT"
    assert parse_card(response.content, "test") == CARD


async def test_head_has_the_headers_only(signed):
    """HEAD answers what GET does, without the body."""
    async with serving(signed) as client:
        head, get = await client.head(PATH), await client.get(PATH)
    assert head.headers == get.headers
    assert head.content == b""


async def test_other_methods_are_refused(signed):
    """The card can't be posted to."""
    async with serving(signed) as client:
        assert (await client.post(PATH)).status_code == 405


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if-none-match": "ETAG"}, 304),
        ({"if-none-match": 'W/"x", W/ETAG'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"another"'}, 200),
        ({"if-modified-since": "Tue, 03 Mar 2026 12:30:00 GMT"}, 304),
        ({"if-modified-since": "Tue, 03 Mar 2026 12:29:59 GMT"}, 200),
        ({"if-modified-since": "yesterday"}, 200),
        ({"if-none-match": '"another"', "if-modified-since": "Tue, 03 Mar 2026 12:30:00 GMT"}, 200),
    ],
)
async def test_a_card_the_client_has_is_not_sent_again(signed, headers, status):
    """Conditional requests get 304 with the same validators; an ETag outranks a date. RFC 9110 §13."""
    sent = {name: value.replace("ETAG", signed.etag) for name, value in headers.items()}
    async with serving(signed) as client:
        response = await client.get(PATH, headers=sent)
    assert response.status_code == status
    assert response.headers["etag"] == signed.etag
    assert "last-modified" in response.headers
    assert bool(response.content) == (status == 200)


async def test_a_card_that_is_not_ready_says_so():
    """Before the sidecar has given the key, the answer is 503 and is not cached."""
    async with serving(None) as client:
        response = await client.get(PATH)
    assert response.status_code == 503
    assert "ask again" in response.json()["error"]
    assert (response.headers["cache-control"], response.headers["retry-after"]) == ("no-store", "1")


def test_another_card_has_another_etag(signed):
    """The ETag is that of the bytes."""
    changed = AgentCard()
    changed.CopyFrom(CARD)
    changed.version = "1.0.1"
    assert SignedCard(changed).etag != signed.etag
    assert SignedCard(CARD).etag == signed.etag


async def test_the_official_sdk_reads_what_is_served(signed):
    """The official SDK's resolver gets the same card."""
    async with serving(signed) as client:
        assert await A2ACardResolver(client, "http://flights").get_agent_card() == CARD


@pytest.mark.parametrize("url", ["http://flights", "http://flights/", f"http://flights{PATH}"])
async def test_a_fetched_card_is_verified(signed, url):
    """A base URL or the card's own gives the verified card."""
    async with serving(signed) as client:
        verified = await fetch_card(client, url, TRUST, agent="flights")
    assert (verified.publisher, verified.digest) == ("Travel Desk", digest(CARD))


async def test_another_agents_card_is_rejected(signed):
    """A well-signed card of another agent is refused at this address."""
    async with serving(signed) as client:
        with pytest.raises(CardRejected, match="card of 'flights', not 'expenses'"):
            await fetch_card(client, "http://flights", TRUST, agent="expenses")


async def test_an_unchanged_card_is_verified_again_on_304(signed):
    """The second fetch transfers nothing, and a key withdrawn meanwhile is noticed."""
    statuses = []

    async def note(response: httpx.Response) -> None:
        statuses.append(response.status_code)

    cache = CardCache()
    async with serving(signed) as client:
        client.event_hooks = {"response": [note]}
        first = await fetch_card(client, "http://flights", TRUST, cache=cache)
        assert await fetch_card(client, "http://flights", TRUST, cache=cache) == first
        with pytest.raises(CardRejected, match="is unknown"):
            await fetch_card(client, "http://flights", NOBODY, cache=cache)
    assert statuses == [200, 304, 304]


async def test_a_changed_card_replaces_the_cached_one():
    """After the card changed, its new content is what is returned."""
    current = [SignedCard(CARD)]
    app = Starlette(routes=card_routes(lambda: current[0]))
    cache = CardCache()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        await fetch_card(client, "http://flights", TRUST, cache=cache)
        changed = AgentCard()
        changed.CopyFrom(CARD)
        changed.version = "2.0.0"
        current[0] = SignedCard(sign(changed, KEY))
        assert (await fetch_card(client, "http://flights", TRUST, cache=cache)).card.version == "2.0.0"


def test_the_cache_is_bounded():
    """The cache keeps the latest cards only, and none without an ETag."""
    cache = CardCache(size=2)
    for url in ("a", "b", "c"):
        cache.put(url, '"e"', b"")
    cache.put("c", None, b"")
    assert [cache.get(url) is not None for url in ("a", "b", "c")] == [False, True, False]


async def test_a_304_nobody_asked_for_is_no_card():
    """Without a cached card there is nothing that could be unmodified."""
    async with answering(lambda _: httpx.Response(304)) as client:
        with pytest.raises(AgentUnavailable, match="HTTP 304"):
            await fetch_card(client, "http://flights", TRUST, cache=CardCache())


@pytest.mark.parametrize("status", [301, 404, 500, 503])
async def test_another_status_means_unavailable(status):
    """Redirects are not followed, and errors are named."""
    async with answering(lambda _: httpx.Response(status, headers={"location": "http://forger"})) as client:
        with pytest.raises(AgentUnavailable, match=f"HTTP {status}.*check"):
            await fetch_card(client, "http://flights", TRUST)


async def test_a_caller_that_is_refused_is_told_where_to_be_let_in():
    """403 comes from access rules, so the message names them."""
    async with answering(lambda _: httpx.Response(403)) as client:
        with pytest.raises(AccessDenied, match="access rules"):
            await fetch_card(client, "http://flights", TRUST)


async def test_an_agent_that_cannot_be_reached_is_unavailable():
    """No connection gives one line that says what to check."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async with answering(refuse) as client:
        with pytest.raises(AgentUnavailable, match=r"\(refused\): check that"):
            await fetch_card(client, "http://flights", TRUST)


async def test_an_impossible_address_is_unavailable():
    """An address that isn't one gives the same kind of error."""
    async with answering(lambda _: httpx.Response(200)) as client:
        with pytest.raises(AgentUnavailable):
            await fetch_card(client, "http://flights:port", TRUST)


async def test_a_card_that_trickles_is_given_up():
    """The time limit is for the whole card, not for each byte."""

    class Trickle(httpx.AsyncByteStream):
        async def __aiter__(self):
            while True:
                await card_module.asyncio.sleep(0)
                yield b""

    async with answering(
        lambda _: httpx.Response(200, headers={"content-type": "application/json"}, stream=Trickle())
    ) as client:
        with pytest.raises(AgentUnavailable, match="TimeoutError"):
            await fetch_card(client, "http://flights", TRUST, timeout=0.01)


async def test_a_card_too_large_is_rejected():
    """Reading stops at the limit."""
    read = 0

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self):
            nonlocal read
            while True:
                read += 65_536
                yield b" " * 65_536

    async with answering(
        lambda _: httpx.Response(200, headers={"content-type": "application/json"}, stream=Endless())
    ) as client:
        with pytest.raises(CardRejected, match="larger than"):
            await fetch_card(client, "http://flights", TRUST)
    assert read <= MAX_CARD_BYTES + 65_536


async def test_another_media_type_is_rejected():
    """A web page is not a card."""
    async with answer("<html>", content_type="text/html") as client:
        with pytest.raises(CardRejected, match="serves text/html, not JSON"):
            await fetch_card(client, "http://flights", TRUST)


async def test_a_compressed_card_is_rejected():
    """Compression was not asked for; unpacking could take any amount of memory."""
    async with answer(b"\x1f\x8b", content_encoding="gzip") as client:
        with pytest.raises(CardRejected, match="compressed"):
            await fetch_card(client, "http://flights", TRUST)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"7",
        b'{"name": 7}',
        b'{"name": "\\ud800"}',
        b'{"skills": [7]}',
        b'{"skills": {"a": 1}}',
        b'{"securitySchemes": [1]}',
        b'{"signatures": "x"}',
        b'{"capabilities": {"extensions": [{"params": {"a": NaN}}]}}',
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b'{"capabilities": {"extensions": [{"params": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}]}}",
    ],
)
async def test_what_is_not_a_card_is_rejected(body):
    """Malformed JSON, wrong types and deep nesting are each a rejection in one line."""
    async with answer(body) as client:
        with pytest.raises(CardRejected) as rejection:
            await fetch_card(client, "http://flights", TRUST)
    assert "\n" not in str(rejection.value)


async def test_deep_nesting_within_a_signed_card_is_rejected():
    """Nesting that a parser still reads can't exhaust the verifier."""
    nested = b'{"a":' * 90 + b"1" + b"}" * 90
    content = json.dumps(card_dict(CARD)).encode()
    body = content[:-1] + b', "capabilities": {"extensions": [{"params": ' + nested + b"}]}}"
    async with answer(body) as client:
        with pytest.raises(CardRejected):
            await fetch_card(client, "http://flights", TRUST)


async def test_fetches_are_counted_by_result(signed, monkeypatch):
    """`sidecard.card.fetches` counts each fetch once, as verified, rejected or unavailable."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("sidecard")
    assert isinstance(card_module._FETCHES, metrics.Counter)
    monkeypatch.setattr(card_module, "_FETCHES", meter.create_counter("sidecard.card.fetches"))
    async with serving(signed) as client:
        await fetch_card(client, "http://flights", TRUST)
        with pytest.raises(CardRejected):
            await fetch_card(client, "http://flights", NOBODY)
    async with answering(lambda _: httpx.Response(500)) as client:
        with pytest.raises(AgentUnavailable):
            await fetch_card(client, "http://flights", TRUST)
    [resource] = reader.get_metrics_data().resource_metrics
    [metric] = resource.scope_metrics[0].metrics
    points = {point.attributes["result"]: point.value for point in metric.data.data_points}
    assert points == {"verified": 1, "rejected": 1, "unavailable": 1}
