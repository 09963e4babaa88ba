"""Which publishers are trusted, by the keys pinned for them, and whether a card is theirs. A2A 1.0 §8.4.3.

A card is believed only through a key that was pinned here beforehand: what a signature's header offers (`jku`, `jwk`,
`x5u`, `x5c`) is never followed, so a forger brings no key and verifying makes no request. What is malformed is refused.
"""

import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from a2a.types import AgentCard, AgentCardSignature
from google.protobuf.json_format import ParseDict
from jwcrypto.common import JWException, base64url_decode
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from sidecard.errors import CardRejected, ConfigurationError
from sidecard.signature import ALGORITHMS, NOT_JSON, digest, payloads

MAX_SIGNATURES = 16
"""More than any rotation needs; each costs the verifier an elliptic-curve operation."""

CLOCK_SKEW_SECONDS = 300
"""How far a signer's clock may be ahead of ours."""

MAX_SHOWN = 80
LAST_MOMENT = 253_402_300_800
"""Seconds from 1970 to the year 10000, which no `datetime` reaches. (NaN is below no number.)"""
_KEY_MEMBERS = frozenset({"kty", "crv", "x", "y"})


@dataclass(frozen=True)
class PinnedKey:
    """A publisher's public key. `agents` names the cards it may sign; None means all of the publisher's."""

    kid: str
    algorithm: str
    jwk: JWK
    agents: frozenset[str] | None


@dataclass(frozen=True)
class VerifiedCard:
    """A card that is believed. `card` is just what the signature covers, `digest` its `signature.digest`.

    `kid` names the key that proves its publisher, and `signed_at` is when that signature was made, where it says so.
    For a card that is believed by its digest (`Pinned`) they are "" and None.
    """

    card: AgentCard
    publisher: str
    kid: str
    digest: str
    signed_at: datetime | None = None


Verifier = Callable[[AgentCard], VerifiedCard]
"""Decides whether a card is believed. Raises CardRejected."""


class TrustStore:
    """The pinned keys of each publisher, by key id. Made with `parse`."""

    def __init__(self, publishers: Mapping[str, Mapping[str, PinnedKey]], app_id: str = "") -> None:
        self._publishers, self._app_id = publishers, app_id

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read `{"publishers": {"<organization>": {"keys": [<public JWK with kid, alg and optionally agents>]}}}`.

        Raises:
            ConfigurationError: it says something else, or pins a key that no card may be verified with.
        """
        try:
            publishers = json.loads(text)["publishers"]
            parsed = {name: [_pinned(jwk, name) for jwk in entry["keys"]] for name, entry in publishers.items()}
        except NOT_JSON as error:
            raise ConfigurationError(
                f"The trust file can't be read ({type(error).__name__}: {error}); it must be "
                '{"publishers": {"<organization>": {"keys": [<public JWK>, …]}}}. Mend it or run `sidecard bootstrap`.'
            ) from error
        for name, keys in parsed.items():
            if len({key.kid for key in keys}) < len(keys):
                raise ConfigurationError(f"The trust file pins two keys of '{name}' under one kid; rename one.")
        return cls({name: {key.kid: key for key in keys} for name, keys in parsed.items()})

    def become(self, other: "TrustStore") -> None:
        """Take the other's keys in place of the own ones, for all who hold this one."""
        self._publishers = other._publishers

    def of_app(self, app_id: str) -> "TrustStore":
        """The keys of the one publisher of this app of the mesh: a key of it names the app among its agents.

        App-ids are the estate's own to give: a key for all agents of a partner speaks for none, or its card could be an
        app's of ours. Where keys of two publishers name the app, nobody's are believed.
        """
        naming = {
            publisher: keys
            for publisher, keys in self._publishers.items()
            if any(key.agents is not None and app_id in key.agents for key in keys.values())
        }
        return TrustStore(naming if len(naming) == 1 else {}, app_id)

    def knows(self, publisher: str) -> bool:
        """Whether keys are pinned for a publisher, which must then have signed its cards."""
        return bool(self._publishers.get(publisher))

    def keys_of(self, publisher: str) -> Mapping[str, PinnedKey]:
        """The pinned keys of a publisher, by key id.

        Raises:
            CardRejected: the publisher is not known.
        """
        keys = self._publishers.get(publisher)
        if not keys and self._app_id:
            raise CardRejected(
                f"Publisher {_short(publisher)} has no say about the app '{self._app_id}': only one has, of whom a key "
                f"is pinned that has '{self._app_id}' among its agents. See `sidecard trust`."
            )
        if not keys:
            raise CardRejected(
                f"Publisher {_short(publisher)} is unknown: no key is pinned for it. "
                "If you trust it, add its public key to the trust file under publishers: `sidecard trust pin`."
            )
        return keys


