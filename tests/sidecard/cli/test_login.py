"""`sidecard login`: people sign in at a real OpenID provider, and nobody else comes of it."""

import asyncio
import contextlib
import json
import stat
import threading
import time
import webbrowser

import httpx
import pytest
from joserfc import jwk, jwt
from joserfc.jwk import KeySet
from typer.testing import CliRunner

from sidecard import Agent, Task
from sidecard.callers import BearerTokens, Callers, CallersFile, Claims
from sidecard.callers.discovery import Metadata
from sidecard.cli import app, redirect, sign_in, signed_in, way
from sidecard.cli.project import Project
from sidecard.cli.sessions import AgentToken, Session, Sessions
from sidecard.errors import ConfigurationError, SignInFailed
from sidecard.testing import MemoryStore, served
from tests.provider import DESKTOP

RPC = {"jsonrpc": "2.0", "id": 1, "method": "ListTasks"}
agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")


@agent.skill(scope="look", idempotent=True)
async def look(text: str, task: Task) -> str:
    """Look."""
    return text


def callers(provider, login=DESKTOP):
    return {
        "issuers": {"company": {"url": provider.issuer, "login": login}},
        "callers": {
            "anna": {"token": {"issuer": "company", "subject": "ada"}, "grants": {"shop": ["look"]}},
            "bert": {"token": {"issuer": "company", "subject": "bob"}, "grants": {"shop": ["look"]}},
        },
    }


@pytest.fixture
def project(tmp_path, monkeypatch, provider):
    """A project with one agent, whose callers are people of the provider."""
    monkeypatch.chdir(tmp_path)
    for variable in ("SIDECARD_AUDIENCE", "SIDECARD_PUBLIC_URL", "SIDECARD_TLS_PORT"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "agents").mkdir()
    (tmp_path / ".sidecard").mkdir(mode=0o700)
    (tmp_path / ".sidecard" / "trust.json").write_text('{"publishers": {}}')
    (tmp_path / "agents" / "callers.yaml").write_text(json.dumps(callers(provider)))
    ports = {"daprHTTPPort": 1, "daprGRPCPort": 2, "daprInternalGRPCPort": 3, "metricsPort": 4, "configFilePath": "x"}
    shop = {"appID": "shop", "appPort": 8080, "env": {"SIDECARD_GRPC_PORT": "8200"}} | ports
    (tmp_path / "dapr.yaml").write_text(json.dumps({"name": "Tests", "apps": [shop]}))
    return Project(tmp_path)


@pytest.fixture
def browser(monkeypatch, provider):
    """Opens pages as a person does, who signs in as `account` and comes back; `back` may change where to."""

    class Browser:
        account, opened, answers = "ada", (), ()

        def back(self, url):
            return [url]

        def open(self, url):
            self.opened = (*self.opened, url)
            threading.Thread(target=self._sign_in, args=(url,)).start()
            return True

        def _sign_in(self, url):
            with contextlib.suppress(httpx.ConnectError):  # nobody listens any more, once there is an answer
                for address in self.back(provider.sign_in(url, self.account)):
                    self.answers = (*self.answers, httpx.get(address))

    found = Browser()
    monkeypatch.setattr(webbrowser, "open", found.open)
    return found


def run(*words):
    return CliRunner().invoke(app, words, catch_exceptions=False)


async def beside(*words):
    return await asyncio.to_thread(run, *words)


def session(project, name):
    return Sessions(signed_in.folder(project)).read(name)


def seen_by_the_shop(provider, token):
    """How the shop answers to who has a token: the status, and the caller's name."""
    file = CallersFile.model_validate(callers(provider))

    async def ask():
        tokens = BearerTokens(file.issuers, "http://127.0.0.1:8080")
        known = Callers("shop", file, app_token="", api_keys={}, tokens=tokens)
        caller = await known.identify(Claims({"authorization": f"Bearer {token}"}))
        await tokens.aclose()
        return caller.name, caller.scopes

    return ask()


# -- with a browser --------------------------------------------------------------------------------------------------


