"""An agent's own card: signed by all its keys, anew before it expires, and by new keys as soon as they are there."""

import asyncio
import json

import pytest
from a2a.types import AgentCard
from google.protobuf.json_format import ParseDict
from jwcrypto.jwk import JWK

from sidecard import Agent, own_card
from sidecard.agent_card import describe
from sidecard.callers import Caller
from sidecard.errors import CardRejected, ConfigurationError, StoreUnavailable
from sidecard.extended_card import ExtendedCards
from sidecard.own_card import RENEW_SECONDS, OwnCard, keep_current
from sidecard.settings import Settings
from sidecard.signature import LIFETIME_SECONDS
from sidecard.trust import TrustStore, verify

OLD, NEW = (JWK.generate(kty="EC", crv="P-256", kid=kid, alg="ES256") for kid in ("shop-old", "shop-new"))
CARD = ParseDict(
    {"name": "shop", "version": "1.0.0", "provider": {"organization": "Tests", "url": "http://x"}}, AgentCard()
)


def secret(*keys: JWK) -> str:
    """What the secret signing-key holds: a JWK Set, while keys rotate."""
    private = [json.loads(key.export_private()) for key in keys]
    return json.dumps({"keys": private} if len(keys) > 1 else private[0])


def publishers(*keys: JWK) -> str:
    return json.dumps({"publishers": {"Tests": {"keys": [key.export_public(as_dict=True) for key in keys]}}})


def trust(*keys: JWK) -> TrustStore:
    return TrustStore.parse(publishers(*keys))


class Clock:
    """Seconds, as told."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def test_it_has_no_card_before_it_has_a_key():
    """Then the card's route answers 503."""
    assert OwnCard(CARD).signed is None


def test_a_rotation_overlaps():
    """While two keys are in the secret, who pins the old one and who pins the new one both believe the card."""
    clock = Clock()
    own = OwnCard(CARD, clock=clock)
    own.sign(secret(OLD))
    own.sign(secret(NEW, OLD))
    assert own.key()["kid"] == "shop-old"
    shown = own.signed.card
    assert verify(shown, trust(OLD), clock.now).kid == "shop-old"
    assert verify(shown, trust(NEW), clock.now).kid == "shop-new"
    own.sign(secret(NEW))
    assert own.key()["kid"] == "shop-new"
    with pytest.raises(CardRejected, match="is not pinned"):
        verify(own.signed.card, trust(OLD), clock.now)
    assert verify(own.signed.card, trust(NEW), clock.now).kid == "shop-new"


def test_it_is_signed_anew_long_before_it_expires():
    """So that an agent that runs is never refused, and one that is not renewed is believed for hours still."""
    clock = Clock()
    own = OwnCard(CARD, clock=clock)
    own.sign(secret(OLD))
    first = own.signed
    clock.now += RENEW_SECONDS - 1
    own.sign(secret(OLD))
    assert own.signed is first
    clock.now += 1
    own.sign(secret(OLD))
    assert own.signed.etag != first.etag
    clock.now += LIFETIME_SECONDS - 1
    assert verify(own.signed.card, trust(OLD), clock.now).signed_at is not None
    with pytest.raises(CardRejected, match="expired"):
        verify(first.card, trust(OLD), clock.now)


async def test_it_follows_the_secret_store(monkeypatch):
    """New keys, and newly trusted ones, are used without a restart; what can't be read or is no key changes nothing."""
    monkeypatch.setattr(own_card, "LOOK_SECONDS", 0)
    held = {("shop", "signing-key"): secret(OLD), ("trust", "publishers"): publishers(OLD)}
    failure: list[Exception] = []
    read_at_all = asyncio.Event()

    async def read(name: str, key: str) -> str:
        await asyncio.sleep(0)
        read_at_all.set()
        if failure:
            raise failure[0]
        return held[name, key]

    async def looked() -> None:
        for _ in range(3):
            read_at_all.clear()
            await read_at_all.wait()

    own, known = OwnCard(CARD), trust(OLD)
    own.sign(held["shop", "signing-key"])
    following = asyncio.create_task(keep_current(own, known, "shop", read))
    held["shop", "signing-key"], held["trust", "publishers"] = secret(NEW), publishers(NEW)
    await looked()
    assert verify(own.signed.card, known).kid == "shop-new"
    shown = own.signed
    failure[:] = [
        StoreUnavailable("down"),
    ]
    await looked()
    failure[:] = [ConfigurationError("gone")]
    await looked()
    failure.clear()
    held["shop", "signing-key"], held["trust", "publishers"] = "no key", "no keys"
    await looked()
    assert own.signed is shown
    assert verify(own.signed.card, known).kid == "shop-new"
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


@pytest.mark.parametrize(
    "keys", [(), (OLD, OLD), tuple(JWK.generate(kty="EC", crv="P-256", kid=f"{n}", alg="ES256") for n in range(5))]
)
def test_no_keys_two_of_one_name_and_too_many_are_refused(keys):
    """A card bears at most four keys' signatures, each by another key."""
    content = json.dumps({"keys": [json.loads(key.export_private()) for key in keys]})
    with pytest.raises(ConfigurationError, match="sidecard bootstrap"):
        OwnCard(CARD).sign(content)


def test_cards_for_callers_are_signed_as_the_public_one_and_anew_when_that_is():
    """By all its keys, as long as those are its keys: a card kept from before a rotation is not given out after it."""
    agent = Agent("shop", "1", "Sells.", "Tests")
    own = OwnCard(describe(agent, Settings(app_id="shop")))
    own.sign(secret(OLD))
    cards = ExtendedCards(own.present, agent, own.as_signed)
    ada = Caller("ada", "ada", frozenset({"look"}))
    before = cards.of(ada)
    assert verify(before, trust(OLD)).card.name == "shop"
    assert cards.of(ada) is before
    own.sign(secret(OLD, NEW))
    assert verify(cards.of(ada), trust(NEW)).card.name == "shop"
