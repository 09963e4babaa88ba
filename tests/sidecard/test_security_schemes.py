"""What a card declares of how callers are known: what is enforced, and what somebody can use."""

import pytest
from google.protobuf.json_format import MessageToDict

from sidecard import Agent, Task
from sidecard.agent_card import describe
from sidecard.callers import BearerTokens, CallersFile
from sidecard.card import SignedCard, parse_card
from sidecard.security_schemes import ways_in
from sidecard.settings import Settings
from sidecard.signature import card_dict
from sidecard.testing import ISSUER, FakeIssuer

agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests", asks=("approve",))
CALLERS = {
    "desk": {"sidecar": True, "grants": {"shop": ["look", "buy"]}},
    "boss": {"api_key": True, "grants": {"shop": ["approve"]}},
    "partner": {"token": {"issuer": "company", "client": "robot"}, "grants": {"shop": ["look"]}},
    "ada": {"token": {"issuer": "company", "subject": "7"}, "grants": {"shop": ["buy"]}},
}


@agent.skill(scope="look", idempotent=True)
async def look(text: str, task: Task) -> str:
    """Look."""
    return text


@agent.skill(scope="buy", idempotent=False)
async def buy(text: str, task: Task) -> str:
    """Buy."""
    return text


@pytest.fixture
def issuer():
    return FakeIssuer()


async def card(issuer, callers=CALLERS, **settings):
    file = CallersFile.model_validate({"issuers": {"company": {"url": ISSUER} | settings}, "callers": callers})
    metadata = await BearerTokens(file.issuers, "", issuer.http()).metadata()
    return MessageToDict(describe(agent, Settings(app_id="shop"), ways_in("shop", file, metadata)))


def kinds(card):
    return {name: next(iter(scheme)) for name, scheme in card.get("securitySchemes", {}).items()}


async def test_every_way_that_a_caller_can_go_is_declared(issuer):
    """Dapr's identity, a key, a token, and how a token is got: by OpenID, and by each flow of its issuer."""
    declared = await card(issuer)
    assert kinds(declared) == {
        "sidecar": "mtlsSecurityScheme",
        "apiKey": "apiKeySecurityScheme",
        "bearer": "httpAuthSecurityScheme",
        "company": "openIdConnectSecurityScheme",
        "company-client": "oauth2SecurityScheme",
        "company-code": "oauth2SecurityScheme",
        "company-device": "oauth2SecurityScheme",
    }
    schemes = declared["securitySchemes"]
    assert schemes["company"]["openIdConnectSecurityScheme"]["openIdConnectUrl"].startswith(ISSUER)
    assert schemes["bearer"]["httpAuthSecurityScheme"]["bearerFormat"] == "JWT"
    client = schemes["company-client"]["oauth2SecurityScheme"]["flows"]["clientCredentials"]
    assert (client["tokenUrl"], list(client["scopes"])) == (f"{ISSUER}/token", ["look"])
    code = schemes["company-code"]["oauth2SecurityScheme"]["flows"]["authorizationCode"]
    assert (code["authorizationUrl"], code["pkceRequired"]) == (f"{ISSUER}/authorize", True)
    assert list(code["scopes"]) == ["buy"]
    assert schemes["company-device"]["oauth2SecurityScheme"]["flows"]["deviceCode"]["tokenUrl"] == f"{ISSUER}/token"
    assert sorted(name for one in declared["securityRequirements"] for name in one["schemes"]) == sorted(schemes)


async def test_a_card_with_all_ways_is_read_back_as_it_is(issuer):
    """By the SDK, which is confused by what callers of A2A 0.3 find in it: or its signature would not fit."""
    callers = CALLERS | {"eve": {"certificates": ["dns:eve.example.org"], "grants": {"shop": ["look"]}}}
    file = CallersFile.model_validate({"issuers": {"company": {"url": ISSUER}}, "callers": callers})
    metadata = await BearerTokens(file.issuers, "", issuer.http()).metadata()
    ways = ways_in("shop", file, metadata, certificates=True)
    described = describe(agent, Settings(app_id="shop"), ways)
    assert len(ways) == 8
    assert card_dict(parse_card(SignedCard(described).body, "the shop")) == card_dict(described)


async def test_each_skill_says_by_which_ways_its_scope_can_be_held(issuer):
    """And which scope a token is to be asked for with; keys and sidecars have none to ask for."""
    look, buy = (skill["securityRequirements"] for skill in (await card(issuer))["skills"])
    assert [(name, value) for one in look for name, value in one["schemes"].items()] == [
        ("sidecar", {}),
        ("bearer", {"list": ["look"]}),
        ("company", {"list": ["look"]}),
        ("company-client", {"list": ["look"]}),
    ]
    assert [name for one in buy for name in one["schemes"]] == [
        "sidecar",
        "bearer",
        "company",
        "company-code",
        "company-device",
    ]


async def test_a_way_that_nobody_can_go_is_not_declared(issuer):
    """Whoever holds no scope at this agent can't go it; "everyone" can, where there is that."""
    elsewhere = {"grants": {"other": ["look"]}}
    nobody = {"key": {"api_key": True} | elsewhere, "ada": {"token": {"issuer": "company", "subject": "7"}} | elsewhere}
    assert kinds(await card(issuer, nobody)) == {}
    assert set(kinds(await card(issuer, nobody, everyone={"grants": {"shop": ["look"]}}))) == {
        "bearer",
        "company",
        "company-code",
        "company-device",
    }


def test_client_certificates_are_declared_where_they_are_asked_for():
    """And somebody is known by one."""
    callers = {"ada": {"certificates": ["dns:ada.example.org"], "grants": {"shop": ["look"]}}}
    file = CallersFile.model_validate({"callers": callers})
    assert [way.name for way in ways_in("shop", file, {}, certificates=True)] == ["mutualTLS"]
    assert ways_in("shop", file, {}) == []
    assert ways_in("shop", CallersFile.model_validate({"callers": {}}), {}, certificates=True) == []


async def test_a_flow_that_the_issuer_does_not_support_is_not_declared(issuer):
    """Nor the code flow without PKCE, nor an endpoint that is not safe to use."""
    issuer.metadata["code_challenge_methods_supported"] = ["plain"]
    issuer.metadata["grant_types_supported"] = ["authorization_code"]
    assert set(kinds(await card(issuer))) == {"sidecar", "apiKey", "bearer", "company"}
    issuer.metadata |= FakeIssuer().metadata | {"token_endpoint": "http://login.example.org/token"}
    assert set(kinds(await card(issuer))) == {"sidecar", "apiKey", "bearer", "company"}


async def test_of_an_issuer_that_is_down_only_its_tokens_are_declared(issuer):
    """They may come from elsewhere, and are taken as soon as its keys can be had."""
    issuer.down = True
    assert set(kinds(await card(issuer))) == {"sidecar", "apiKey", "bearer"}
