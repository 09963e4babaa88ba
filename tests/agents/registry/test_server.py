"""The registry over HTTP, its sidecar replaced at the transport."""

import asyncio
import itertools
import json
from datetime import datetime

import httpx
import pytest
from a2a.types import AgentCard
from google.protobuf.json_format import ParseDict
from jwcrypto.jwk import JWK

from agents.registry.inventory import Inventory
from sidecard.registry import Enrolment
from sidecard.signature import digest, sign
from sidecard.trust import TrustStore
from tests.agents.registry.conftest import KEY


def card(name: str = "flights") -> AgentCard:
    skills = [{"id": "book", "name": "Book", "description": "Books.", "tags": ["travel"]}]
    content = {"name": name, "version": "1.2.0", "provider": {"organization": "Travel Desk"}, "skills": skills}
    return ParseDict(content, AgentCard())


async def enrol(client, app_id="flights", kind="a2a", caller=None) -> httpx.Response:
    body = {"app_id": app_id, "kind": kind, "url": "http://127.0.0.1:8102"}
    return await client.put("/agents", json=body, headers={"dapr-caller-app-id": caller or app_id})


@pytest.mark.parametrize("order", [1, -1])
async def test_a_second_app_id_enrols_nobody(client, sidecar, order):
    """The sidecar, daprd 1.18, puts the true app-id beside one that the caller made up, in any order."""
    said = [("dapr-caller-app-id", "expenses"), ("dapr-caller-app-id", "flights")][::order]
    body = {"app_id": "expenses", "kind": "mcp", "url": "http://127.0.0.1:6666"}
    assert (await client.put("/agents", json=body, headers=said)).status_code == 401
    assert sidecar.state == {}


async def test_an_agent_with_a_believed_card_is_listed(client, sidecar):
    """The registry asks the app-id for its card through its own sidecar and writes down what is signed in it."""
    sidecar.cards["flights"] = sign(card(), KEY)
    response = await enrol(client)
    assert response.status_code == 200
    enrolment = Enrolment.model_validate(response.json())
    assert sidecar.invoked == ["/invoke/flights/method/.well-known/agent-card.json"]
    assert (enrolment.name, enrolment.version, enrolment.publisher) == ("flights", "1.2.0", "Travel Desk")
    assert (enrolment.skills, enrolment.card_digest) == (["book"], digest(card()))
    assert enrolment.enrolled_at == enrolment.last_seen == enrolment.verified_at
    assert enrolment.enrolled_at.utcoffset() is not None
    assert (await client.get("/agents")).json() == [response.json()]
    assert (await client.get("/agents/flights")).json() == response.json()


async def test_enrolling_again_keeps_when_it_was_first_seen(client, sidecar):
    """A restart refreshes version and times, not `enrolled_at`, and lists the agent once."""
    sidecar.cards["flights"] = sign(card(), KEY)
    first = (await enrol(client)).json()
    changed = card()
    changed.version = "2.0.0"
    sidecar.cards["flights"] = sign(changed, KEY)
    second = (await enrol(client)).json()
    assert (second["enrolled_at"], second["version"]) == (first["enrolled_at"], "2.0.0")
    assert datetime.fromisoformat(second["last_seen"]) >= datetime.fromisoformat(first["last_seen"])
    assert len((await client.get("/agents")).json()) == 1


async def test_an_mcp_server_is_listed_without_a_card(client, sidecar):
    """A tool server has no card, and none is asked for."""
    response = await enrol(client, "vendors", kind="mcp")
    assert response.status_code == 200
    assert (response.json()["name"], response.json()["verified_at"]) == ("vendors", None)
    assert sidecar.invoked == []


async def test_concurrent_enrolments_lose_nothing(client, another, sidecar):
    """Thirty apps that enrol at once, at two replicas, are all in the list."""
    app_ids = [f"app-{number:02}" for number in range(30)]
    sidecar.cards = {app_id: sign(card(app_id), KEY) for app_id in app_ids}
    both = itertools.cycle((client, another))
    responses = await asyncio.gather(*(enrol(next(both), app_id) for app_id in app_ids))
    assert {response.status_code for response in responses} == {200}
    assert [entry["app_id"] for entry in (await client.get("/agents")).json()] == app_ids


async def test_concurrent_changes_of_the_list_lose_nothing(sidecar):
    """Whatever races their writes lose."""
    app_ids = [f"app-{number:02}" for number in range(30)]
    headers, transport = {"dapr-api-token": "sidecars"}, httpx.MockTransport(sidecar)
    async with httpx.AsyncClient(transport=transport, base_url="http://s/v1.0", headers=headers) as client:
        await asyncio.gather(*(Inventory(client).enlist(app_id) for app_id in app_ids))
    assert json.loads(sidecar.state["apps"][0]) == app_ids
    assert sidecar.conflicts > 0


async def test_an_empty_estate_is_an_empty_list(client):
    """Before anybody has enrolled there is nothing to list, and nobody to find."""
    assert (await client.get("/agents")).json() == []
    response = await client.get("/agents/flights")
    assert response.status_code == 404
    assert "GET /agents" in response.json()["error"]


