"""The registry as its clients see it: enrol, list, look up, and every way in which that can fail."""

import json
from datetime import UTC, datetime

import httpx
import pytest
from pydantic import ValidationError

from sidecard.errors import AccessDenied, AgentUnavailable, CardRejected
from sidecard.registry import Enrolment, EnrolmentRequest, Registry

NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)
FLIGHTS = Enrolment(
    app_id="flights",
    kind="a2a",
    name="flights",
    version="1.0.0",
    publisher="Travel Desk",
    skills=["search_flights", "book_flight"],
    card_digest="ab" * 32,
    card_url="http://127.0.0.1:8102",
    enrolled_at=NOW,
    last_seen=NOW,
    verified_at=NOW,
)


def registry(handler) -> Registry:
    return Registry(httpx.AsyncClient(transport=httpx.MockTransport(handler)))


def answering(status: int, content: object) -> Registry:
    return registry(lambda _: httpx.Response(status, json=content))


async def test_enrolling_says_who_one_is():
    """The app sends its app-id, kind and URL, and gets what the registry wrote down."""
    requests = []

    def enrol(request: httpx.Request) -> httpx.Response:
        requests.append((request.method, str(request.url), json.loads(request.content)))
        return httpx.Response(200, json=FLIGHTS.model_dump(mode="json"))

    lets = {"desk": ["flights:search"]}
    assert await registry(enrol).enrol("flights", FLIGHTS.card_url, lets=lets) == FLIGHTS
    body = {"app_id": "flights", "kind": "a2a", "url": "http://127.0.0.1:8102", "lets": lets}
    assert requests == [("PUT", "http://registry/agents", body)]


async def test_the_estate_is_listed():
    """`agents` gives every enrolment."""
    assert await answering(200, [FLIGHTS.model_dump(mode="json")]).agents() == [FLIGHTS]


async def test_one_agent_is_looked_up():
    """`agent` gives one enrolment; its name can't reach another path."""
    paths = []

    def find(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return httpx.Response(200, json=FLIGHTS.model_dump(mode="json"))

    found = registry(find)
    assert await found.agent("flights") == FLIGHTS
    await found.agent("../x")
    assert paths == [b"/agents/flights", b"/agents/..%2Fx"]


async def test_a_refused_enrolment_gives_the_reason():
    """The registry's words about the card reach the agent's log."""
    with pytest.raises(CardRejected, match="does not list 'flights': The card is not signed"):
        await answering(422, {"error": "The card is not signed"}).enrol("flights", FLIGHTS.card_url)


async def test_an_agent_that_is_not_enrolled_is_unavailable():
    """The message says how an agent gets into the registry."""
    with pytest.raises(AgentUnavailable, match="'hotels' is not in the registry: start it"):
        await answering(404, {"error": "No such app"}).agent("hotels")


async def test_a_caller_without_access_is_told_so():
    """Dapr's own refusal is named as such."""
    with pytest.raises(AccessDenied, match=r"refuses this caller.*access rules.*access control policy"):
        await answering(403, {"errorCode": "X", "message": "access control policy denies"}).agents()


@pytest.mark.parametrize("content", ["", "<html>", "[7]", "{}", '[{"app_id": "x"}]', "\x00"])
async def test_an_answer_that_is_none_is_unavailable(content):
    """Whatever is at the registry's address, the caller gets one clear line."""
    for status in (200, 500, 503):
        with pytest.raises(AgentUnavailable, match=r"^The registry answers"):
            await registry(lambda _, status=status: httpx.Response(status, text=content)).agents()


async def test_a_registry_that_cannot_be_reached_is_unavailable():
    """No connection gives one line that says what to check."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    for call in (registry(refuse).agents(), registry(refuse).agent("x"), registry(refuse).enrol("x", "http://x")):
        with pytest.raises(AgentUnavailable, match=r"can't be reached \(refused\): check"):
            await call


@pytest.mark.parametrize(
    "changes",
    [
        {"app_id": "Flights"},
        {"app_id": "a||b"},
        {"app_id": ""},
        {"app_id": "a" * 64},
        {"kind": "other"},
        {"url": "ftp://x"},
        {"url": "flights"},
        {"url": "http://a:b"},
        {"url": "http://" + "x" * 2_048},
        {"extra": 1},
    ],
)
def test_an_unsound_enrolment_request_is_refused(changes):
    """App-ids are DNS labels, kinds are known, URLs are http or https."""
    with pytest.raises(ValidationError):
        EnrolmentRequest.model_validate({"app_id": "flights", "kind": "a2a", "url": "http://x"} | changes)
