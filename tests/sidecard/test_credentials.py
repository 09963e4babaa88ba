"""Our tokens for others: for one agent and one skill, asked for once, kept, renewed, and sent nowhere else."""

import asyncio
import base64
import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from sidecard.credentials import EXCHANGE, Authority, Bearer, Tokens, parse_clients
from sidecard.egress import Destinations, Origin
from sidecard.errors import AccessDenied, AgentUnavailable, ConfigurationError
from sidecard.outbound import Outbound
from tests.sidecard.issuer import SECRET, Issuer


class Clock:
    """Time that is set."""

    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
async def issuer(listen):
    there = Issuer()
    there.url = f"http://127.0.0.1:{await listen(there.app())}"
    return there


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def tokens(issuer, clock):
    outbound = Outbound(Destinations.parse(issuer.url))
    clients = parse_clients(json.dumps({issuer.url: {"client_id": "fl:ights", "client_secret": SECRET}}))
    yield Tokens(outbound, clients, clock=clock)
    await outbound.aclose()


def rail(issuer, scope="rail:search", **more):
    return Authority(issuer.url, "https://rail.example.org", scope, **more)


async def test_a_token_is_asked_for_one_agent_and_one_skill(issuer, tokens):
    """RFC 6749 §4.4 with RFC 8707's `resource`; id and secret go into the header, encoded as §2.3.1 says."""
    assert await tokens.token(rail(issuer)) == "t1"
    [(basic, form)] = issuer.asked
    assert form == {
        "grant_type": ["client_credentials"],
        "scope": ["rail:search"],
        "resource": ["https://rail.example.org"],
    }
    assert base64.b64decode(basic.removeprefix("Basic ")) == b"fl%3Aights:s%253cret+%26+more"


async def test_a_token_is_kept_until_shortly_before_its_end(issuer, tokens, clock):
    """Per agent and scope, and the endpoint with it."""
    assert [await tokens.token(rail(issuer)) for _ in range(3)] == ["t1"] * 3
    assert await tokens.token(rail(issuer, "rail:book")) == "t2"
    assert await tokens.token(Authority(issuer.url, "https://hotel.example.org", "rail:search")) == "t3"
    clock.now += 569
    assert await tokens.token(rail(issuer)) == "t1"
    clock.now += 2
    assert await tokens.token(rail(issuer)) == "t4"
    assert issuer.looked_up == 1


@pytest.mark.parametrize(("seconds", "kept"), [(None, 47), (10, 7), (0, 0), (-5, 47), ("soon", 47), (True, 47)])
async def test_a_token_with_a_short_or_unsaid_end_is_kept_accordingly(issuer, tokens, clock, seconds, kept):
    """Never for ever."""
    issuer.seconds = seconds
    await tokens.token(rail(issuer))
    clock.now += kept
    await tokens.token(rail(issuer))
    assert len(issuer.asked) == (1 if kept > 0 else 2)
    clock.now += 2
    await tokens.token(rail(issuer))
    assert len(issuer.asked) == (2 if kept > 0 else 3)


async def test_many_at_once_ask_once(issuer, tokens):
    """Also when the first of them gives up waiting."""
    issuer.hold = asyncio.Event()
    asking = [asyncio.create_task(tokens.token(rail(issuer))) for _ in range(20)]
    async with asyncio.timeout(10):
        while not issuer.asked:  # noqa: ASYNC110 -- another program's state
            await asyncio.sleep(0.005)
    asking[0].cancel()
    issuer.hold.set()
    assert set(await asyncio.gather(*asking[1:])) == {"t1"}
    assert len(issuer.asked) == 1


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (401, {"error": "invalid_client", "error_description": SECRET}, AccessDenied),
        (400, {"error": "invalid_scope"}, AccessDenied),
        (503, {"error": "temporarily_unavailable"}, AgentUnavailable),
        (429, {"error": "slow_down"}, AgentUnavailable),
        (500, "<html>", AgentUnavailable),
        (200, [], AgentUnavailable),
        (200, {"access_token": "a b", "token_type": "Bearer"}, AgentUnavailable),
        (200, {"access_token": "a\r\nX: y", "token_type": "Bearer"}, AgentUnavailable),
        (200, {"access_token": "a", "token_type": "mac"}, AccessDenied),
        (302, {"error": "moved"}, AccessDenied),
    ],
)
async def test_an_issuer_that_gives_none_is_told_apart_from_one_that_is_down(issuer, tokens, status, answer, kind):
    """The first is not asked again; neither is remembered; no secret is in the words."""
    body = answer if isinstance(answer, str) else json.dumps(answer)
    issuer.answers = [Response(body, status, {"location": "/token"})]
    with pytest.raises(AgentUnavailable) as caught:
        await tokens.token(rail(issuer))
    assert type(caught.value) is kind
    assert SECRET not in str(caught.value)
    assert await tokens.token(rail(issuer)) == "t2"


