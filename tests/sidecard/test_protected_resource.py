"""What a caller is told who came without the right token: over HTTP, as OAuth clients read it."""

import pytest

from sidecard import Agent, Task
from sidecard.callers import CallersFile
from sidecard.extension import URI
from sidecard.protected_resource import PATH, ProtectedResource
from sidecard.settings import Settings
from sidecard.testing import AUDIENCE, ISSUER, FakeIssuer, MemoryStore, served

agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")
CALLERS = {
    "ada": {"token": {"issuer": "company", "subject": "ada"}, "grants": {"shop": ["look"]}},
    "boss": {"api_key": True, "grants": {"shop": ["buy"]}},
}
SEND = {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hat"}]}}


@agent.skill(scope="look", idempotent=True)
async def look(text: str, task: Task) -> str:
    """Look."""
    return text


@agent.skill(scope="buy", idempotent=True)
async def buy(text: str, task: Task) -> str:
    """Buy."""
    return text


@pytest.fixture(scope="module")
def issuer():
    return FakeIssuer()


@pytest.fixture
async def shop(issuer):
    async with served(
        agent, MemoryStore(), CALLERS, issuers={"company": {"url": ISSUER}}, issuers_http=issuer.http()
    ) as shop:
        yield shop


async def test_which_tokens_are_taken_is_told_to_anybody(shop):
    """RFC 9728: whose, for whom, with which scopes."""
    async with shop.http() as http:
        answer = await http.get(PATH)
    assert answer.json() == {
        "resource": AUDIENCE,
        "resource_name": "shop",
        "authorization_servers": [ISSUER],
        "scopes_supported": ["look"],
        "bearer_methods_supported": ["header"],
    }


@pytest.mark.parametrize(("method", "path"), [("POST", "/a2a"), ("GET", "/rest/tasks")])
async def test_who_comes_without_a_token_is_told_where_to_look(shop, method, path):
    """With a wrong one, also what is wrong with it (RFC 6750 §3)."""
    async with shop.http() as http:
        answer = await http.request(method, path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == f'Bearer resource_metadata="{AUDIENCE}{PATH}"'
        answer = await http.request(method, path, headers={"Authorization": 'Bearer "x"'})
    assert answer.status_code == 401
    assert 'error="invalid_token", error_description="The token is no signed JWT"' in answer.headers["www-authenticate"]


async def test_who_has_a_token_for_less_is_told_so(shop, issuer):
    """At the door, and where a skill needs another scope; a key gets no such hint."""
    async with shop.http() as http:
        token = {"Authorization": f"Bearer {issuer.token(scope='openid')}"}
        answer = await http.post("/rest/message:send", json=SEND, headers=token)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (403, 'Bearer error="insufficient_scope"')
        token = {"Authorization": f"Bearer {issuer.token(scope='look')}"}
        wanted = SEND["message"] | {"metadata": {URI: {"skill": "buy"}}}
        answer = await http.post("/rest/message:send", json={"message": wanted}, headers=token)
        assert answer.status_code == 403, answer.text
        assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
    async with shop.http("boss") as http:
        answer = await http.post("/rest/tenant/message:send", json=SEND)
        assert answer.status_code == 403
        assert "www-authenticate" not in answer.headers


async def test_an_agent_that_takes_no_token_has_nothing_to_tell():
    """Not even by name: the path is not served, and a 401 asks for a key."""
    async with served(agent, MemoryStore(), {"boss": CALLERS["boss"]}) as shop, shop.http() as http:
        assert (await http.get(PATH)).status_code == 404
        assert (await http.post("/a2a")).headers["www-authenticate"] == 'ApiKey header="x-api-key"'


def test_only_issuers_with_callers_here_are_named():
    """Others can't help anybody to a right."""
    file = CallersFile.model_validate(
        {
            "issuers": {"company": {"url": ISSUER}, "other": {"url": "https://other.example.org"}},
            "callers": CALLERS | {"bob": {"token": {"issuer": "other", "subject": "b"}, "grants": {"flights": ["x"]}}},
        }
    )
    settings = Settings(app_id="shop", audience="urn:shop")
    assert ProtectedResource.of("shop", settings, file).issuers == (ISSUER,)
    assert ProtectedResource.of("shop", settings, file).audience == "urn:shop"
    assert ProtectedResource.of("nobody", settings, file) is None
