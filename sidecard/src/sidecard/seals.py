"""Seals of an audit: an agent's signature over how far a trail goes, and over the digest that stands for all of it.

Whoever can write the store can make a chain of other records; they can't sign it. A seal is a JWT of a kind of its own,
by the key that signs the agent's card, and verified by the keys of the trust file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jwcrypto.jwk import JWK

from sidecard.tasks.act import now
from sidecard.trust import TrustStore
from sidecard.vouching import NotBelieved, believe_token, sign_token

SEAL = "sidecard-audit+jwt"
"""Its media type (`typ`, RFC 8725 §3.11): no other statement of an agent is taken for a seal."""


class Seal(NamedTuple):
    """What is signed: record `number` of a slot's trail has this digest, and all from record `since` on is the agent's.

    `at` is UTC in milliseconds.
    """

    number: int
    digest: bytes
    since: int
    at: int


@dataclass(frozen=True)
class Seals:
    """Seals of one agent, by the keys that are pinned for it alone. Without a `key` they are only read."""

    agent: str
    publisher: str
    trust: TrustStore
    key: Callable[[], JWK] | None = None

    def make(self, slot: int, number: int, digest: bytes, since: int) -> str:
        """A seal, signed; "" where there is no key."""
        if self.key is None:
            return ""
        claims = {
            "iss": self.agent,
            "slot": slot,
            "number": number,
            "digest": digest.hex(),
            "since": since,
            "at": now(),
        }
        return sign_token(SEAL, claims, self.key(), self.publisher)

    def read(self, token: str, slot: int) -> Seal:
        """What a seal of this agent says on this slot. Raises NotBelieved."""
        claims = believe_token(token, SEAL, self.trust, self.publisher)
        if (claims.get("iss"), claims.get("slot")) != (self.agent, slot):
            raise NotBelieved("the seal is of another trail")
        return Seal(int(claims["number"]), bytes.fromhex(claims["digest"]), int(claims["since"]), int(claims["at"]))
