"""What an issuer says of itself, and what of that is believed."""

import asyncio
import gzip
import json

import httpx
import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response

from sidecard.callers import discovery
from sidecard.callers.discovery import discover
from sidecard.errors import IssuerUnavailable

URL = "https://login.example.org/tenant"
OPENID = f"{URL}/.well-known/openid-configuration"
OAUTH = "https://login.example.org/.well-known/oauth-authorization-server/tenant"
SOUND = {"issuer": URL, "jwks_uri": "https://keys.example.org/keys", "token_endpoint": f"{URL}/token"}


async def told(answers):
    def answer(request):
        return answers.get(str(request.url), httpx.Response(404))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        return await discover(http, URL)


async def test_an_openid_provider_is_asked_first():
    """Its endpoints are in what it says."""
    metadata = await told({OPENID: httpx.Response(200, json=SOUND)})
    assert (metadata.url, metadata.jwks_uri, metadata.is_openid) == (OPENID, SOUND["jwks_uri"], True)
    assert metadata.endpoint("token_endpoint") == f"{URL}/token"
    assert metadata.endpoint("device_authorization_endpoint") == ""


async def test_an_authorization_server_without_openid_serves_too():
    """RFC 8414 puts its path behind the well-known one."""
    metadata = await told({OAUTH: httpx.Response(200, json=SOUND)})
    assert (metadata.url, metadata.is_openid) == (OAUTH, False)


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://login.example.org"},
        {"issuer": f"{URL}/"},
        {"issuer": None},
        {"jwks_uri": "http://keys.example.org/keys"},
        {"jwks_uri": "http://127.0.0.1/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
        {"jwks_uri": 7},
    ],
)
async def test_who_describes_another_or_has_keys_that_anybody_can_change_is_not_believed(change):
    """The issuer is its own, to the letter; keys come by https."""
    with pytest.raises(IssuerUnavailable, match=r"another issuer|jwks_uri"):
        await told({OPENID: httpx.Response(200, json=SOUND | change)})


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b"[" * 100_000, b"\xff"])
async def test_what_is_no_json_object_is_no_metadata(body):
    """Whatever else it is."""
    with pytest.raises(IssuerUnavailable, match="no JSON"):
        await told({OPENID: httpx.Response(200, content=body)})


async def test_redirects_are_not_followed_and_bodies_are_bounded(listen, monkeypatch):
    """Nor is anything unpacked, nor waited for: an issuer is asked while a caller waits."""
    asked = []

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        asked.append(scope["path"])
        kind = scope["path"].split("/")[1]
        if kind == "slow":
            await asyncio.sleep(30)
        answers = {
            "redirects": RedirectResponse("/elsewhere/.well-known/openid-configuration"),
            "large": Response(b" " * (discovery.MAX_BYTES + 1)),
            "packed": Response(gzip.compress(b"{}"), headers={"content-encoding": "gzip"}),
        }
        await answers.get(kind, JSONResponse({}))(scope, receive, send)

    port = await listen(app)
    monkeypatch.setattr(discovery, "FETCH_SECONDS", 0.3)
    async with httpx.AsyncClient() as http:
        for kind in ("redirects", "large", "packed", "slow"):
            with pytest.raises(IssuerUnavailable, match=r"HTTP 307|more than|compressed|does not answer"):
                await discovery.fetch_json(http, f"http://127.0.0.1:{port}/{kind}")
    assert asked == ["/redirects", "/large", "/packed", "/slow"]


async def test_a_real_provider_is_understood(provider):
    """One of another make."""
    async with httpx.AsyncClient() as http:
        metadata = await discover(http, provider.issuer)
        assert metadata.is_openid
        assert metadata.supports("code_challenge_methods_supported", "S256")
        assert json.dumps(await discovery.fetch_json(http, metadata.jwks_uri))
