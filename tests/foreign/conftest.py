"""Parties of other makes as processes of their own, and an agent of ours that they call, in this process."""

import asyncio

import pytest
from jwcrypto.jwk import JWK

from foreign import parties
from foreign.openid import running
from foreign.parties import client
from sidecard import Agent, Task
from sidecard.card import SignedCard
from sidecard.signature import sign
from sidecard.telemetry import Telemetry, current_traceparent
from sidecard.testing import MemoryStore, served

KEY = JWK.generate(kty="EC", crv="P-256", kid="shop-1", alg="ES256")


AUDIENCE = "http://127.0.0.1:8080"
TRAVELLER = {"issuer": "company", "client": "traveller"}
RAIL = "rail:search"


@pytest.fixture(scope="session")
def openid():
    """The provider that both sides trust."""
    clients = [client("traveller"), client("shop"), client("planner", agent_url=AUDIENCE)]
    with running({"clients": clients, "scopes": f"look {RAIL}"}) as provider:
        yield provider


@pytest.fixture(scope="session")
def railways(openid):
    """The agent made with ADK, as a process: its `url`, and the public `key` of its card."""
    with parties.railways(openid.issuer) as railways:
        yield railways


class Shop:
    """An agent of ours: finds at once, or waits until it is canceled."""

    def __init__(self):
        self.runs: list[str] = []
        self.seen: dict[str, str] = {}
        self.agent = agent = Agent(name="shop", version="1", description="Finds things.", publisher="Tests")

        @agent.skill(scope="look", idempotent=False)
        async def look(text: str, task: Task) -> str:
            """Look for something, named in a text."""
            self.runs.append(text)
            self.seen = {"caller": task.caller.name, "subject": task.subject, "trace": current_traceparent()}
            if "slowly" in text:
                await task.progress("looking everywhere")
                await asyncio.Event().wait()
            return f"found {text}"


@pytest.fixture
async def shop(listen, openid):
    """Our agent on a free port: its URL is in its card, signed with KEY; tokens for it are made out to AUDIENCE."""
    shop = Shop()
    rights = {"grants": {"shop": ["look"]}}
    callers = {"guest": {"api_key": True, **rights}, "traveller": {"token": TRAVELLER, **rights}}
    async with served(shop.agent, MemoryStore(), callers, issuers={"company": {"url": openid.issuer}}) as up:
        Telemetry().instrument_app(up.app)
        shop.url = f"http://127.0.0.1:{await listen(up.app)}"
        for interface in up.card.supported_interfaces:
            if interface.protocol_binding != "GRPC":
                interface.url = shop.url + "/" + interface.url.rpartition("/")[2]
        up.signed = SignedCard(sign(up.card, KEY))
        shop.served = up
        yield shop


def public(key=KEY):
    return key.export_public(as_dict=True)
