"""Agents outside the mesh: enrolled by operators, believed by a pinned key or a pinned digest, verified ever again."""

import json
import time

import httpx
import pytest
from a2a.types import AgentCard
from google.protobuf.json_format import ParseDict
from jwcrypto.jwk import JWK
from starlette.applications import Starlette

from agents.registry.estate import Estate
from agents.registry.server import create_app
from sidecard.card import SignedCard, card_routes
from sidecard.registry import Enrolment
from sidecard.settings import Settings
from sidecard.signature import digest, sign
from sidecard.tasks.ledger import Ledger
from tests.agents.registry.conftest import KEY

RAIL = JWK.generate(kty="EC", crv="P-256", kid="rail-1", alg="ES256")
STRANGER = JWK.generate(kty="EC", crv="P-256", kid="rail-1", alg="ES256")
OPERATOR = {"dapr-caller-app-id": "desk"}


class Partner:
    """An agent of another company, on a port of this machine."""

    def __init__(self, port: int, shown: list[AgentCard]) -> None:
        self.url, self._shown = f"http://127.0.0.1:{port}", shown

    def card(self, **changes) -> AgentCard:
        content = {
            "name": "Rail Partner",
            "version": "1.0.0",
            "provider": {"organization": "Rail Inc", "url": "https://rail.example"},
            "supportedInterfaces": [{"url": f"{self.url}/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
            "skills": [{"id": "ride", "name": "Ride", "description": "Books.", "tags": ["rail"]}],
            "securitySchemes": {
                "sso": {"openIdConnectSecurityScheme": {"openIdConnectUrl": "https://id.example/.well-known/x"}}
            },
            "securityRequirements": [{"schemes": {"sso": {"list": ["rail:book"]}}}],
        }
        return ParseDict(content | changes, AgentCard())

    def shows(self, card: AgentCard) -> AgentCard:
        self._shown[:] = [card]
        return card


@pytest.fixture
async def partner(listen) -> Partner:
    shown: list[AgentCard] = []
    app = Starlette(routes=card_routes(lambda: SignedCard(shown[0])))
    found = Partner(await listen(app), shown)
    found.shows(sign(found.card(), RAIL))
    return found


@pytest.fixture
def settings(monkeypatch, partner, client, sidecar):
    """The registry may go to the partner, whose key is pinned."""
    publishers = json.loads(sidecar.trust)
    publishers["publishers"]["Rail Inc"] = {"keys": [RAIL.export_public(as_dict=True)]}
    sidecar.trust = json.dumps(publishers)
    monkeypatch.setenv("SIDECARD_FOREIGN", partner.url)
    return Settings.load("registry")


@pytest.fixture
async def registry(settings, sidecar, store):
    app = create_app(settings, httpx.MockTransport(sidecar), store)
    headers = {"dapr-api-token": "apps"} | OPERATOR
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://r", headers=headers) as opened:
        yield opened


@pytest.fixture
async def estate(settings, sidecar, store):
    opened = Estate(settings, Ledger(lambda: store), transport=httpx.MockTransport(sidecar))
    yield opened
    await opened.close()


def ask(partner: Partner, **more) -> dict:
    return {"url": partner.url} | more


async def test_a_signed_foreign_agent_is_enrolled(registry, partner):
    """What is written down is in its signed card: who published it, by which key, what it can, what it demands."""
    answer = await registry.put("/estate", json=ask(partner, publisher="Rail Inc"))
    assert answer.status_code == 200, answer.text
    listed = Enrolment.model_validate(answer.json())
    assert (listed.app_id, listed.name, listed.foreign, listed.pinned) == ("rail-partner", "Rail Partner", True, False)
    assert (listed.publisher, listed.kid, listed.skills) == ("Rail Inc", "rail-1", ["ride"])
    assert (listed.card_url, listed.card_digest) == (partner.url, digest(partner.card()))
    [[demand]] = listed.demands
    assert (demand.kind, demand.issuer, demand.scopes) == (
        "openIdConnect",
        "https://id.example/.well-known/x",
        ["rail:book"],
    )
    assert listed.signed_at is not None
    assert (await registry.get("/agents/rail-partner")).json() == answer.json()


async def test_looking_writes_nothing_down(registry, partner, sidecar):
    """POST shows what would be listed."""
    looked = await registry.post("/estate", json=ask(partner, name="rail"))
    assert (looked.status_code, looked.json()["app_id"]) == (200, "rail")
    assert sidecar.state == {}


async def test_a_dismissed_agent_is_gone(registry, partner):
    """It is neither listed nor found, and can't be dismissed twice."""
    await registry.put("/estate", json=ask(partner))
    assert (await registry.delete("/estate/rail-partner")).status_code == 204
    assert (await registry.get("/agents")).json() == []
    assert (await registry.get("/agents/rail-partner")).status_code == 404
    assert (await registry.delete("/estate/rail-partner")).status_code == 404


@pytest.mark.parametrize("caller", ["orchestrator", "manager", "nobody", ""])
async def test_only_operators_enrol_and_dismiss(registry, partner, sidecar, caller):
    """Whoever agents/callers.yaml does not grant estate:operate, and a sidecar, may do neither; nothing is fetched."""
    await registry.put("/estate", json=ask(partner))
    before, headers = dict(sidecar.state), {"dapr-caller-app-id": caller}
    for answer in (
        await registry.post("/estate", json=ask(partner), headers=headers),
        await registry.put("/estate", json=ask(partner, name="other"), headers=headers),
        await registry.delete("/estate/rail-partner", headers=headers),
    ):
        assert answer.status_code == 403
        assert "no operator" in answer.json()["error"]
    assert sidecar.state == before


async def test_an_unsigned_card_is_refused_without_a_pin(registry, partner):
    """Nobody vouches for it."""
    partner.shows(partner.card())
    answer = await registry.put("/estate", json=ask(partner))
    assert answer.status_code == 422
    assert "not signed" in answer.json()["error"]


async def test_an_unsigned_card_can_be_pinned_by_its_digest(registry, partner):
    """Who is shown a digest, and says it again, enrols just that card."""
    claimed = {"provider": {"organization": "No Signers", "url": "https://n.example"}}
    unsigned = partner.shows(partner.card(**claimed))
    looked = (await registry.post("/estate", json=ask(partner, pin=True))).json()
    assert looked["card_digest"] == digest(unsigned)
    answer = await registry.put("/estate", json=ask(partner, pin=True, digest=looked["card_digest"]))
    assert (answer.status_code, answer.json()["pinned"], answer.json()["kid"]) == (200, True, "")


async def test_a_card_that_changed_since_it_was_shown_is_refused(registry, partner):
    """Between the look and the word another card may not slip in."""
    claimed = {"provider": {"organization": "No Signers", "url": "https://n.example"}}
    partner.shows(partner.card(**claimed))
    looked = (await registry.post("/estate", json=ask(partner, pin=True))).json()
    partner.shows(partner.card(**claimed, description="Now another one."))
    answer = await registry.put("/estate", json=ask(partner, pin=True, digest=looked["card_digest"]))
    assert answer.status_code == 422
    assert "another card than you were shown" in answer.json()["error"]


@pytest.mark.parametrize("publisher", ["", "No Signers", "Rail Inc"])
async def test_a_publisher_that_signs_can_not_be_pinned_around(registry, partner, publisher):
    """Where keys are pinned, an unsigned card in that name is a forgery, or in any other."""
    claims = "Rail Inc" if publisher != "Rail Inc" else "Somebody"
    partner.shows(partner.card(provider={"organization": claims, "url": "https://rail.example"}))
    answer = await registry.post("/estate", json=ask(partner, pin=True, publisher=publisher))
    assert answer.status_code == 422
    assert "must be signed with one of them" in answer.json()["error"]


async def test_another_publisher_than_the_operator_said_is_refused(registry, partner):
    """Also one whose keys are pinned."""
    answer = await registry.put("/estate", json=ask(partner, publisher="Travel Desk"))
    assert answer.status_code == 422
    assert "not 'Travel Desk'" in answer.json()["error"]


@pytest.mark.parametrize("name", ["desk", "flights", "registry", "orchestrator"])
async def test_names_of_the_estate_are_taken(registry, partner, name):
    """No agent from outside is called as one of ours, whether that has enrolled itself yet or not."""
    answer = await registry.put("/estate", json=ask(partner, name=name))
    assert answer.status_code == 422
    assert "choose another" in answer.json()["error"]


async def test_an_app_can_not_take_a_foreign_agents_name(registry, partner, sidecar):
    """Else whoever may deploy an app could receive what is meant for the partner."""
    await registry.put("/estate", json=ask(partner, name="hotels"))
    sidecar.cards["hotels"] = sign(
        ParseDict({"name": "hotels", "provider": {"organization": "Travel Desk"}}, AgentCard()), KEY
    )
    body = {"app_id": "hotels", "kind": "a2a", "url": "http://127.0.0.1:1"}
    answer = await registry.put("/agents", json=body, headers={"dapr-caller-app-id": "hotels"})
    assert answer.status_code == 422
    assert "sidecard dismiss hotels" in answer.json()["error"]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1", "http://169.254.169.254/latest", "https://10.0.0.1", "https://[::1]", "https://2130706433",
     "http://localhost:8106"],
)  # fmt: skip
async def test_the_registry_connects_to_nobody_else(registry, url):
    """Neither to this machine's other ports nor to private addresses. What it says tells nothing of what is there."""
    answer = await registry.post("/estate", json={"url": url})
    assert answer.status_code == 422
    assert "SIDECARD_FOREIGN says where to" in answer.json()["error"]