@dataclass(frozen=True)
class Pinned:
    """One card that is believed by its digest: nobody needs to have signed it, and nothing in it may change.

    `digest` is its `signature.digest`; `publisher` is who published it, in the words of whoever pinned it.
    """

    digest: str
    publisher: str

    def verify(self, card: AgentCard) -> VerifiedCard:
        """The card, if it is this one. Raises CardRejected: it is another now, or has no canonical form."""
        subject = f"The card of {_short(card.name)}"
        try:
            found = digest(card)
        except NOT_JSON as error:
            raise CardRejected(f"{subject} has no canonical JSON ({error}): ask the publisher to mend it.") from error
        if not hmac.compare_digest(found, self.digest):
            raise CardRejected(
                f"{subject} is another one than was pinned: its digest is {found}, not {self.digest}. Ask its "
                "publisher what has changed; `sidecard enrol URL --pin` takes the new one."
            )
        believed = AgentCard()
        believed.CopyFrom(card)
        del believed.signatures[:]
        return VerifiedCard(believed, self.publisher, "", found)


def verify(card: AgentCard, trust: TrustStore, now: float | None = None) -> VerifiedCard:
    """The card, if any one of its signatures is by a key pinned for its publisher (`provider.organization`).

    A signature that says until when it holds (`exp`), or when it was made (`iat`), is held to that; `now` is UTC in
    seconds, the clock's by default.

    Raises:
        CardRejected: with the reason and what to do. Nothing of the card may be used then.
    """
    name, publisher = card.name, card.provider.organization
    if not name or not publisher:
        raise CardRejected("A card names no agent or no publisher: its owner must set name and provider.organization.")
    subject = f"The card of {_short(name)} by {_short(publisher)}"
    if not card.signatures:
        raise CardRejected(f"{subject} is not signed: ask the publisher for a signed one.")
    keys = trust.keys_of(publisher)
    if len(card.signatures) > MAX_SIGNATURES:
        raise CardRejected(f"{subject} has more than {MAX_SIGNATURES} signatures: ask the publisher to prune them.")
    try:
        forms = payloads(card)
    except NOT_JSON as error:
        raise CardRejected(f"{subject} has no canonical JSON ({error}): ask the publisher to mend it.") from error
    reasons: list[str] = []
    for form in forms:  # the fullest form first: it says most
        for signature in card.signatures:
            try:
                kid, signed_at = _check(signature, form, keys, name, time.time() if now is None else now)
            except CardRejected as rejection:
                reasons.append(str(rejection))
            else:
                believed = ParseDict(json.loads(form), AgentCard())
                return VerifiedCard(believed, publisher, kid, digest(believed), signed_at)
    raise CardRejected(f"{subject} is not believed. {' '.join(dict.fromkeys(reasons))}")


