"""Attacks with access tokens, over all bindings: none succeeds, and each does where its guard is off."""

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest
from a2a.types import ListTasksRequest
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from joserfc import jwk
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry
from starlette.responses import JSONResponse

from sidecard import Agent, Task
from sidecard.callers import Claims, tokens
from sidecard.callers.issuer_keys import IssuerKeys
from sidecard.testing import AUDIENCE, FakeIssuer, MemoryStore, served
from tests.provider import PARTNER

CALLERS = {
    "ada": {"token": {"issuer": "company", "subject": "ada"}, "grants": {"shop": ["look"]}},
    "partner": {"token": {"issuer": "real", "client": PARTNER[0]}, "grants": {"shop": ["look"]}},
}
BINDINGS = 3
REFUSALS = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,  # of what is too long for gRPC itself
}
agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")


@agent.skill(scope="look", idempotent=True)
async def look(text: str, task: Task) -> str:
    """Look."""
    return text


@pytest.fixture(scope="module")
def company():
    return FakeIssuer(algorithm="RS256")


@pytest.fixture(scope="module")
def stranger():
    """An issuer that anybody may have."""
    return FakeIssuer("https://login.evil.example", algorithm="RS256")


class Network(httpx.AsyncBaseTransport):
    """Both issuers, and the real network."""

    def __init__(self, *issuers):
        self.real = httpx.AsyncHTTPTransport()
        self.fakes = {httpx.URL(issuer.url).host: issuer.http() for issuer in issuers}

    async def handle_async_request(self, request):
        fake = self.fakes.get(request.url.host)
        return await (fake._transport if fake else self.real).handle_async_request(request)


@pytest.fixture
async def shop(company, stranger, provider):
    issuers = {
        "company": {"url": company.url, "types": ["at+jwt", "JWT"]},
        "other": {"url": stranger.url},
        "real": {"url": provider.issuer},
    }
    network = httpx.AsyncClient(transport=Network(company, stranger))
    async with served(agent, MemoryStore(), CALLERS, issuers=issuers, issuers_http=network) as shop:
        yield shop


async def successes(shop, token, headers=None, path="/rest/tasks"):
    """Over how many bindings somebody who sends these headers, by default this token, sees a caller's tasks."""
    headers = headers or [("authorization", f"Bearer {token}")]
    call = {"jsonrpc": "2.0", "id": 1, "method": "ListTasks", "params": {}}
    async with shop.http() as http:
        rest = await http.get(path, headers=headers)
        rpc = await http.post(path.replace("/rest/tasks", "/a2a"), json=call, headers=headers)
    assert rest.status_code in {200, 400, 401, 403}, rest.text
    metadata = [("a2a-version", "1.0"), *headers]
    async with grpc.aio.insecure_channel(shop.grpc_target) as channel:
        try:
            await A2AServiceStub(channel).ListTasks(ListTasksRequest(), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            assert error.code() in REFUSALS  # noqa: PT017
            called = 0
        else:
            called = 1
    return (rest.status_code == 200) + ("result" in rpc.json()) + called


def encoded(part):
    return urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).rstrip(b"=").decode()


def allow(monkeypatch, *algorithms):
    """Take the algorithm for granted that a token says."""
    init = tokens._Known.__init__

    def naive(self, name, issuer, keys):
        init(self, name, issuer, keys)
        self._algorithms |= set(algorithms)
        self._registry = JWSRegistry(algorithms=[*self._algorithms], strict_check_header=False)

    monkeypatch.setattr(tokens._Known, "__init__", naive)


async def test_a_sound_token_comes_in_over_all_bindings(shop, company, provider):
    """So that the attacks fail for their own reason: one of ours, and one of a real provider."""
    assert await successes(shop, company.token()) == BINDINGS
    assert await successes(shop, provider.token(*PARTNER, resource=AUDIENCE, scope="look")) == BINDINGS


# -- signatures ------------------------------------------------------------------------------------------------------


async def unsigned(shop, company):
    header = {"typ": "at+jwt", "kid": company.keys[0].kid}
    sound = company.token()
    tokens = [f"{encoded(header | {'alg': alg})}.{encoded(company.claims())}." for alg in ("none", "None", "NONE", "")]
    tokens += [sound[: sound.rindex(".") + 1], sound[: sound.rindex(".")]]
    return sum([await successes(shop, token) for token in tokens])


async def test_a_token_without_a_signature_is_refused(shop, company):
    """Alg "none", in any spelling, or the signature cut off."""
    assert await unsigned(shop, company) == 0


@pytest.mark.filterwarnings("ignore:JWS algorithm")
async def test_without_the_list_of_algorithms_none_is_one(company, stranger, provider, monkeypatch):
    """The guard of the test above, off."""
    allow(monkeypatch, "none")
    async for shop in shop_of(company, stranger, provider):
        assert await unsigned(shop, company) == BINDINGS


