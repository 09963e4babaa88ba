"""Who calls: the file of callers, and what the headers of a request prove."""

import hashlib

import pytest

from sidecard.callers import Callers, CallersFile, claims
from sidecard.errors import ConfigurationError

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


def through_sidecar(app_id, token=TOKEN):
    return {"dapr-api-token": token, "dapr-caller-app-id": app_id}


def test_the_own_sidecar_names_the_caller():
    """Its token makes the app-id believed, with the caller's scopes at this agent and its tenants."""
    caller = callers().identify(through_sidecar("desk"))
    assert (caller.name, caller.subject, caller.scopes) == ("desk", "desk", {"look"})
    assert caller.may_use("")
    assert caller.may_use("acme")
    assert not caller.may_use("other")


def test_a_key_names_the_caller():
    """With its own scopes only, and the default tenant."""
    caller = callers().identify({"x-api-key": "boss's key"})
    assert (caller.name, caller.scopes, caller.tenants) == ("boss", {"approve"}, {""})


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
    ],
)
def test_everybody_else_is_nobody(headers):
    """No token, a wrong one, an app-id not listed, the wrong way in, no scope here, a key nobody has."""
    assert callers().identify(headers) is None


def test_without_an_app_token_no_sidecar_is_believed():
    """An app that was started without its token must not take an empty one for it."""
    assert callers("").identify(through_sidecar("desk", "")) is None


def test_claims_that_come_twice_are_none():
    """Which of two headers counts is what an attacker would like to choose."""
    headers = [("x-api-key", "a"), ("accept", "b"), ("accept", "c"), ("dapr-caller-app-id", "desk")]
    assert claims(headers) == {"x-api-key": "a", "dapr-caller-app-id": "desk"}
    for twice in ("x-api-key", "dapr-caller-app-id"):
        assert claims([*headers, (twice, "a")]) == {}


def test_only_who_may_speaks_for_others():
    """Anybody else stays itself, whatever subject it names."""
    desk, boss = callers().identify(through_sidecar("desk")), callers().identify({"x-api-key": "boss's key"})
    assert (desk.on_behalf_of("ada").name, desk.on_behalf_of("ada").subject) == ("desk", "ada")
    assert desk.on_behalf_of("") is desk
    assert boss.on_behalf_of("ada") is boss


def test_scopes_are_those_at_this_agent():
    """Somebody not listed holds nothing."""
    assert callers().scopes_of("boss") == {"approve"}
    assert callers().scopes_of("idle") == callers().scopes_of("nobody") == frozenset()


@pytest.mark.parametrize(
    "content",
    [None, "callers: [", "callers: {desk: {sidecars: true}}", "other: {}", "", "callers: {desk: {grants: [x]}}"],
)
def test_a_file_that_can_not_be_read_says_which_and_why(tmp_path, content):
    """ConfigurationError in one line with the path; a misspelt word is an error, not a caller without rights."""
    path = tmp_path / "callers.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"callers\.yaml is not a list of callers: .") as caught:
        CallersFile.read(path)
    assert "\n" not in str(caught.value)
