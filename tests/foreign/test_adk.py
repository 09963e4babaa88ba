"""The five-step handshake with another framework, both ways, on real processes: Google's ADK, an OpenID provider."""

import asyncio
import contextlib
import hashlib
import json

import pytest
from a2a.types import TaskState
from jwcrypto.jwk import JWK
from pydantic import BaseModel

from foreign.parties import TRAVELLER, run
from sidecard import Agent, Task
from sidecard.callers import Presented
from sidecard.credentials import OAuthClient
from sidecard.delegation import ForeignAgent, calling
from sidecard.errors import AgentUnavailable
from sidecard.extension import URI, Sent
from sidecard.tasks.watch import NotTaken
from sidecard.telemetry import continue_trace
from sidecard.testing import MemoryStore, message, served
from sidecard.trust import TrustStore
from tests.foreign.conftest import AUDIENCE, RAIL, public

S = TaskState
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Way:
    """Our way to the railways: enrolled by direct configuration, as their operator told us."""

    def __init__(self, mesh):
        self.mesh, self.accepted = mesh, []

    async def follow(self, text, **more):
        sent = Sent(skill="railways").attach(message(text))
        return await self.mesh.follow("railways", sent, "", self.accepted.append, **more)


@pytest.fixture
async def way(railways, openid):
    async with contextlib.AsyncExitStack() as stack:

        async def make(key=None, **credentials):
            trust = {"publishers": {"Railways of Europe": {"keys": [key or railways.key]}}}
            agent = ForeignAgent(
                url=railways.url, publisher="Railways of Europe", credentials={"issuer": openid.issuer} | credentials
            )
            way = calling(
                {"railways": agent},
                TrustStore.parse(json.dumps(trust)),
                allowed=f"{railways.url} {openid.issuer}",
                clients={openid.issuer: OAuthClient(client_id="planner", client_secret="the secret of planner")},
            )
            return Way(await stack.enter_async_context(way))

        yield make


# -- we call them ----------------------------------------------------------------------------------------------------


async def test_our_agents_reach_one_made_with_adk(way, railways):
    """Discovered, verified by the SDK's own signature, with a token for it alone, in one trace, to the end."""
    railways.seen()
    with continue_trace(PARENT):
        task = await (await way()).follow("LIS to OPO")
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert task.artifacts[0].parts[0].text.startswith("IC ")
    calls = railways.seen()
    assert {call["traceparent"].split("-")[1] for call in calls} == {TRACE}
    assert {call["aud"] for call in calls} == {railways.url}
    assert {call["scope"] for call in calls} == {RAIL}
    assert {call["client_id"] for call in calls} == {"planner"}
    assert {call["a2a-version"] for call in calls} == {"1.0"}


async def test_a_task_of_theirs_is_canceled(way, railways):
    """While it works: lifecycle tracking does not end with COMPLETED."""
    ours = await way()
    following = asyncio.create_task(ours.follow("LIS to OPO, slowly"))
    async with asyncio.timeout(60):
        while not ours.accepted:  # noqa: ASYNC110 -- another process
            await asyncio.sleep(0.02)
    await ours.mesh.cancel("railways", ours.accepted[0], "")
    async with asyncio.timeout(30):
        assert (await following).status.state == S.TASK_STATE_CANCELED


async def test_their_card_by_another_key_gets_nothing(way, railways):
    """No token, no message."""
    forged = JWK.generate(kty="EC", crv="P-256", kid=railways.key["kid"], alg="ES256").export_public(as_dict=True)
    ours = await way(forged)
    railways.seen()
    with pytest.raises(NotTaken, match="altered, or not signed"):
        await ours.follow("LIS to OPO")
    assert railways.seen() == []


async def test_a_token_without_the_scope_is_refused_there(way):
    """By them: the scope is theirs to check."""
    ours = await way(scopes={"": ["look"]})
    with pytest.raises(AgentUnavailable, match="HTTP 403"):
        await ours.follow("LIS to OPO")


# -- tokens are for one audience -------------------------------------------------------------------------------------


class Trip(BaseModel):
    """What the planner takes."""

    text: str


def planner():
    agent = Agent(name="planner", version="1", description="Plans.", publisher="Tests")

    @agent.skill(scope="look", idempotent=False)
    async def plan(trip: Trip, task: Task) -> str:
        """Ask the railways."""
        done = await task.delegate("railways", "railways", trip.text)
        return done.task.artifacts[0].parts[0].text

    return agent