async def shop_of(company, stranger, provider):
    """A shop that is made after its guard was taken off."""
    issuers = {"company": {"url": company.url}, "other": {"url": stranger.url}}
    network = httpx.AsyncClient(transport=Network(company, stranger))
    callers = {"ada": CALLERS["ada"]}
    async with served(agent, MemoryStore(), callers, issuers=issuers, issuers_http=network) as shop:
        yield shop


async def confused(shop, company):
    """HS256 with the public key, which anybody has, as the secret: as PEM, DER and JSON."""
    key = company.keys[0]
    forms = (key.as_pem(private=False), key.as_der(private=False), json.dumps(key.as_dict(private=False)).encode())
    count = 0
    for form in forms:
        signed = f"{encoded({'alg': 'HS256', 'typ': 'at+jwt', 'kid': key.kid})}.{encoded(company.claims())}"
        count += await successes(shop, f"{signed}.{encoded(hmac.new(form, signed.encode(), hashlib.sha256).digest())}")
    return count


async def test_a_public_key_is_no_secret(shop, company):
    """HS/RS confusion."""
    assert await confused(shop, company) == 0


async def test_with_any_algorithm_and_any_use_of_a_key_it_is(company, stranger, provider, monkeypatch):
    """The algorithm's list alone, or the key's own kind alone, would do: the attack needs both off."""
    allow(monkeypatch, "HS256")
    async for shop in shop_of(company, stranger, provider):
        assert await confused(shop, company) == 0

    def naive(self, signed, key):
        secret = key.as_pem(private=False)
        made = hmac.new(secret, b".".join(signed.segments[part] for part in ("header", "payload")), hashlib.sha256)
        return hmac.compare_digest(encoded(made.digest()).encode(), signed.segments["signature"])

    monkeypatch.setattr(tokens._Known, "_is_signed", naive)
    async for shop in shop_of(company, stranger, provider):
        assert await confused(shop, company) == BINDINGS


async def forged(shop, company, stranger, **header):
    """Another's key under our issuer's name: with its own key id, ours, and what the attack adds."""
    count = 0
    for kid in (stranger.keys[0].kid, company.keys[0].kid):
        token = company.sign(company.claims(), stranger.keys[0], **{"kid": kid} | header)
        count += await successes(shop, token)
    return count


async def test_one_issuers_key_signs_for_no_other(shop, company, stranger):
    """Though both are known here."""
    assert await forged(shop, company, stranger) == 0


async def test_if_all_keys_served_all_issuers_it_would(shop, company, stranger, monkeypatch):
    """The guard of the test above, off."""
    every = {key.kid: key for issuer in (company, stranger) for key in issuer.keys}
    monkeypatch.setattr(IssuerKeys, "find", lambda _, kid: found(every.get(kid)))
    assert await forged(shop, company, stranger) == BINDINGS


async def found(key):
    return key


def embedding(stranger):
    return {"jwk": stranger.keys[0].as_dict(private=False), "kid": "mine"}


async def test_a_key_in_the_token_means_nothing(shop, company, stranger):
    """Nor does a certificate in it."""
    assert await forged(shop, company, stranger, **embedding(stranger)) == 0
    assert await forged(shop, company, stranger, x5c=["MIIB"]) == 0


async def test_if_it_meant_anything_anybody_would_be_anybody(shop, company, stranger, monkeypatch):
    """The guard of the test above, off."""

    async def naive(self, signed, kid):
        key = jwk.import_key(signed.headers()["jwk"])
        assert self._is_signed(signed, key)

    monkeypatch.setattr(tokens._Known, "check_signature", naive)
    assert await forged(shop, company, stranger, **embedding(stranger)) == 2 * BINDINGS


@pytest.fixture
async def key_server(listen, stranger):
    """Where an attacker publishes keys; it counts who comes."""
    asked = []

    async def app(scope, receive, send):
        if scope["type"] == "http":
            asked.append(scope["path"])
            await JSONResponse(stranger.key_set)(scope, receive, send)

    return f"http://127.0.0.1:{await listen(app)}/keys", asked


async def test_addresses_in_a_token_are_not_fetched(shop, company, stranger, key_server):
    """Neither of keys (jku) nor of certificates (x5u)."""
    url, asked = key_server
    for name in ("jku", "x5u"):
        assert await forged(shop, company, stranger, **{name: url}) == 0
    assert asked == []