async def test_a_card_that_no_longer_verifies_is_shown_and_not_used(registry, estate, partner):
    """When it verifies again, the agent is used again."""
    listed = (await registry.put("/estate", json=ask(partner))).json()
    partner.shows(sign(partner.card(), STRANGER))
    await estate.verify_foreign()
    broken = (await registry.get("/agents/rail-partner")).json()
    assert "altered, or not signed" in broken["problem"]
    assert (broken["verified_at"], broken["card_digest"]) == (listed["verified_at"], listed["card_digest"])
    partner.shows(sign(partner.card(version="1.1.0"), RAIL))
    await estate.verify_foreign()
    mended = (await registry.get("/agents/rail-partner")).json()
    assert (mended["problem"], mended["version"]) == ("", "1.1.0")
    assert mended["verified_at"] > listed["verified_at"]


async def test_an_agent_that_does_not_answer_keeps_its_place(registry, estate, partner, monkeypatch):
    """A restart of it is no reason to distrust it: it is not seen, and that shows."""
    listed = (await registry.put("/estate", json=ask(partner))).json()
    partner._shown.clear()
    await estate.verify_foreign()
    assert (await registry.get("/agents/rail-partner")).json() == listed


async def test_an_old_card_shown_again_is_not_believed(registry, estate, partner):
    """A version that was withdrawn, for what was wrong with it, stays withdrawn."""
    partner.shows(sign(partner.card(version="1.0.0"), RAIL, now=time.time() - 100))
    old = partner._shown[0]
    await registry.put("/estate", json=ask(partner))
    partner.shows(sign(partner.card(version="1.0.1"), RAIL))
    await estate.verify_foreign()
    partner.shows(old)
    await estate.verify_foreign()
    listed = (await registry.get("/agents/rail-partner")).json()
    assert listed["version"] == "1.0.1"
    assert "older than the one that was seen" in listed["problem"]


async def test_what_was_dismissed_meanwhile_does_not_come_back(registry, estate, partner, monkeypatch):
    """A verification that was under way writes nothing about an agent that somebody has dismissed."""
    await registry.put("/estate", json=ask(partner))
    listed = await estate.inventory.all()
    await registry.delete("/estate/rail-partner")

    async def before() -> list[Enrolment]:
        return listed

    monkeypatch.setattr(estate.inventory, "all", before)
    await estate.verify_foreign()
    assert (await registry.get("/agents/rail-partner")).status_code == 404