async def test_a_person_signs_in_with_the_browser(project, provider, browser):
    """The agent knows the person by the token; it is kept where only they can read it, and shown nowhere."""
    done = await beside("login", "shop", "--json")
    assert json.loads(done.stdout) == {
        "ok": True,
        "name": "ada",
        "subject": "ada",
        "issuer": provider.issuer,
        "agent": "shop",
        "scope": "look",
    }
    asked = httpx.URL(browser.opened[0]).params
    assert (asked["code_challenge_method"], asked["resource"]) == ("S256", "http://127.0.0.1:8080")
    assert set(asked["scope"].split()) == {"openid", "offline_access", "look"}
    token = session(project, "ada").tokens["http://127.0.0.1:8080"]
    assert await seen_by_the_shop(provider, token.access_token) == ("anna", {"look"})
    assert token.access_token not in done.output + str(session(project, "ada"))
    folder = signed_in.folder(project)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.json")} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "Go on in the terminal" in browser.answers[0].text
    assert browser.answers[0].headers["cache-control"] == "no-store"


def test_a_session_has_the_name_that_it_is_given(project, provider, monkeypatch):
    """Without a browser the address is printed; the person who is hinted at need not choose."""

    def by_hand(asked, show, **more):
        told = []

        def shown(url):
            show(url)
            told.append(url)
            threading.Thread(target=lambda: httpx.get(provider.sign_in(url, "bob"))).start()

        return original(asked, shown, **more)

    original = sign_in.by_browser
    monkeypatch.setattr(sign_in, "by_browser", by_hand)
    done = run("login", "shop", "--as", "bob", "--no-browser")
    assert "bob is signed in" in done.output
    assert f"{provider.issuer}/auth?" in done.output
    assert session(project, "bob").subject == "bob"


def test_who_comes_with_another_state_is_refused_and_the_person_is_waited_for(project, browser):
    """Whatever page of the web sends the browser here: it can't sign somebody else in, nor end this."""
    own = []

    def back(url):
        wrong = httpx.URL(url)
        own.append(url)
        stray = wrong.copy_with(path="/elsewhere")
        twice = f"{url}&code=another"
        return [wrong.copy_set_param("state", "guess"), wrong.copy_remove_param("state"), stray, twice, url]

    browser.back = back
    assert run("login", "shop").exit_code == 0
    assert [answer.status_code for answer in browser.answers] == [400, 400, 400, 400, 200]


@pytest.mark.parametrize("guarded", [True, False])
def test_a_guess_at_the_state_is_let_in_only_without_the_check(project, browser, monkeypatch, guarded):
    """With the check off an attacker's code would be taken for the person's."""
    if not guarded:
        monkeypatch.setattr(redirect.secrets, "compare_digest", lambda *_: True)
    wrong = []
    browser.back = lambda url: wrong.append(httpx.URL(url).copy_set_param("state", "guess")) or [wrong[-1], url]
    run("login", "shop")
    assert (browser.answers[0].status_code == 200) != guarded


@pytest.mark.parametrize("change", ["another", "missing"])
@pytest.mark.parametrize("guarded", [True, False])
def test_an_answer_of_another_issuer_is_not_taken(project, browser, monkeypatch, change, guarded):
    """RFC 9207: nor one that does not say, where the issuer promises to."""
    if not guarded:
        monkeypatch.setattr(sign_in, "_check_issuer", lambda *_: None)

    def back(url):
        url = httpx.URL(url)
        return [
            url.copy_set_param("iss", "https://evil.example") if change == "another" else url.copy_remove_param("iss")
        ]

    browser.back = back
    if guarded:
        with pytest.raises(SignInFailed, match="not of the issuer that was asked"):
            run("login", "shop")
        assert session(project, "ada") is None
    else:
        assert run("login", "shop").exit_code == 0


def test_a_code_is_good_once(project, provider, browser):
    """Whoever reads it afterwards gets nothing for it."""
    seen = []
    browser.back = lambda url: seen.append(httpx.URL(url)) or [url]
    run("login", "shop")
    redirect = str(seen[0].copy_with(query=None))
    form = {"grant_type": "authorization_code", "code": seen[0].params["code"], "client_id": DESKTOP}
    again = httpx.post(f"{provider.issuer}/token", data=form | {"redirect_uri": redirect, "code_verifier": "x" * 43})
    assert again.json()["error"] == "invalid_grant"
    with pytest.raises(httpx.ConnectError):  # and nobody listens any more where it came to
        httpx.get(seen[0])


