"""The keys of an issuer: fetched when needed, kept for a while, fetched again as they rotate, and never too often."""

import asyncio

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from sidecard.callers.issuer_keys import FRESH_SECONDS, RETRY_SECONDS, STALE_SECONDS, IssuerKeys, usable
from sidecard.errors import IssuerUnavailable
from sidecard.testing import FakeIssuer


@pytest.fixture
def issuer():
    return FakeIssuer()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def keys(issuer, clock):
    keys = IssuerKeys(issuer.url, issuer.http(), clock)
    yield keys
    await keys.aclose()


class Clock:
    """Stands, until a test moves it on."""

    now = 1_000.0

    def __call__(self):
        return self.now


def fetches(issuer):
    return issuer.asked.count(f"{issuer.url}/keys")


async def settled(keys):
    if keys._fetching:
        await asyncio.wait([keys._fetching])


async def test_keys_are_fetched_once_and_kept(issuer, keys):
    """Nothing before the first token; then no request is added to a call."""
    assert issuer.asked == []
    for _ in range(10):
        assert (await keys.find(issuer.keys[0].kid)).kid == issuer.keys[0].kid
    assert fetches(issuer) == 1


async def test_a_new_key_is_found_at_once(issuer, keys, clock):
    """An id not seen before has the keys fetched; the old key goes on."""
    old = issuer.keys[0].kid
    await keys.find(old)
    issuer.rotate()
    clock.now += RETRY_SECONDS
    assert await keys.find(issuer.keys[0].kid)
    assert await keys.find(old)
    assert fetches(issuer) == 2


async def test_unknown_ids_cause_one_fetch_in_a_while(issuer, keys, clock):
    """However many there are, one after the other or at once: they are anybody's to make up."""
    await asyncio.gather(*(keys.find(f"made up {n}") for n in range(100)))
    for n in range(100):
        assert await keys.find(f"made up too {n}") is None
    assert fetches(issuer) == 1
    clock.now += RETRY_SECONDS
    await asyncio.gather(*(keys.find(f"made up {n}") for n in range(100)))
    assert fetches(issuer) == 2


async def test_a_withdrawn_key_stops_working(issuer, keys, clock):
    """When the keys are no longer fresh: the call that notices has them fetched beside, the next is refused."""
    old = issuer.keys[0].kid
    await keys.find(old)
    issuer.rotate(withdraw=True)
    clock.now += FRESH_SECONDS + 1
    await keys.find(old)
    await settled(keys)
    assert await keys.find(old) is None


async def test_known_keys_outlive_an_outage_for_a_while(issuer, keys, clock):
    """Then tokens are refused: a key may have been withdrawn meanwhile. When the issuer is back, they work again."""
    kid = issuer.keys[0].kid
    await keys.find(kid)
    issuer.down = True
    clock.now += STALE_SECONDS - 1
    assert await keys.find(kid)
    await settled(keys)
    clock.now += 2 + RETRY_SECONDS
    with pytest.raises(IssuerUnavailable, match="can't be fetched"):
        await keys.find(kid)
    issuer.down = False
    clock.now += RETRY_SECONDS
    assert await keys.find(kid)


async def test_an_issuer_that_is_down_is_not_asked_by_every_call(issuer, keys):
    """The first call waits for it; the others are refused at once."""
    issuer.down = True
    for _ in range(10):
        with pytest.raises(IssuerUnavailable):
            await keys.find("a")
    assert len(issuer.asked) == 2  # its two well-known places


async def test_a_caller_that_goes_away_stops_nobody_elses_fetch(issuer, keys):
    """The fetch is all callers'."""
    first = asyncio.create_task(keys.find(issuer.keys[0].kid))
    await asyncio.sleep(0)
    first.cancel()
    assert await keys.find(issuer.keys[0].kid)


async def test_keys_that_move_are_found_again(issuer, keys, clock):
    """After a fetch that failed, the issuer is asked anew where they are."""
    await keys.find(issuer.keys[0].kid)
    issuer.down = True
    clock.now += RETRY_SECONDS
    await keys.find("new")
    issuer.down = False
    clock.now += RETRY_SECONDS
    await keys.find("new")
    assert issuer.asked[-2:] == [f"{issuer.url}/.well-known/openid-configuration", f"{issuer.url}/keys"]


async def test_an_unexpected_answer_is_survived(issuer, keys, clock):
    """It is as if there were no keys."""
    issuer.metadata["jwks_uri"] = f"{issuer.url}/nothing"
    with pytest.raises(IssuerUnavailable):
        await keys.find("a")


def public(key, **more):
    return key.as_dict(private=False) | more


@pytest.mark.filterwarnings("ignore:Key size")
def test_only_public_keys_for_signatures_serve():
    """Neither secrets, nor private keys by mistake, nor short ones, nor two of one id, nor for another use."""
    good = ECKey.generate_key("P-256", auto_kid=True)
    twice = ECKey.generate_key("P-256", auto_kid=True)
    key_set = {
        "keys": [
            public(good),
            public(twice),
            public(twice),
            public(ECKey.generate_key("P-256"), kid="enc", use="enc"),
            public(ECKey.generate_key("P-256"), kid="ops", key_ops=["deriveKey"]),
            ECKey.generate_key("P-256", auto_kid=True).as_dict(private=True),
            OctKey.generate_key(256, {"kid": "secret"}).as_dict(private=True),
            public(RSAKey.generate_key(1024), kid="short"),
            public(ECKey.generate_key("P-256")) | {"kid": 7},
            {key: value for key, value in public(ECKey.generate_key("P-256")).items() if key != "kid"},
            {"kty": "AKP", "kid": "of the future"},
            {"kty": "EC", "kid": "broken", "crv": "P-256", "x": "!", "y": "!"},
            {"kty": ["EC"], "kid": "odd"},
            "nonsense",
        ]
    }
    assert list(usable(key_set)) == [good.kid]
    assert usable({}) == usable({"keys": {}}) == {}
