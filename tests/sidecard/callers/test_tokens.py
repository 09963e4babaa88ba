"""Bearer tokens: which are believed, and what they say. What attackers try is in tests/security/test_tokens.py."""

import hashlib
import time
from base64 import urlsafe_b64encode

import pytest

from sidecard.callers import BearerTokens, issuer_keys, tokens
from sidecard.callers.file import Issuer
from sidecard.callers.tokens import SKEW_SECONDS
from sidecard.refusals import Unauthenticated, Unavailable
from sidecard.testing import AUDIENCE, FakeIssuer


@pytest.fixture(scope="module")
def issuer():
    return FakeIssuer()


@pytest.fixture(autouse=True)
def up(issuer):
    issuer.down = False


async def verified(issuer, token, certificate=None, **settings):
    known = Issuer(url=issuer.url, **settings)
    return await BearerTokens({"company": known}, AUDIENCE, issuer.http()).verify(token, certificate)


async def test_a_sound_token_says_who_it_is_and_what_it_is_for(issuer):
    """The issuer by our name of it, the subject, the client, the scopes."""
    token = await verified(issuer, issuer.token("ada", "look buy"))
    assert (token.issuer, token.subject, token.client, token.scopes) == ("company", "ada", "desktop", {"look", "buy"})
    assert (token.actor, token.is_clients) == ("", False)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # by the name Ed25519, which issuers have yet to learn
@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
async def test_keys_of_all_kinds_serve(algorithm):
    """Beside ES256, which the other tests use."""
    issuer = FakeIssuer(algorithm=algorithm)
    assert (await verified(issuer, issuer.token())).subject == "ada"


async def test_a_clients_own_token_is_told_from_a_persons(issuer):
    """By its subject, which is the client or nobody (RFC 9068 §2.2); azp is another name of client_id."""
    for more in ({"subject": "desktop"}, {"subject": None}, {"subject": "robot", "client_id": None, "azp": "robot"}):
        assert (await verified(issuer, issuer.token(**more))).is_clients


async def test_scopes_may_be_a_list(issuer):
    """As some issuers give them."""
    assert (await verified(issuer, issuer.token(scope=None, scp=["look", "buy"]))).scopes == {"look", "buy"}
    assert (await verified(issuer, issuer.token(scope=None))).scopes == frozenset()


async def test_who_acts_for_the_subject_is_told(issuer):
    """The outermost actor of a token that was exchanged (RFC 8693 §4.1)."""
    token = await verified(issuer, issuer.token(act={"sub": "planner", "act": {"sub": "desk"}}))
    assert (token.subject, token.actor) == ("ada", "planner")
    for act in ("planner", {}, {"sub": ["planner"]}):
        with pytest.raises(Unauthenticated):
            await verified(issuer, issuer.token(act=act))


async def test_a_token_holds_for_its_time(issuer):
    """A clock may differ a little."""
    now = time.time()
    assert await verified(issuer, issuer.token(exp=now - SKEW_SECONDS / 2, nbf=now + SKEW_SECONDS / 2))
    for late in ({"exp": now - SKEW_SECONDS - 1}, {"nbf": now + SKEW_SECONDS + 2}, {"iat": now + SKEW_SECONDS + 2}):
        with pytest.raises(Unauthenticated, match=r"expired|not for this agent"):
            await verified(issuer, issuer.token(**late))


async def test_a_token_is_for_this_agent_alone(issuer):
    """In a list too; what its issuer adds of itself does no harm."""
    assert await verified(issuer, issuer.token(aud=[AUDIENCE]))
    assert await verified(issuer, issuer.token(aud=[AUDIENCE, f"{issuer.url}/userinfo"]))
    for others in ([AUDIENCE, "https://other.example.org"], [AUDIENCE, f"{issuer.url}.evil.example"]):
        with pytest.raises(Unauthenticated, match="for others too"):
            await verified(issuer, issuer.token(aud=others))