def test_what_the_issuer_refuses_is_said(project, browser):
    """In its words, as far as they can be shown."""

    def back(url):
        params = {"error": "access_denied", "error_description": "not\x1b[31m today"}
        kept = {name: httpx.URL(url).params[name] for name in ("state", "iss")}
        return [httpx.URL(url).copy_with(params=params | kept)]

    browser.back = back
    with pytest.raises(SignInFailed, match=r"The issuer refuses: not\[31m today\."):
        run("login", "shop")


def test_nobody_waits_for_ever(project, monkeypatch):
    """Who does not sign in in time is told."""
    monkeypatch.setattr(sign_in.by_browser, "__defaults__", (0.05,))
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    with pytest.raises(SignInFailed, match="Nobody has signed in in time"):
        run("login", "shop")


# -- on another device -----------------------------------------------------------------------------------------------


async def test_a_person_signs_in_on_another_device(project, provider, monkeypatch):
    """By a code; until that is done the issuer says so, and is asked no more often than it wants."""
    slept = []

    def by_device(asked, show):
        def shown(page, code, complete):
            show(page, code, complete)
            pages.append(complete)

        def sleep(seconds):
            slept.append(seconds)
            if len(slept) == 2:
                provider.sign_in(pages[0], "bob")

        return original(asked, shown, sleep)

    pages, original = [], sign_in.by_device
    monkeypatch.setattr(sign_in, "by_device", by_device)
    done = await beside("login", "shop", "--device")
    assert f"open {provider.issuer}/device and type " in done.output
    assert slept == [5, 5]
    token = session(project, "bob").tokens["http://127.0.0.1:8080"]
    assert await seen_by_the_shop(provider, token.access_token) == ("bert", {"look"})


# -- what proves who signed in ---------------------------------------------------------------------------------------

KEY = jwk.ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
STRANGER = jwk.ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
ISSUER = "https://login.example.org"
ASKED = sign_in.Asked(
    Metadata(f"{ISSUER}/x", ISSUER, f"{ISSUER}/keys", {}), KeySet([KEY]), "cli", "http://shop", ("look",)
)


def id_token(key=KEY, header=None, **claims):
    told = {"iss": ISSUER, "aud": "cli", "sub": "ada", "exp": int(time.time()) + 60, "nonce": "n"} | claims
    told = {name: value for name, value in told.items() if value is not None}
    return {"id_token": jwt.encode({"alg": "ES256", "kid": KEY.kid} | (header or {}), told, key)}


def test_a_sound_id_token_says_who_it_is():
    """Of the issuer, for this client, with the nonce of this sign-in."""
    assert sign_in._subject(id_token(), ASKED, "n") == "ada"
    assert sign_in._subject(id_token(aud=["cli"], azp="cli"), ASKED, "n") == "ada"


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"id_token": "x.y.z"},
        id_token(nonce="another"),
        id_token(nonce=None),
        id_token(iss="https://evil.example"),
        id_token(aud="other"),
        id_token(aud=["cli", "other"]),
        id_token(azp="other"),
        id_token(exp=int(time.time()) - 3_600),
        id_token(exp=None),
        id_token(sub=None),
        id_token(STRANGER, {"kid": KEY.kid}),
    ],
)
def test_any_other_id_token_proves_nothing(told):
    """Of somebody else, for somebody else, of another sign-in, too old, or forged."""
    with pytest.raises(SignInFailed, match="ID token"):
        sign_in._subject(told, ASKED, "n")


def test_an_issuer_that_sends_people_to_unsafe_places_is_not_followed():
    """Endpoints are https, or on this machine."""
    metadata = Metadata(f"{ISSUER}/x", ISSUER, f"{ISSUER}/keys", {"authorization_endpoint": "http://evil.example/a"})
    asked = sign_in.Asked(metadata, KeySet([KEY]), "cli", "http://shop", ())
    with pytest.raises(SignInFailed, match="has no authorization_endpoint"):
        sign_in.by_browser(asked, lambda _: None)


# -- what it is for --------------------------------------------------------------------------------------------------


