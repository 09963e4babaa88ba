"""Who calls: what the claims of a request prove."""

import hashlib

import pytest

from sidecard.callers import Callers, CallersFile, Claims

FILE = CallersFile.model_validate(
    {
        "callers": {
            "desk": {"sidecar": True, "speaks_for_others": True, "tenants": ["acme"], "grants": {"shop": ["look"]}},
            "boss": {"api_key": True, "grants": {"shop": ["approve"], "other": ["look"]}},
            "idle": {"sidecar": True, "api_key": True, "grants": {"other": ["look"]}},
        }
    }
)
KEYS = {hashlib.sha256(f"{name}'s key".encode()).hexdigest(): name for name in ("boss", "desk", "idle", "ghost")}
TOKEN = "token"


def callers(token=TOKEN):
    return Callers("shop", FILE, app_token=token, api_keys=KEYS)


async def who(headers, token=TOKEN):
    return await callers(token).identify(Claims.of(headers.items()))


def through_sidecar(app_id, token=TOKEN):
    return {"dapr-api-token": token, "dapr-caller-app-id": app_id}


async def test_the_own_sidecar_names_the_caller():
    """Its token makes the app-id believed, with the caller's scopes at this agent and its tenants."""
    caller = await who(through_sidecar("desk"))
    assert (caller.name, caller.subject, caller.scopes) == ("desk", "desk", {"look"})
    assert caller.identity == "sidecar:desk"
    assert caller.may_use("")
    assert caller.may_use("acme")
    assert not caller.may_use("other")


async def test_a_key_names_the_caller():
    """With its own scopes only, and the default tenant."""
    caller = await who({"x-api-key": "boss's key"})
    assert (caller.name, caller.scopes, caller.tenants) == ("boss", {"approve"}, {""})
    assert caller.identity == "key:boss"


async def test_a_caller_may_have_several_keys():
    """So that a key can be replaced without a moment in which none is known."""
    keys = {hashlib.sha256(key.encode()).hexdigest(): "boss" for key in ("old", "new")}
    known = Callers("shop", FILE, app_token=TOKEN, api_keys=keys)
    assert await known.identify(Claims({"x-api-key": "old"})) == await known.identify(Claims({"x-api-key": "new"}))


async def test_a_call_through_the_sidecar_is_the_apps_whatever_it_carries():
    """A key or a token beside it is meant for somebody else, or is a trick."""
    for more in ({"x-api-key": "boss's key"}, {"authorization": "Bearer x"}):
        assert (await who(through_sidecar("desk") | more)).name == "desk"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"dapr-caller-app-id": "desk"},
        through_sidecar("desk", "guess"),
        through_sidecar("desk", ""),
        {"dapr-api-token": TOKEN},
        through_sidecar("nobody"),
        through_sidecar("boss"),
        through_sidecar("idle"),
        {"x-api-key": ""},
        {"x-api-key": "guess"},
        {"x-api-key": "desk's key"},
        {"x-api-key": "idle's key"},
        {"x-api-key": "ghost's key"},
        {"x-api-key": "boss"},
        {"x-api-key": next(iter(KEYS))},
        {"x-api-key": "k\xe9y"},
        {"dapr-api-token": "t\xf6ken", "dapr-caller-app-id": "desk"},
        through_sidecar("nobody") | {"x-api-key": "boss's key"},
        {"x-api-key": "boss's key", "authorization": "Bearer x"},
        {"x-api-key": "boss's key", "authorization": "Basic x"},
    ],
)
async def test_everybody_else_is_nobody(headers):
    """No token, a wrong one, an app-id not listed, a wrong way in, no scope here, a key of nobody, two credentials."""
    assert await who(headers) is None


async def test_without_an_app_token_no_sidecar_is_believed():
    """An app that was started without its token must not take an empty one for it."""
    assert await who(through_sidecar("desk", ""), "") is None


async def test_only_who_may_speaks_for_others():
    """Anybody else stays itself, whatever subject it names."""
    desk, boss = await who(through_sidecar("desk")), await who({"x-api-key": "boss's key"})
    assert (desk.on_behalf_of("ada").name, desk.on_behalf_of("ada").subject) == ("desk", "ada")
    assert desk.on_behalf_of("") is desk
    assert boss.on_behalf_of("ada") is boss


def test_scopes_are_those_at_this_agent():
    """Somebody not listed holds nothing."""
    assert callers().scopes_of("boss") == {"approve"}
    assert callers().scopes_of("idle") == callers().scopes_of("nobody") == frozenset()
