"""A token narrows what its caller may do, in all that an agent serves; whose tasks are whose stays as it is."""

import grpc.aio
import pytest
from a2a.types import GetExtendedAgentCardRequest
from a2a.types.a2a_pb2_grpc import A2AServiceStub

from sidecard import Agent, Task
from sidecard.extension import URI
from sidecard.testing import ISSUER, FakeIssuer, MemoryStore, served

agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests", asks=("approve",))
ISSUERS = {"company": {"url": ISSUER, "everyone": {"grants": {"shop": ["look"]}}}}
CALLERS = {
    "boss": {
        "api_key": True,
        "token": {"issuer": "company", "subject": "7"},
        "grants": {"shop": ["look", "buy", "approve"]},
    }
}


@agent.skill(scope="look", idempotent=True)
async def look(text: str, task: Task) -> str:
    """Look."""
    return text


@agent.skill(scope="buy", idempotent=False)
async def buy(text: str, task: Task) -> str:
    """Buy, when told so."""
    return (await task.ask("Really?")).text


@agent.skill(scope="look", idempotent=False)
async def order(text: str, task: Task) -> str:
    """Order, when approved."""
    return (await task.ask("May I?", scope="approve")).text


@pytest.fixture(scope="module")
def issuer():
    return FakeIssuer()


@pytest.fixture
async def shop(issuer):
    async with served(agent, MemoryStore(), CALLERS, issuers=ISSUERS, issuers_http=issuer.http()) as shop:
        yield shop


def rest(shop, token):
    return shop.http(Authorization=f"Bearer {token}")


def message(text, skill="", task=""):
    sent = {"messageId": f"{text}{task}", "role": "ROLE_USER", "parts": [{"text": text}]} | (
        {"taskId": task} if task else {}
    )
    if skill:
        sent["metadata"] = {URI: {"skill": skill}}
    return {"message": sent}


async def test_a_token_starts_what_its_scopes_say(shop, issuer):
    """Though its caller holds more."""
    async with rest(shop, issuer.token("7", "look")) as http:
        assert (await http.post("/rest/message:send", json=message("hat", "look"))).status_code == 200
        assert (await http.post("/rest/message:send", json=message("cat", "buy"))).status_code == 403


@pytest.mark.parametrize(("skill", "right"), [("buy", "buy"), ("order", "approve")])
async def test_a_token_answers_what_its_scopes_say(shop, issuer, skill, right):
    """A question that needs a right, and the owner's own task: both by a token that has been given it."""
    everything, narrow = (
        issuer.token("7", "look buy approve"),
        issuer.token("7", f"{'look' if skill == 'buy' else 'buy look'}"),
    )
    async with rest(shop, everything) as http:
        task = (await http.post("/rest/message:send", json=message("hat", skill))).json()["task"]
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    async with rest(shop, narrow) as http:
        refused = await http.post("/rest/message:send", json=message("yes", task=task["id"]))
        assert (refused.status_code, right in refused.text) == (403, True)
    async with rest(shop, everything) as http:
        ended = await http.post("/rest/message:send", json=message("yes", task=task["id"]))
    assert ended.json()["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_whoever_a_token_names_owns_its_tasks(shop, issuer):
    """The same caller by key or by token; another person of the same issuer is a stranger."""
    task = await shop.send("boss", "hat", skill="look")
    for subject, scope, status in (("7", "look", 200), ("8", "look", 404)):
        async with rest(shop, issuer.token(subject, scope)) as http:
            assert (await http.get(f"/rest/tasks/{task.id}")).status_code == status


async def test_the_extended_card_is_of_what_the_token_may_do(shop, issuer):
    """Over gRPC, where a token comes as metadata."""
    async with grpc.aio.insecure_channel(shop.grpc_target) as channel:
        for scope, skills in (("look", {"look", "order"}), ("look buy", {"look", "order", "buy"})):
            metadata = [("a2a-version", "1.0"), ("authorization", f"Bearer {issuer.token('7', scope)}")]
            card = await A2AServiceStub(channel).GetExtendedAgentCard(GetExtendedAgentCardRequest(), metadata=metadata)
            assert {skill.id for skill in card.skills} == skills
