"""The OpenID provider of the tests: each way to a token that `sidecard login` and agents go, at a real provider."""

import hashlib
import secrets
from base64 import urlsafe_b64encode

import httpx
import pytest
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError
from joserfc.jwk import KeySet

from foreign.openid import running
from tests.provider import CONFIG, DESKTOP, PARTNER, PLANNER, PLANNER_URL, REDIRECT

SHOP = "http://127.0.0.1:7000"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


def read(provider, token):
    """Header and claims of a token, its signature checked against the published keys."""
    keys = KeySet.import_key_set(httpx.get(f"{provider.issuer}/jwks").json())
    decoded = jwt.decode(token, keys, algorithms=["RS256", "ES256"])
    return decoded.header, decoded.claims


def test_client_credentials_give_a_token_for_one_agent(provider):
    """An RFC 9068 access token: issuer, audience, client, and the scopes that were asked for."""
    header, claims = read(provider, provider.token(*PARTNER, resource=SHOP, scope="look"))
    assert header["typ"] == "at+jwt"
    assert (claims["iss"], claims["aud"], claims["client_id"]) == (provider.issuer, SHOP, "partner")
    assert (claims["sub"], claims["scope"]) == ("partner", "look")


def signed_in(provider, account="ada", resource=SHOP):
    """The answer to a code that a person got in a browser, sent to a loopback redirect at some port."""
    verifier = secrets.token_urlsafe(32)
    challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    redirect = REDIRECT.replace("127.0.0.1", "127.0.0.1:7777")
    asked = {
        "response_type": "code",
        "client_id": DESKTOP,
        "redirect_uri": redirect,
        "scope": "openid look trips:plan",
        "resource": resource,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "state": "here",
    }
    back = httpx.URL(provider.sign_in(str(httpx.URL(f"{provider.issuer}/auth", params=asked)), account))
    assert str(back).startswith(redirect)
    assert (back.params["state"], back.params["iss"]) == ("here", provider.issuer)
    form = {"grant_type": "authorization_code", "code": back.params["code"], "redirect_uri": redirect}
    return httpx.post(f"{provider.issuer}/token", data=form | {"client_id": DESKTOP, "code_verifier": verifier}).json()


def test_a_person_signs_in_with_a_browser(provider):
    """Authorization code with PKCE: an access token for the agent, an ID token for the application, a refresh token."""
    answer = signed_in(provider)
    _, claims = read(provider, answer["access_token"])
    assert (claims["sub"], claims["client_id"], claims["aud"]) == ("ada", DESKTOP, SHOP)
    assert read(provider, answer["id_token"])[1]["aud"] == DESKTOP
    form = {"grant_type": "refresh_token", "refresh_token": answer["refresh_token"], "client_id": DESKTOP}
    again = httpx.post(f"{provider.issuer}/token", data=form).json()
    assert read(provider, again["access_token"])[1]["sub"] == "ada"


def test_a_person_signs_in_on_another_device(provider):
    """Device code: a code to type in elsewhere; the token comes when that is done."""
    asked = {"client_id": DESKTOP, "scope": "openid look", "resource": SHOP}
    device = httpx.post(f"{provider.issuer}/device/auth", data=asked).json()
    poll = {"grant_type": DEVICE, "device_code": device["device_code"], "client_id": DESKTOP}
    assert httpx.post(f"{provider.issuer}/token", data=poll).json()["error"] == "authorization_pending"
    provider.sign_in(device["verification_uri_complete"], "bob")
    answer = httpx.post(f"{provider.issuer}/token", data=poll).json()
    assert read(provider, answer["access_token"])[1]["sub"] == "bob"


def exchanged(provider, subject_token, client=PLANNER, **more):
    form = {
        "grant_type": EXCHANGE,
        "subject_token": subject_token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "resource": SHOP,
    }
    return httpx.post(f"{provider.issuer}/token", data=form | more, auth=client).json()


def test_an_agent_exchanges_a_token_made_out_to_it(provider):
    """For one at the next agent: the same person, the agent as actor, no other audience."""
    mine = signed_in(provider, resource=PLANNER_URL)["access_token"]
    answer = exchanged(provider, mine, scope="look")
    _, claims = read(provider, answer["access_token"])
    assert (claims["sub"], claims["act"], claims["aud"]) == ("ada", {"sub": "planner"}, SHOP)
    assert (claims["scope"], claims["client_id"]) == ("look", "planner")


def test_tokens_for_others_are_not_exchanged(provider):
    """Nor is what the client may not do at all."""
    others = signed_in(provider)["access_token"]
    assert exchanged(provider, others)["error"] == "invalid_grant"
    assert exchanged(provider, "nonsense")["error"] == "invalid_grant"
    assert exchanged(provider, others, PARTNER)["error"] == "invalid_request"


def test_keys_rotate():
    """New tokens bear another key's id; the old key stays published, until it is withdrawn."""
    with running(CONFIG) as provider:
        old = provider.token(*PARTNER, resource=SHOP)
        provider.rotate()
        new = provider.token(*PARTNER, resource=SHOP)
        assert read(provider, old)[0]["kid"] != read(provider, new)[0]["kid"]
        provider.rotate(withdraw=True)
        with pytest.raises(InvalidKeyIdError):
            read(provider, new)
        assert provider.requests()["/jwks"] == 3


def test_a_provider_that_does_not_start_says_why():
    """Rather than leaving its tests to guess."""
    with pytest.raises(RuntimeError, match="does not start"), running({"clients": "none"}):
        pass