async def test_if_they_were_the_attacker_would_choose_the_key(shop, company, stranger, key_server, monkeypatch):
    """The guard of the test above, off."""
    url, asked = key_server

    async def naive(self, signed, kid):
        async with httpx.AsyncClient() as http:
            header = signed.headers()
            keys = (await http.get(header.get("jku") or header["x5u"])).json()["keys"]
        assert self._is_signed(signed, jwk.import_key(keys[0]))

    monkeypatch.setattr(tokens._Known, "check_signature", naive)
    for name in ("jku", "x5u"):
        asked.clear()
        assert await forged(shop, company, stranger, **{name: url}) == 2 * BINDINGS
        assert asked


def upload(folder, stranger):
    """A file of the attacker's, at a path that is known."""
    file = Path(folder, "upload")
    file.write_bytes(stranger.keys[0].as_pem(private=False))
    return file


async def named_keys(shop, company, stranger, tmp_path):
    """Key ids that mean more than an id to a careless look-up: paths, SQL, whatever is too long."""
    uploaded = upload(tmp_path, stranger)
    ids = [str(uploaded), "../" * 20 + str(uploaded).lstrip("/"), "' OR 1=1 --", "%00", "\x00", "", "x" * 8_000, "*"]
    claims = company.claims()
    return sum([await successes(shop, company.sign(claims, stranger.keys[0], kid=kid)) for kid in ids])


async def test_a_key_id_is_only_an_id(shop, company, stranger, tmp_path):
    """Looked up exactly, in what the issuer published."""
    assert await named_keys(shop, company, stranger, tmp_path) == 0


async def test_if_it_were_a_path_an_uploaded_file_would_be_a_key(shop, company, stranger, tmp_path, monkeypatch):
    """The guard of the test above, off."""

    async def naive(self, kid):
        return read(kid) if len(kid) < 200 else None

    monkeypatch.setattr(IssuerKeys, "find", naive)
    assert await named_keys(shop, company, stranger, tmp_path) >= BINDINGS


def read(path):
    """The key in a file; None without one."""
    return jwk.import_key(Path(path).read_text(), "RSA") if Path(path).is_file() else None


# -- claims ----------------------------------------------------------------------------------------------------------


def misdirected(company):
    now = int(time.time())
    return {
        "for nobody": company.token(aud=None),
        "for another agent": company.token(aud="http://127.0.0.1:8081"),
        "for a longer address": company.token(aud=f"{AUDIENCE}.evil.example"),
        "for a path": company.token(aud=f"{AUDIENCE}/"),
        "for none of a list": company.token(aud=["http://127.0.0.1:8081"]),
        "expired": company.token(exp=now - 3_600),
        "never expiring": company.token(exp=None),
        "expiring as text": company.token(exp="9999999999"),
        "not yet valid": company.token(nbf=now + 3_600),
        "issued in the future": company.token(iat=now + 3_600),
    }


async def test_a_token_for_others_or_for_another_time_is_refused(shop, company):
    """Signed by the right key it is all the same."""
    assert {name: await successes(shop, token) for name, token in misdirected(company).items()} == dict.fromkeys(
        misdirected(company), 0
    )


async def test_without_a_look_at_its_claims_it_is_not(shop, company, monkeypatch):
    """The guard of the test above, off: each of them is refused by nothing else."""
    monkeypatch.setattr(JWTClaimsRegistry, "validate", lambda self, claims: claims.update(aud=AUDIENCE, exp=2**40))
    assert {name: await successes(shop, token) for name, token in misdirected(company).items()} == dict.fromkeys(
        misdirected(company), BINDINGS
    )


async def of_strangers(shop, company, stranger):
    """An issuer that nobody listed, one that is listed and knows nobody here, names that look like ours."""
    unlisted = FakeIssuer("https://unlisted.example", algorithm="RS256")
    signed = [unlisted.token(), stranger.token(), company.token(iss=None)]
    signed += [company.sign(company.claims(iss=iss)) for iss in (f"{company.url}/", company.url.upper(), [company.url])]
    return sum([await successes(shop, token) for token in signed])


async def test_an_issuer_is_who_is_listed_to_the_letter(shop, company, stranger):
    """Its own keys make nobody's tokens ours."""
    assert await of_strangers(shop, company, stranger) == 0


async def test_if_any_known_issuer_were_the_first_it_would_not_be(shop, company, stranger, monkeypatch):
    """The guard of the test above, off: who signed it is not asked, so a stranger's ada is ours."""
    monkeypatch.setattr(tokens._Known, "token", lambda self, claims: tokens.Token("company", "ada", "x", {"look"}))
    assert await of_strangers(shop, company, stranger) == BINDINGS


async def id_tokens(shop, company):
    """For the client that asked for it; and for a client that is called like the agent, so that the audience fits."""
    claims = company.claims(aud="desktop", nonce="n", scope=None)
    fitting = [company.claims(nonce="n"), company.claims(at_hash="h"), company.claims(typ="ID")]
    signed = [company.sign(one, typ="JWT") for one in (claims, *fitting)]
    return sum([await successes(shop, token) for token in signed])


