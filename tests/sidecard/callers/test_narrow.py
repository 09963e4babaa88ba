"""A token narrows what its caller may do, in all that an agent serves; whose tasks are whose stays as it is."""

from dataclasses import replace

import grpc.aio
import pytest
from a2a.types import GetExtendedAgentCardRequest
from a2a.types.a2a_pb2_grpc import A2AServiceStub

from sidecard import Agent, Task
from sidecard.callers import Callers
from sidecard.extension import URI
from sidecard.tasks import rights as rights_of
from sidecard.testing import ISSUER, FakeIssuer, MemoryStore, served

agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests", asks=("approve",))
ISSUERS = {"company": {"url": ISSUER, "everyone": {"grants": {"shop": ["look"]}}}}
CALLERS = {
    "boss": {
        "api_key": True,
        "token": {"issuer": "company", "subject": "7"},
        "grants": {"shop": ["look", "buy", "approve"]},
    },
    "office": {
        "speaks_for_others": True,
        "token": {"issuer": "company", "client": "office"},
        "grants": {"shop": ["look", "buy", "approve"]},
    },
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


@agent.skill(scope="look", idempotent=False)
async def rights(text: str, task: Task) -> str:
    """Tell what whoever started it may do."""
    return " ".join(sorted(task.caller.scopes))


@pytest.fixture
def wide(monkeypatch):
    """Guard off: whoever brings a token has all that its caller holds, whatever the token says."""
    by_token = Callers._by_token

    async def widened(self, claims):
        caller = await by_token(self, claims)
        return replace(caller, scopes=self.scopes_of(caller.name), narrowed=False)

    monkeypatch.setattr(Callers, "_by_token", widened)


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


async def test_without_narrowing_a_token_starts_tells_and_shows_all(shop, issuer, wide):
    """What that is worth: the same narrow token buys, its task may do everything, and it is shown every skill."""
    async with rest(shop, issuer.token("7", "look")) as http:
        assert (await http.post("/rest/message:send", json=message("cat", "buy"))).status_code == 200
        task = (await http.post("/rest/message:send", json=message("hat", "rights"))).json()["task"]
        card = (await http.get("/rest/extendedAgentCard")).json()
    assert task["artifacts"][0]["parts"][0]["text"] == "approve buy look"
    assert {skill["id"] for skill in card["skills"]} == {"look", "order", "rights", "buy"}


@pytest.mark.parametrize("skill", ["buy", "order"])
async def test_without_narrowing_any_token_answers(shop, issuer, wide, skill):
    """And the narrow token answers what wants a right that it was not given."""
    async with rest(shop, issuer.token("7", "look")) as http:
        task = (await http.post("/rest/message:send", json=message("hat", skill))).json()["task"]
        ended = await http.post("/rest/message:send", json=message("yes", task=task["id"]))
    assert ended.json()["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_what_a_token_started_may_do_what_its_scopes_say(shop, issuer):
    """While it runs, though its owner holds more; who comes with all has all, by token or by key."""
    told = {"look": "look", "look buy approve": "approve buy look"}
    for scopes, may in told.items():
        async with rest(shop, issuer.token("7", scopes)) as http:
            task = (await http.post("/rest/message:send", json=message(scopes, "rights"))).json()["task"]
        assert task["artifacts"][0]["parts"][0]["text"] == may
    assert (await shop.send("boss", "all", skill="rights")).artifacts[0].parts[0].text == "approve buy look"


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
        for scope, skills in (("look", {"look", "order", "rights"}), ("look buy", {"look", "order", "rights", "buy"})):
            metadata = [("a2a-version", "1.0"), ("authorization", f"Bearer {issuer.token('7', scope)}")]
            card = await A2AServiceStub(channel).GetExtendedAgentCard(GetExtendedAgentCardRequest(), metadata=metadata)
            assert {skill.id for skill in card.skills} == skills


@pytest.mark.parametrize(("begun", "answered"), [(0, 0), (0, 1), (1, 0), (1, 1)])
async def test_a_token_answers_for_others_what_its_scopes_say(shop, issuer, begun, answered):
    """Whoever speaks for somebody brings no more of their rights than its token gives, nor than the one it began by.

    Where both give enough, what is left to be wanted is a proof that it was said.
    """
    scopes = ("look", "look approve")
    tokens = [issuer.token("office", scopes[which], client_id="office") for which in (begun, answered)]
    order = message(f"{begun}{answered}", "order")
    order["message"]["metadata"][URI]["subject"] = "boss"
    async with rest(shop, tokens[0]) as http:
        task = (await http.post("/rest/message:send", json=order)).json()["task"]
    yes = message("yes", task=task["id"])
    yes["message"]["metadata"] = {URI: {"subject": "boss"}}
    async with rest(shop, tokens[1]) as http:
        refused = await http.post("/rest/message:send", json=yes)
    assert refused.status_code == 403
    assert ("it is not proven" if begun and answered else "the right approve") in refused.text


async def said_for_boss(shop, begins, answers):
    """What comes of an answer in the boss's name by one token to a question that began by another one."""
    order = message("for boss", "order")
    order["message"]["metadata"][URI]["subject"] = "boss"
    async with rest(shop, begins) as http:
        task = (await http.post("/rest/message:send", json=order)).json()["task"]
    yes = message("yes", task=task["id"])
    yes["message"]["metadata"] = {URI: {"subject": "boss"}}
    async with rest(shop, answers) as http:
        return await http.post("/rest/message:send", json=yes)


async def test_without_narrowing_a_token_answers_for_others_too(shop, issuer, wide, monkeypatch):
    """What that is worth: the boss's right answers by a token that was given none; only the proof is still wanted.

    And where no proof were wanted either, the task goes on.
    """
    token = issuer.token("office", "look", client_id="office")
    assert "it is not proven" in (await said_for_boss(shop, token, token)).text
    monkeypatch.setattr(rights_of, "needs_proof", lambda _: False)
    ended = await said_for_boss(shop, token, token)
    assert ended.json()["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def answer_by(shop, token, task):
    async with rest(shop, token) as http:
        return await http.post("/rest/message:send", json=message("yes", task=task))


async def test_an_exchanged_token_answers_nothing_that_a_person_must(shop, issuer, monkeypatch):
    """In the hands of a program the boss's token could say what it likes. Where who uses it is overlooked, it does."""
    order = (await shop.send("boss", "hat", skill="order")).id
    token = issuer.token("7", "look approve", act={"sub": "bot"})
    refused = await answer_by(shop, token, order)
    assert (refused.status_code, "it is not proven that boss said this" in refused.text) == (403, True)
    monkeypatch.setattr(rights_of, "_is_here", lambda caller: caller.subject == caller.name)
    assert (await answer_by(shop, token, order)).json()["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize(("held", "status"), [(["look"], 404), (["look", "approve"], 200)])
async def test_another_persons_token_answers_with_what_the_file_gives_them(issuer, held, status):
    """Whatever scopes it claims: without the right they are not even told of the task. With it, they answer."""
    everyone = {"company": ISSUERS["company"] | {"everyone": {"grants": {"shop": held}}}}
    async with served(agent, MemoryStore(), CALLERS, issuers=everyone, issuers_http=issuer.http()) as shop:
        order = (await shop.send("boss", "hat", skill="order")).id
        assert (await answer_by(shop, issuer.token("8", "look approve"), order)).status_code == status