def _check(
    signature: AgentCardSignature, payload: bytes, keys: Mapping[str, PinnedKey], name: str, now: float
) -> tuple[str, datetime | None]:
    """The id of the pinned key that made this signature over the payload, and when it did. Raises CardRejected."""
    header = _protected_header(signature)
    kid = header.get("kid")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        raise CardRejected(
            f"Key {_short(kid)} is not pinned: pin it if the publisher confirms it, else report a forgery."
        )
    # The key decides the algorithm; the header may only agree. Else a public key could be used as an HMAC secret.
    if header.get("alg") != key.algorithm:
        claimed = _short(header.get("alg"))
        raise CardRejected(
            f"Key '{key.kid}' is for {key.algorithm} only, not {claimed}: the publisher must sign again."
        )
    if key.agents is not None and name not in key.agents:
        allowed = ", ".join(sorted(key.agents)) or "nobody"
        raise CardRejected(
            f"Key '{key.kid}' may sign only for {allowed}: add {_short(name)} to its agents if that is right."
        )
    token = JWS()
    token.allowed_algs = list(ALGORITHMS)
    try:
        token.deserialize(json.dumps({"protected": signature.protected, "signature": signature.signature}))
        token.verify(key.jwk, alg=key.algorithm, detached_payload=payload)
    except (JWException, *NOT_JSON):
        raise CardRejected(
            f"It was altered, or not signed with key '{key.kid}': fetch it again, and tell the publisher if this stays."
        ) from None
    return key.kid, _signed_at(header, key.kid, now)


def _signed_at(header: Mapping[str, Any], kid: str, now: float) -> datetime | None:
    """When a signature was made, if it says so. Raises CardRejected outside of the time for which it holds."""
    issued, expires = (_seconds(header, name, kid) for name in ("iat", "exp"))
    if expires is not None and expires <= now:
        raise CardRejected(
            f"Its signature by key '{kid}' has expired {_iso(expires)}: see that the agent runs, which signs anew by "
            "itself, and that both clocks are right."
        )
    if issued is not None and issued > now + CLOCK_SKEW_SECONDS:
        raise CardRejected(f"Its signature by key '{kid}' is from the future, {_iso(issued)}: see to both clocks.")
    return None if issued is None else datetime.fromtimestamp(issued, UTC)


def _seconds(header: Mapping[str, Any], name: str, kid: str) -> float | None:
    value = header.get(name)
    if value is None and name not in header:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LAST_MOMENT:
        raise CardRejected(f"Its signature by key '{kid}' has {name} {_short(value)}, which is no time: sign it again.")
    return float(value)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _protected_header(signature: AgentCardSignature) -> dict[str, Any]:
    try:
        header = json.loads(base64url_decode(signature.protected), object_pairs_hook=_unique_members)
        unprotected = dict(signature.header.items())
    except NOT_JSON:
        header, unprotected = None, {}
    if not isinstance(header, dict):
        raise CardRejected("A signature's protected header is not JSON in base64url; the publisher must sign again.")
    # RFC 7515 §4.1.11: an extension that must be understood, and isn't, makes the signature invalid.
    if {"crit", "b64"} & (header.keys() | unprotected.keys()):
        raise CardRejected("A signature demands JWS extensions (crit, b64); the publisher must sign without them.")
    return header


def _short(claim: object) -> str:
    """What a card claims, fit for one line of a message: it may be of any length and hold anything."""
    text = repr(claim)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…'"


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member is given twice")
    return members


def _pinned(jwk: dict[str, Any], publisher: str) -> PinnedKey:
    kid, algorithm, agents = jwk.get("kid"), jwk.get("alg"), jwk.get("agents")
    problem = ""
    if not isinstance(kid, str) or not kid:
        problem = "has no kid"
    elif not isinstance(algorithm, str) or ALGORITHMS.get(algorithm) != (jwk.get("kty"), jwk.get("crv")):
        problem = f"must be for one of {', '.join(ALGORITHMS)}, with the fitting kty and crv"
    elif "d" in jwk:
        problem = "is private: pin the public key, and replace the private one"
    elif agents is not None and not (isinstance(agents, list) and all(isinstance(agent, str) for agent in agents)):
        problem = "has agents that are not a list of names"
    try:
        key = None if problem else JWK(**{member: jwk[member] for member in _KEY_MEMBERS & jwk.keys()})
        if key:
            key.get_op_key("verify")  # only this looks at the numbers
    except (JWException, *NOT_JSON):
        key, problem = None, "is not a valid public key"
    if key is None:
        raise ConfigurationError(f"The trust file's key {kid!r} of '{publisher}' {problem}.")
    return PinnedKey(str(kid), str(algorithm), key, None if agents is None else frozenset(agents))