async def test_an_id_token_is_no_access_token(shop, company):
    """Even of an issuer whose access tokens call themselves JWT, too."""
    assert await id_tokens(shop, company) == 0


async def test_without_looking_for_its_marks_it_would_be(shop, company, monkeypatch):
    """The guard of the test above, off: where the audience fits."""
    monkeypatch.setattr(tokens, "_is_id_token", lambda _: False)
    assert await id_tokens(shop, company) == 3 * BINDINGS


async def test_a_bound_token_that_was_stolen_is_worth_nothing(shop, company, monkeypatch):
    """Its thief has not the key; with the guard off, nobody asks for that."""
    bound = [company.token(cnf={"x5t#S256": "x"}), company.token(cnf={"jkt": "x"})]
    assert [await successes(shop, token) for token in bound] == [0, 0]
    monkeypatch.setattr(tokens, "_check_binding", lambda *_: None)
    assert [await successes(shop, token) for token in bound] == [BINDINGS, BINDINGS]


async def test_a_client_that_calls_itself_ada_is_not_ada(shop, company, monkeypatch):
    """RFC 9068 §5: whoever may register clients at the issuer chooses such names. With the guard off, it is."""
    posing = company.token("ada", client_id="ada")
    assert await successes(shop, posing) == 0
    monkeypatch.setattr(tokens.Token, "is_clients", False)
    assert await successes(shop, posing) == BINDINGS


# -- how it is sent --------------------------------------------------------------------------------------------------


async def in_the_query(shop, company):
    """Where it would be written into logs, and sent on in Referer headers."""
    return await successes(shop, "", [("accept", "*/*")], f"/rest/tasks?access_token={company.token()}")


async def test_a_token_in_the_address_is_none(shop, company):
    """RFC 9700 §4.3.2."""
    assert await in_the_query(shop, company) == 0


async def test_if_the_address_was_looked_at_it_would_be(shop, company, monkeypatch):
    """The guard of the test above, off: a proxy that means well."""
    app = shop.app

    async def helpful(scope, receive, send):
        token = scope["query_string"].decode().partition("access_token=")[2]
        more = (b"authorization", f"Bearer {token}".encode())
        await app({**scope, "headers": [*scope["headers"], more]}, receive, send)

    shop.app = helpful
    assert await in_the_query(shop, company) > 0


async def test_two_authorization_headers_are_none(shop, company, monkeypatch):
    """Which of them a proxy looked at, nobody knows here. With the guard off, the last one counts."""
    twice = [("authorization", "Bearer x"), ("authorization", f"Bearer {company.token()}")]
    assert await successes(shop, "", twice) == await successes(shop, "", twice[::-1]) == 0
    monkeypatch.setattr(Claims, "of", classmethod(lambda cls, headers, certificate=None: cls(dict(headers))))
    assert await successes(shop, "", twice) == BINDINGS


async def test_a_token_of_any_size_is_not_read(shop, company, monkeypatch):
    """Signed or not: what is larger than a token needs to be costs a caller its place, and us nothing."""
    large = company.token(groups=["x" * 100] * 125)
    assert len(large) > tokens.MAX_BYTES
    assert await successes(shop, large) == 0
    monkeypatch.setattr(tokens, "MAX_BYTES", 100_000)
    assert await successes(shop, large) >= 2  # gRPC has a limit of its own, which it applies at random from half of it


async def test_what_is_no_token_is_refused_in_words(shop, company):
    """Never by an unexpected error, whatever it is."""
    sound = company.token()
    deep = f"{encoded({'alg': 'RS256'})}.{encoded(b'[' * 5_000)}.x"
    odd = ["", ".", "..", "...", "a.b.c", f"{sound}.", f"{sound}.a.b", sound[1:], deep]
    odd += [f"{encoded([])}.{encoded([])}.x", f"{encoded({})}.{encoded({'iss': [], 'aud': {}})}.x"]
    odd += [f"{encoded({'alg': ['RS256'], 'kid': {}})}.{encoded(company.claims())}.eA", "Bearer " + sound, "x" * 10_000]
    odd += [company.sign(company.claims(iat=when)) for when in ("now", True, [], {})]
    odd += [f"{encoded({'alg': 'RS256', 'b64': False, 'crit': ['b64'], 'kid': 'k'})}.{{}}.eA", sound.replace(".", ",")]
    odd += [company.sign(company.claims(), typ=typ) for typ in ("logout+jwt", "at+jwt2", "")]
    assert [await successes(shop, token) for token in odd] == [0] * len(odd)