async def test_nobody_enrols_another(client, sidecar):
    """Only the app that Dapr names as the caller may enrol under that app-id."""
    sidecar.cards["flights"] = sign(card(), KEY)
    response = await enrol(client, caller="expenses")
    assert response.status_code == 403
    assert "'expenses' may not enrol 'flights'" in response.json()["error"]
    body = {"app_id": "flights", "kind": "a2a", "url": "http://x"}
    assert (await client.put("/agents", json=body)).status_code == 403
    assert sidecar.state == {}


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        (card(), "is not signed"),
        (sign(card("expenses"), KEY), "card of 'expenses', not 'flights'"),
        (sign(card(), JWK.generate(kty="EC", crv="P-256", kid="other", alg="ES256")), "is not pinned"),
    ],
)
async def test_an_agent_whose_card_is_not_believed_is_not_listed(client, sidecar, served, reason):
    """Unsigned cards, other agents' cards and strange keys are refused with the reason."""
    sidecar.cards["flights"] = served
    response = await enrol(client)
    assert response.status_code == 422
    assert reason in response.json()["error"]
    assert (await client.get("/agents")).json() == []


def partners_card(sidecar) -> AgentCard:
    """A card of the name flights by a partner whose key is pinned, as `sidecard trust pin` does it by default."""
    key = JWK.generate(kty="EC", crv="P-256", kid="rail-1", alg="ES256")
    publishers = json.loads(sidecar.trust)
    publishers["publishers"]["Rail Inc"] = {"keys": [key.export_public(as_dict=True)]}
    sidecar.trust = json.dumps(publishers)
    shown = card()
    shown.provider.organization = "Rail Inc"
    return sign(shown, key)


async def test_a_partners_card_is_no_apps(client, sidecar):
    """An app that was taken over can't be listed as a partner's agent, however willing the partner is."""
    sidecar.cards["flights"] = partners_card(sidecar)
    response = await enrol(client)
    assert response.status_code == 422
    assert "'Rail Inc' has no say about the app 'flights'" in response.json()["error"]
    assert (await client.get("/agents")).json() == []
    sidecar.cards["flights"] = sign(card(), KEY)
    assert (await enrol(client)).json()["publisher"] == "Travel Desk"
    sidecar.cards["flights"] = partners_card(sidecar)
    assert (await enrol(client)).status_code == 422


async def test_without_the_guard_it_would_be(client, sidecar, monkeypatch):
    """As a partner's, with whatever skills that card names."""
    monkeypatch.setattr(TrustStore, "of_app", lambda trust, _: trust)
    sidecar.cards["flights"] = partners_card(sidecar)
    assert (await enrol(client)).json()["publisher"] == "Rail Inc"


async def test_an_agent_that_serves_no_card_may_try_again(client):
    """A card that can't be fetched now is no rejection."""
    response = await enrol(client)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "HTTP 500" in response.json()["error"]


async def test_a_broken_trust_file_lists_nobody(client, sidecar):
    """Without readable pinned keys every enrolment fails, and says why."""
    sidecar.cards["flights"] = sign(card(), KEY)
    sidecar.trust = "nonsense"
    response = await enrol(client)
    assert response.status_code == 503
    assert "trust file can't be read" in response.json()["error"]
    assert sidecar.state == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"7",
        b"{}",
        b"[" * 10_000,
        b'{"a":' * 3_000,
        b'{"app_id": 7, "kind": "a2a", "url": "http://x"}',
        b'{"app_id": "flights", "kind": "other", "url": "http://x"}',
        b'{"app_id": "flights", "kind": "a2a", "url": "javascript:x"}',
        b'{"app_id": "../x", "kind": "a2a", "url": "http://x"}',
    ],
)
async def test_a_body_that_is_no_enrolment_is_refused(client, body):
    """Malformed JSON, bad UTF-8, deep nesting and wrong types get one line that says what is wrong."""
    response = await client.put("/agents", content=body, headers={"dapr-caller-app-id": "flights"})
    assert response.status_code == 422
    assert response.json()["error"].startswith("Not an enrolment: ")
    assert "\n" not in response.json()["error"]


async def test_an_oversized_body_is_refused(client):
    """Reading stops at the limit."""
    response = await client.put("/agents", content=b" " * 200_000, headers={"dapr-caller-app-id": "flights"})
    assert response.status_code == 413


@pytest.mark.parametrize(
    "path", ["/agents/a%7C%7Cb", "/agents/Flights", "/agents/" + "a" * 500, "/docs", "/openapi.json"]
)
async def test_what_does_not_exist_is_not_found(client, path):
    """Impossible names and other paths get a plain 404."""
    response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]


@pytest.mark.parametrize("path", ["/agents", "/agents/flights", "/docs", "/dapr/config"])
async def test_only_the_own_sidecar_may_ask(client, path):
    """Without the app's token there is no answer but 401."""
    response = await client.get(path, headers={"dapr-api-token": "guess", "dapr-caller-app-id": "desk"})
    assert response.status_code == 401


async def test_it_listens_before_its_sidecar_is_up(client, sidecar):
    """Without a sidecar it is alive, not ready, and answers calls with what to do."""
    sidecar.up = False
    probe = {"dapr-api-token": ""}
    assert (await client.get("/healthz", headers=probe)).status_code == 200
    assert (await client.get("/readyz", headers=probe)).status_code == 503
    for response in (await client.get("/agents"), await enrol(client)):
        assert response.status_code == 503
        assert "sidecar does not answer: start it" in response.json()["error"]
    sidecar.up = True
    assert (await client.get("/readyz", headers=probe)).status_code == 200


async def test_a_store_with_foreign_content_is_not_a_crash(client, sidecar):
    """Whatever is under its keys, the registry answers in one line."""
    sidecar.state["apps"] = (b'{"a": 1}', 1)
    response = await client.get("/agents")
    assert response.status_code == 503
    assert "did not write" in response.json()["error"]