def digest_of(token):
    return hashlib.sha256(token.encode()).hexdigest()


async def callers_tokens_that_arrive(way, railways, openid):
    """Attack: call our agent with a token, have it delegate. Returns the end, and how often the token arrives there."""
    token = openid.token("traveller", "the secret of traveller", resource=AUDIENCE, scope="look")
    holder = {"token": {"issuer": "company", "client": "traveller"}, "grants": {"planner": ["look"]}}
    issuers = {"company": {"url": openid.issuer}}
    railways.seen()
    async with served(planner(), MemoryStore(), {"traveller": holder}, way.mesh, issuers=issuers) as desk:
        sent = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"data": {"text": "MAD to BCN"}}]}
        call = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": sent}}
        async with desk.http(Authorization=f"Bearer {token}", traceparent=PARENT) as http:
            answer = (await http.post("/a2a", json=call, timeout=60)).json()
    calls = railways.seen()
    assert calls
    return answer["result"]["task"]["status"]["state"], len([c for c in calls if c["token"] == digest_of(token)])


async def test_a_callers_token_never_reaches_a_third_party(way, railways, openid):
    """Our agent calls with a token of its own, made out to the other one."""
    state, arrived = await callers_tokens_that_arrive(await way(), railways, openid)
    assert (state, arrived) == ("TASK_STATE_COMPLETED", 0)


async def test_an_agent_that_hands_it_on_is_found_out(way, railways, openid, monkeypatch):
    """With the guard off, tokens of its own, the attack is seen; and the other side does not take that token."""
    token = openid.token("traveller", "the secret of traveller", resource=AUDIENCE, scope="look")
    monkeypatch.setattr(openid, "token", lambda *_, **__: token)

    async def hand_on(*_, **__):
        return token

    monkeypatch.setattr("sidecard.credentials.Tokens.token", hand_on)
    ours = await way()
    state, arrived = await callers_tokens_that_arrive(ours, railways, openid)
    assert state == "TASK_STATE_FAILED"
    assert arrived > 0


async def test_a_callers_rights_travel_by_token_exchange(way, railways, openid):
    """RFC 8693: the other agent sees whose right it is and who acts; the token itself stays with us."""
    token = openid.token("traveller", "the secret of traveller", resource=AUDIENCE, scope="look")
    railways.seen()
    ours = await way(exchange=True)
    task = await ours.follow("LIS to MAD", bearing=lambda: Presented(token, openid.issuer))
    assert task.status.state == S.TASK_STATE_COMPLETED
    calls = railways.seen()
    assert {(call["sub"], call["act"]["sub"], call["aud"]) for call in calls} == {
        ("traveller", "planner", railways.url)
    }
    assert digest_of(token) not in {call["token"] for call in calls}


# -- they call us ----------------------------------------------------------------------------------------------------


def config(shop, openid, **more):
    return {
        "agent": shop.url, "audience": AUDIENCE, "key": public(), "issuer": openid.issuer, "client_id": "traveller",
        "client_secret": "the secret of traveller", "scope": "look", "text": "a hat", "traceparent": PARENT,
        "metadata": {URI: {"skill": "look"}},
    } | more  # fmt: skip


async def test_a_client_made_with_adk_reaches_our_agent(shop, openid):
    """It verifies our card, brings a token made out to us, and works in its own trace."""
    code, met = await run(TRAVELLER, config(shop, openid))
    assert (code, met["error"]) == (0, "")
    assert "found a hat" in met["text"]
    assert shop.runs == ["a hat"]
    assert shop.seen["caller"] == "traveller"
    assert shop.seen["trace"].split("-")[1] == TRACE


async def test_it_is_refused_with_a_token_for_another_agent(shop, openid):
    """And with none of our issuer's: nothing runs."""
    _, met = await run(TRAVELLER, config(shop, openid, audience="http://127.0.0.1:1"))
    assert "401" in met["error"]
    assert shop.runs == []


async def test_it_believes_no_card_of_another_key(shop, openid):
    """Verified on its side, by the SDK's own means."""
    other = JWK.generate(kty="EC", crv="P-256", kid="shop-1", alg="ES256")
    code, met = await run(TRAVELLER, config(shop, openid, key=public(other)))
    assert (code, "not believed" in met["error"]) == (1, True)
    assert shop.runs == []
