"""An agent's own card, signed: anew before its signatures expire, and when its keys change."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from a2a.types import AgentCard
from jwcrypto.jwk import JWK

from sidecard.card import SignedCard
from sidecard.errors import ConfigurationError, StoreUnavailable
from sidecard.signature import LIFETIME_SECONDS, sign, signing_keys
from sidecard.trust import TrustStore

log = logging.getLogger("sidecard")

LOOK_SECONDS = 60.0
"""How often an agent looks whether its keys, or those it trusts, have changed in the secret store."""
RENEW_SECONDS = LIFETIME_SECONDS / 4
"""The age at which a signature is made anew: a card that cannot be renewed is believed for three times that still."""

ReadSecret = Callable[[str, str], Awaitable[str]]
"""One value of a secret, by the secret's name and its key. Raises StoreUnavailable, ConfigurationError."""


class OwnCard:
    """The public `card` of an agent. `signed` is what it shows; None until it has a key."""

    def __init__(self, card: AgentCard, *, clock: Callable[[], float] = time.time) -> None:
        self.card = card
        self.signed: SignedCard | None = None
        self._clock = clock
        self._secret, self._at = "", 0.0
        self._keys: list[JWK] = []

    def key(self) -> JWK:
        """The key that the agent signs with; while keys rotate the oldest one, which all others know by now.

        Raises RuntimeError before there is one.
        """
        if not self._keys:
            raise RuntimeError("sign the card first")
        return self._keys[-1]

    def show(self, card: AgentCard) -> None:
        """Show another card from now on, signed with the same keys."""
        self.card = card
        if secret := self._secret:
            self._secret = ""
            self.sign(secret)

    def present(self) -> AgentCard:
        """The card that it shows now, another object whenever that or its signatures have changed."""
        return self.signed.card if self.signed else self.card

    def as_signed(self, card: AgentCard) -> AgentCard:
        """Another card of the same agent, signed as its public one is."""
        return sign(card, *signing_keys(self._secret), now=self._clock())

    def sign(self, secret: str) -> None:
        """Sign with the keys in the secret signing-key, unless that was done with the same ones a while ago at most.

        Raises ConfigurationError.
        """
        now = self._clock()
        if secret == self._secret and 0 <= now - self._at < RENEW_SECONDS:
            return
        keys = signing_keys(secret)
        self.signed = SignedCard(sign(self.card, *keys, now=now))
        self._secret, self._at, self._keys = secret, now, keys


async def keep_current(card: OwnCard, trust: TrustStore, agent: str, read: ReadSecret) -> None:
    """Follow what the secret store says of an agent's keys and of those that it trusts. Runs until it is cancelled.

    What can't be read, or is no key, changes nothing: the agent goes on with what it has, and says so.
    """
    told = ""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            card.sign(await read(agent, "signing-key"))
            trust.become(TrustStore.parse(await read("trust", "publishers")))
            told = ""
        except (StoreUnavailable, ConfigurationError) as error:
            if str(error) != told:
                log.warning("%s goes on with the keys that it has: %s", agent, error)
                told = str(error)