async def test_what_is_sent_as_somebody_who_is_signed_in_bears_their_token(project, provider, browser, listen):
    """Directly, for this agent; replaced when it expires, by whoever comes first; without a session nothing is sent."""
    await beside("login", "shop")
    file = callers(provider)
    async with served(agent, MemoryStore(), file["callers"], issuers=file["issuers"]) as desk:
        url = f"http://127.0.0.1:{await listen(desk.app)}/a2a"
        auth = way.directly(project, "shop", "ada").auth

        async def status():
            async with httpx.AsyncClient(auth=auth, headers={"a2a-version": "1.0"}) as http:
                answer = await http.post(url, json=RPC)
                return answer.status_code, answer.request.headers["authorization"]

        status_code, first = await status()
        assert status_code == 200
        assert await status() == (200, first)
        expire(project, "ada")
        auth = way.directly(project, "shop", "ada").auth
        status_code, second = await status()
        assert (status_code, second != first) == (200, True)
        refreshed = session(project, "ada").tokens["http://127.0.0.1:8080"]
        assert second == f"Bearer {refreshed.access_token}"
        auth = way.directly(project, "shop", "ada").auth
        assert await status() == (200, second)


def expire(project, name, **more):
    kept = Sessions(signed_in.folder(project))
    found = kept.read(name)
    for audience, token in found.tokens.items():
        found.tokens[audience] = token.model_copy(update={"expires_at": time.time() + 5, **more})
    kept.write(name, found)


def test_a_session_that_has_ended_says_so(project, browser):
    """With the command that begins a new one; also one for another agent, and none at all."""
    run("login", "shop")
    auth = signed_in.SessionAuth(project, "ada", "shop")
    for refresh_token in ("", "nonsense"):
        expire(project, "ada", refresh_token=refresh_token)
        with pytest.raises(ConfigurationError, match="`sidecard login shop --as ada`"):
            auth._fresh()
    auth._audience = "http://elsewhere"
    with pytest.raises(ConfigurationError, match="ada is not signed in for shop: `sidecard login shop --as ada`"):
        auth._fresh()
    with pytest.raises(ConfigurationError, match=r"There is no key of 'eve'.*people sign in by `sidecard login`"):
        way.directly(project, "shop", "eve")


def test_signing_out_ends_it_at_the_issuer_too(project, provider, browser):
    """Who copied the session before gets no new token by it."""
    run("login", "shop")
    copied = session(project, "ada").tokens["http://127.0.0.1:8080"]
    assert "ada is signed out" in run("logout", "ada").output
    assert session(project, "ada") is None
    asked = signed_in.ask(project, "shop")
    with pytest.raises(SignInFailed, match="The issuer refuses"):
        sign_in.refreshed(asked, copied)
    with pytest.raises(ConfigurationError, match="ada is not signed in; there are: none"):
        run("logout", "ada")


def test_signing_out_works_without_the_issuer_and_says_so(project):
    """The session is gone from here all the same; one that can't be read as well."""
    token = AgentToken(access_token="t", expires_at=0, scope="look", refresh_token="r")
    kept = Sessions(signed_in.folder(project))
    kept.write("ada", Session(issuer="http://127.0.0.1:1", client="c", subject="ada", tokens={"a": token}))
    assert "could not be told" in run("logout", "ada").output
    (signed_in.folder(project) / "bob.json").write_text("{")
    assert json.loads(run("logout", "bob", "--json").output) == {"ok": True, "name": "bob", "told": False}
    assert kept.names() == []


@pytest.mark.parametrize("name", ["../x", ".hidden", "a/b", "shop", "boss", "x" * 65])
def test_a_session_has_no_name_that_means_something_else(project, name):
    """No path, no app, no caller with a key: before anybody has signed in."""
    (project.local / "keys").mkdir()
    (project.local / "keys" / "boss.key").write_text("k")
    with pytest.raises(ConfigurationError, match=r"give (the session another|it a) name"):
        run("login", "shop", "--as", name)


def test_one_issuer_is_asked(project, provider):
    """The one whose people may do something at the agent; where there is none, or several, that is said."""
    file = project.root / "agents" / "callers.yaml"
    told = callers(provider)
    told["issuers"]["other"] = {"url": "https://other.example", "everyone": {"grants": {"shop": ["look"]}}}
    file.write_text(json.dumps(told))
    with pytest.raises(ConfigurationError, match="there are: company, other; choose by --issuer"):
        signed_in.ask(project, "shop")
    assert signed_in.ask(project, "shop", "company").client == DESKTOP
    told["callers"], told["issuers"] = {}, {"company": told["issuers"]["company"]}
    file.write_text(json.dumps(told))
    with pytest.raises(ConfigurationError, match=r"agents/callers\.yaml has none"):
        signed_in.ask(project, "shop")