async def test_an_issuer_that_knows_no_rfc_9068_can_be_believed(issuer):
    """Where the file says so; its ID tokens are refused all the same."""
    token = issuer.sign(issuer.claims(), typ="JWT")
    with pytest.raises(Unauthenticated, match=r"at\+jwt"):
        await verified(issuer, token)
    assert await verified(issuer, token, types=["JWT"])
    assert await verified(issuer, issuer.sign(issuer.claims(), typ=None), types=["at+jwt", "JWT"])
    assert await verified(issuer, issuer.sign(issuer.claims(), typ="application/at+jwt"))
    for more in ({"nonce": "n"}, {"at_hash": "h"}, {"typ": "ID"}, {"typ": "Refresh"}):
        with pytest.raises(Unauthenticated, match="ID token"):
            await verified(issuer, issuer.sign(issuer.claims(**more), typ="JWT"), types=["JWT"])


async def test_only_the_algorithms_of_the_file_are_taken(issuer):
    """Not those of the token."""
    with pytest.raises(Unauthenticated, match="algorithm"):
        await verified(issuer, issuer.token(), algorithms=["RS256"])


async def test_a_token_that_is_bound_to_a_certificate_needs_it(issuer):
    """RFC 8705 §3; bound to anything else, it is refused, for it is no bearer token."""
    digest = urlsafe_b64encode(hashlib.sha256(b"der").digest()).rstrip(b"=").decode()
    bound = issuer.token(cnf={"x5t#S256": digest})
    assert await verified(issuer, bound, b"der")
    assert await verified(issuer, issuer.token(), b"any client's connection may show one")
    for token, certificate in (
        (bound, None),
        (bound, b"other"),
        (issuer.token(cnf={"jkt": "x"}), None),
        (issuer.token(cnf={"jkt": "x"}), b"der"),
        (issuer.token(cnf={}), b"der"),
    ):
        with pytest.raises(Unauthenticated, match="bound"):
            await verified(issuer, token, certificate)


async def test_names_that_are_none_are_refused(issuer):
    """They would go into logs, records and the names of callers."""
    for subject in ("", "a b", "a\nb", "å", "x" * 256, 7, ["ada"]):
        with pytest.raises(Unauthenticated, match=r"no name|whose|not for this agent"):
            await verified(issuer, issuer.token(subject, client_id=None))


async def test_while_its_keys_can_not_be_had_a_token_is_neither_good_nor_bad(issuer):
    """The caller may come again; it does not get in."""
    issuer.down = True
    with pytest.raises(Unavailable, match="can't be checked now"):
        await verified(issuer, issuer.token())


async def test_a_token_that_was_verified_costs_no_second_look(issuer, monkeypatch):
    """Until it expires, or its key is withdrawn; of very many, only the last are remembered."""
    now = Clock(time.time())
    monkeypatch.setattr(tokens, "MOST_KEPT", 3)
    known = BearerTokens({"company": Issuer(url=issuer.url)}, AUDIENCE, issuer.http(), now)
    signed = [issuer.token(f"ada{n}", exp=int(now.now) + 100) for n in range(5)]
    looks = count(monkeypatch, tokens._Known, "_is_signed")
    for token in signed:
        assert await known.verify(token) == await known.verify(token)
    assert len(looks) == len(signed)
    assert len(known._verified) == 3
    now.now += 100 + SKEW_SECONDS
    with pytest.raises(Unauthenticated, match="expired"):
        await known.verify(signed[-1])


async def test_a_token_that_was_verified_ends_with_its_key(monkeypatch):
    """When its issuer is found to publish it no longer."""
    issuer = FakeIssuer()
    known = BearerTokens({"company": Issuer(url=issuer.url)}, AUDIENCE, issuer.http())
    token = issuer.token()
    assert await known.verify(token)
    monkeypatch.setattr(issuer_keys, "RETRY_SECONDS", 0)
    issuer.rotate(withdraw=True)
    assert await known.verify(issuer.token("bob"))
    with pytest.raises(Unauthenticated, match="does not publish"):
        await known.verify(token)


class Clock:
    """Stands, until a test moves it on."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def count(monkeypatch, owner, name):
    """The calls of a method, as they are made."""
    calls, real = [], getattr(owner, name)

    def counted(*args):
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(owner, name, counted)
    return calls


async def test_metadata_are_of_the_issuers_that_answer(issuer):
    """One that is down does not hide the others."""
    tokens = BearerTokens(
        {"company": Issuer(url=issuer.url), "gone": Issuer(url="https://gone.example.org")}, AUDIENCE, issuer.http()
    )
    assert list(await tokens.metadata()) == ["company"]
    await tokens.aclose()
