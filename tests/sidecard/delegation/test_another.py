"""Who is asked instead of an agent that refused: by the registry, by verified cards, by what this app may do there."""

import contextlib
import json
from datetime import UTC, datetime

import httpx
import pytest
from pydantic import BaseModel

from sidecard import Agent, Task
from sidecard.card import SignedCard
from sidecard.delegation import Mesh
from sidecard.errors import AgentUnavailable
from sidecard.registry import Enrolment, Registry
from sidecard.settings import Settings
from sidecard.sidecar import MeshTransport
from sidecard.signature import digest, sign
from sidecard.testing import APP_TOKEN, MemoryStore, Publisher, served

NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)
NAMES = ("first", "second", "third")


class Order(BaseModel):
    """What is made."""

    what: str


class Bigger(Order):
    """What another one makes."""

    size: int


def maker(name, given=Order, skill="make"):
    agent = Agent(name=name, version="1", description="Makes.", publisher="Tests")

    async def make(order, task):
        """Make."""
        return ""

    make.__name__, make.__annotations__ = skill, {"order": given, "task": Task, "return": str}
    agent.skill(scope="make", idempotent=False)(make)
    return agent


class Estate(httpx.AsyncBaseTransport):
    """What daprd does for the app `shop`, and a registry that lists what it is told."""

    def __init__(self) -> None:
        self.agents, self.listed = {}, {}
        self.down = set()

    def list(self, name, **changes):
        up = self.agents[name]
        self.listed[name] = Enrolment(
            app_id=name, kind="a2a", name=name, skills=[skill.id for skill in up.card.skills], card_url=f"http://{name}",
            card_digest=digest(up.signed.card), enrolled_at=NOW, last_seen=NOW, **({"verified_at": NOW} | changes),
        )  # fmt: skip

    async def handle_async_request(self, request):
        app, path = request.url.path.removeprefix("/v1.0/invoke/").split("/method", 1)
        if app in self.down:
            raise httpx.ConnectError("down")
        if app == "registry":
            if path == "/agents":
                return httpx.Response(200, json=[json.loads(one.model_dump_json()) for one in self.listed.values()])
            return httpx.Response(200, content=self.listed[path.rpartition("/")[2]].model_dump_json())
        headers = [*request.headers.multi_items(), ("dapr-caller-app-id", "shop")]
        headers = [(name, APP_TOKEN if name == "dapr-api-token" else value) for name, value in headers]
        sent = httpx.Request(request.method, f"http://{app}{path}", headers=headers, content=await request.aread())
        return await httpx.ASGITransport(self.agents[app].app).handle_async_request(sent)


@pytest.fixture
async def estate():
    """Three makers with the same skill, enrolled, that all let the shop in; `mesh` is the shop's."""
    publisher, estate = Publisher(*NAMES), Estate()
    async with contextlib.AsyncExitStack() as stack:

        async def serve(agent, grants=("make",)):
            callers = {"shop": {"sidecar": True, "grants": {agent.name: list(grants) or ["other"]}}}
            up = await stack.enter_async_context(served(agent, MemoryStore(), callers, publisher=publisher))
            up.signed = SignedCard(sign(up.card, publisher.keys[agent.name]))
            estate.agents[agent.name] = up
            estate.list(agent.name)

        for name in NAMES:
            await serve(maker(name))
        http = await stack.enter_async_context(
            httpx.AsyncClient(transport=MeshTransport(Settings(app_id="shop"), estate))
        )
        estate.mesh, estate.serve, estate.publisher = Mesh(http, Registry(http), publisher.trust), serve, publisher
        yield estate


async def another(estate, *tried, skill="make"):
    return await estate.mesh.another(skill, "first", tried or ("first",), "")


async def test_the_first_by_name_is_chosen_that_was_not_tried(estate):
    """Until there is none left."""
    assert await another(estate) == "second"
    assert await another(estate, "first", "second") == "third"
    assert await another(estate, *NAMES) == ""
    assert await another(estate, skill="bake") == ""


async def test_one_that_lets_this_app_not_use_the_skill_is_passed_over(estate):
    """It would refuse to be asked."""
    await estate.serve(maker("second"), grants=())
    assert await another(estate) == "third"


async def test_one_with_another_contract_is_passed_over(estate):
    """It would not understand what is asked."""
    await estate.serve(maker("second", Bigger))
    assert await another(estate) == "third"


async def test_one_that_is_not_verified_or_down_is_passed_over(estate):
    """Whether the registry says so, or it is found now."""
    estate.list("second", verified_at=None)
    assert await another(estate) == "third"
    estate.list("second")
    estate.down.add("second")
    assert await another(estate) == "third"


async def test_one_whose_card_for_this_app_is_forged_is_passed_over(estate):
    """Its public card is in order; the other one is signed by somebody else."""
    estate.publisher.keys["second"] = Publisher("second").keys["second"]
    assert await another(estate) == "third"


async def test_without_knowing_what_the_first_one_takes_nobody_is_chosen(estate):
    """Nor when the registry does not answer: then it is not known who there is."""
    estate.down.add("first")
    with pytest.raises(AgentUnavailable):
        await another(estate)
    estate.down = {"registry"}
    with pytest.raises(AgentUnavailable):
        await another(estate)
