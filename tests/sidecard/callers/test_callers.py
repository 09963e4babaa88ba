"""Who calls: what the claims of a request prove."""

import hashlib

import pytest

from sidecard.callers import BearerTokens, Callers, CallersFile, Claims
from sidecard.refusals import Forbidden, Unauthenticated
from sidecard.testing import AUDIENCE, FakeIssuer

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


# -- by token --------------------------------------------------------------------------------------------------------

PEOPLE = {
    "issuers": {
        "company": {
            "url": "https://login.example.org",
            "everyone": {"grants": {"shop": ["look"]}, "tenants": ["acme"]},
        }
    },
    "callers": {
        "boss": {"token": {"issuer": "company", "subject": "7"}, "grants": {"shop": ["look", "approve"]}},
        "partner": {"token": {"issuer": "company", "client": "robot"}, "grants": {"shop": ["look"]}},
        "idle": {"token": {"issuer": "company", "subject": "8"}, "grants": {"other": ["look"]}},
        "company-ada": {"api_key": True, "grants": {"shop": ["approve"]}},
    },
}


@pytest.fixture(scope="module")
def issuer():
    return FakeIssuer()


async def holder(issuer, token, file=PEOPLE, **headers):
    file = CallersFile.model_validate(file)
    tokens = BearerTokens(file.issuers, AUDIENCE, issuer.http())
    known = Callers("shop", file, app_token=TOKEN, api_keys=KEYS, tokens=tokens)
    return await known.identify(Claims.of([("authorization", f"Bearer {token}"), *headers.items()]))


async def test_a_token_names_a_listed_person(issuer):
    """With those of its rights that the token was given, and how it was proven."""
    caller = await holder(issuer, issuer.token("7", "approve openid"))
    assert (caller.name, caller.subject, caller.scopes) == ("boss", "boss", {"approve"})
    assert caller.identity == "token:company#7"
    assert caller.tenants == {""}
    assert not caller.speaks_for_others


async def test_a_token_names_a_listed_client(issuer):
    """Only one that it got for itself: a person who uses that program is not the program."""
    assert (await holder(issuer, issuer.token("robot", client_id="robot"))).name == "partner"
    assert (await holder(issuer, issuer.token("ada", client_id="robot"))).name == "company/ada"


async def test_a_client_is_never_taken_for_a_person(issuer):
    """Even if it has managed to be called as one (RFC 9068 §5)."""
    for client in ("7", "unlisted"):
        with pytest.raises(Unauthenticated, match="no rights"):
            await holder(issuer, issuer.token(client, client_id=client))


async def test_everybody_else_of_an_issuer_holds_what_the_file_gives_everyone(issuer):
    """Under a name that no listed caller can have; nothing, where it gives nothing."""
    caller = await holder(issuer, issuer.token("ada", "look approve"))
    assert (caller.name, caller.scopes, caller.tenants) == ("company/ada", {"look"}, {"", "acme"})
    nothing = {**PEOPLE, "issuers": {"company": {"url": issuer.url}}}
    with pytest.raises(Unauthenticated, match="no rights"):
        await holder(issuer, issuer.token("ada"), nothing)


async def test_who_is_listed_without_rights_here_is_not_everyone(issuer):
    """To list somebody is also a way to take rights away; also from tasks under the former name."""
    with pytest.raises(Unauthenticated, match="no rights"):
        await holder(issuer, issuer.token("8"))
    known = Callers("shop", CallersFile.model_validate(PEOPLE), app_token=TOKEN, api_keys={})
    assert known.scopes_of("company/ada") == {"look"}
    assert known.scopes_of("company/8") == known.scopes_of("other/ada") == known.scopes_of("company") == frozenset()


async def test_a_token_without_any_right_here_lets_nobody_in(issuer):
    """It says which to ask for."""
    for scope in ("", "openid", "buy"):
        with pytest.raises(Forbidden, match="ask for approve look"):
            await holder(issuer, issuer.token("7", scope))


async def test_who_acts_by_an_exchanged_token_is_known(issuer):
    """The rights are the subject's."""
    caller = await holder(issuer, issuer.token("7", "look", act={"sub": "planner"}))
    assert (caller.name, caller.actor) == ("boss", "planner")


async def test_one_credential_is_presented_and_by_its_scheme(issuer):
    """A key beside a token makes both worthless; Basic and DPoP are not Bearer."""
    token = issuer.token("7")
    assert await holder(issuer, token, **{"x-api-key": "boss's key"}) is None
    known = callers()
    for authorization in (f"Basic {token}", f"DPoP {token}", token, "Bearer"):
        assert await known.identify(Claims({"authorization": authorization})) is None
    assert await known.identify(Claims({"authorization": f"Bearer {token}"})) is None


async def test_an_agent_without_issuers_takes_no_token(issuer):
    """Whatever is in it."""
    assert await callers().identify(Claims({"authorization": f"Bearer {issuer.token()}"})) is None