async def test_an_issuer_where_we_are_not_known_is_not_asked(issuer, tokens):
    """It says where to write it."""
    with pytest.raises(AccessDenied, match="write its id and secret into the secret clients"):
        await tokens.token(Authority("https://else.example.org", "https://rail.example.org", ""))


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"issuer": "https://else.example.org"}, AccessDenied),
        ({"token_endpoint": "http://169.254.169.254/token"}, AccessDenied),
        ({"token_endpoint": "file:///etc/passwd"}, AccessDenied),
        ({"token_endpoint": None}, AccessDenied),
    ],
)
async def test_an_issuers_metadata_can_send_the_secret_nowhere_else(issuer, tokens, told, kind):
    """Another issuer's name (mix-up), a place that the operator does not allow."""
    issuer.told = told
    with pytest.raises(kind):
        await tokens.token(rail(issuer))
    assert issuer.asked == []


async def test_a_callers_token_is_exchanged_and_not_kept_in_words(issuer, tokens):
    """RFC 8693: what comes back is for the other agent, with the caller's rights; two callers never share one."""
    authority = rail(issuer, subject_token="ada's")
    assert await tokens.token(authority) == "t1"
    assert await tokens.token(rail(issuer, subject_token="bob's")) == "t2"
    assert await tokens.token(rail(issuer)) == "t3"
    assert await tokens.token(authority) == "t1"
    form = issuer.asked[0][1]
    assert form["grant_type"] == [EXCHANGE]
    assert form["subject_token"] == ["ada's"]
    assert form["subject_token_type"] == ["urn:ietf:params:oauth:token-type:access_token"]
    told = repr(authority) + repr(vars(tokens)["_tokens"])
    assert not any(token in told for token in ("ada's", "t1", "t2", "t3"))


class Agent:
    """A server that wants this token, or any."""

    def __init__(self):
        self.url, self.seen, self.wants = "", [], None

    def app(self):
        async def answer(request):
            self.seen.append(request.headers.get("authorization", ""))
            refused = self.wants is not None and self.seen[-1] != f"Bearer {self.wants}"
            return Response(await request.body(), 401 if refused else 200)

        return Starlette(routes=[Route("/", answer, methods=["POST"])])


@pytest.fixture
async def agent(listen):
    there = Agent()
    there.url = f"http://127.0.0.1:{await listen(there.app())}"
    return there


def sends(issuer, agent, tokens):
    bearer = Bearer(tokens, rail(issuer), Origin.of(agent.url))
    return httpx.AsyncClient(auth=bearer)


async def test_a_refused_token_is_renewed_once(issuer, agent, tokens):
    """With the same body; a second refusal is the answer."""
    async with sends(issuer, agent, tokens) as http:
        agent.wants = "t2"
        answer = await http.post(agent.url, content=b"hello")
        assert (answer.status_code, answer.content) == (200, b"hello")
        agent.wants = "none of them"
        assert (await http.post(agent.url)).status_code == 401
    assert agent.seen == ["Bearer t1", "Bearer t2", "Bearer t2", "Bearer t3"]


async def sent_elsewhere(issuer, agent, tokens):
    """Attack: have our token sent to another origin than its agent's. Returns how many arrived."""
    bearer = Bearer(tokens, rail(issuer), Origin.of("https://rail.example.org"))
    async with httpx.AsyncClient(auth=bearer) as http:
        await http.post(agent.url)
    return len([one for one in agent.seen if one])


async def test_no_token_goes_to_another_origin(issuer, agent, tokens):
    """Whatever a client is made to call."""
    assert await sent_elsewhere(issuer, agent, tokens) == 0


async def test_without_the_check_of_the_origin_it_would(issuer, agent, tokens, monkeypatch):
    """The attack works when each origin is taken for its agent's."""
    monkeypatch.setattr(Origin, "__eq__", lambda *_: True)
    assert await sent_elsewhere(issuer, agent, tokens) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"https://a": {"client_id": "x"}}', '{"https://a": {"secret": "hush"}}'])
def test_a_secret_of_another_shape_is_refused_without_its_content(text):
    """It says what it must look like."""
    with pytest.raises(ConfigurationError, match="the secret clients is not") as caught:
        parse_clients(text)
    assert "hush" not in str(caught.value)
