"""Bearer tokens: JWTs of the issuers in agents/callers.yaml, made out to this agent (RFC 9068, RFC 8725)."""

import asyncio
import hashlib
import re
import time
from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from json import loads
from typing import Any

import httpx
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jws import CompactSignature, JWSRegistry, extract_compact, validate_compact
from joserfc.jwt import JWTClaimsRegistry

from sidecard.callers.discovery import Metadata
from sidecard.callers.file import Issuer
from sidecard.callers.issuer_keys import IssuerKeys, PublicKey
from sidecard.errors import IssuerUnavailable
from sidecard.refusals import Unauthenticated, Unavailable

MAX_BYTES = 16_384
"""Of a token: some issuers list every group of a person in it."""
MOST_KEPT = 1_024
"""Verified tokens that are remembered."""
SKEW_SECONDS = 30
"""By which an issuer's clock and ours may differ."""
_KID = re.compile(r"[\x20-\x7e]{1,256}")
_NAME = re.compile(r"[\x21-\x7e]{1,255}")
_OF_ID_TOKENS = frozenset({"nonce", "at_hash", "c_hash", "s_hash"})


@dataclass(frozen=True, slots=True)
class Token:
    """What a verified token says. `issuer` is our name of it, `actor` who acts for the subject (RFC 8693), or "".

    `client` is the program that it was issued to. `is_clients` when that asked for itself, not for a person. `expires`
    is in seconds since 1970.
    """

    issuer: str
    subject: str
    client: str
    scopes: frozenset[str]
    actor: str = ""
    id: str = ""
    """Its `jti`, by which it alone can be revoked."""
    expires: float = 0.0

    @property
    def is_clients(self) -> bool:
        """RFC 9068 §2.2: the subject of a client's own token is the client."""
        return bool(self.client) and self.subject in {"", self.client}


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that was verified: so that the next call with it costs no signature.

    Who is revoked is asked at every call all the same (see `Callers.identify`). A key that its issuer has withdrawn
    counts for FRESH_SECONDS after it was last fetched, and until the first call after that has had the keys fetched
    again: about a minute where calls come; while the issuer can't be reached, STALE_SECONDS at most, an hour.
    """

    token: Token
    expires: float
    kid: str
    key: PublicKey
    keys: IssuerKeys

    async def still_holds(self, now: float) -> bool:
        """Not once it has expired, nor when its key was withdrawn or the keys were fetched again, nor in doubt."""
        if self.expires <= now - SKEW_SECONDS:
            return False
        try:
            return await self.keys.find(self.kid) is self.key
        except IssuerUnavailable:
            return False


class BearerTokens:
    """Verifies tokens of the issuers that are known, for one audience."""

    def __init__(
        self,
        issuers: Mapping[str, Issuer],
        audience: str,
        http: httpx.AsyncClient | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives the time in seconds since 1970. Nothing is fetched before a token, or `metadata`, needs it."""
        self._audience, self._clock = audience, clock
        self._http = http or httpx.AsyncClient()
        self._known = {
            issuer.url: _Known(name, issuer, IssuerKeys(issuer.url, self._http)) for name, issuer in issuers.items()
        }
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    async def verify(self, token: str, certificate: bytes | None = None) -> Token:
        """What a token says, all of it checked; `certificate` (DER) is the caller's own, which a token may be bound to.

        Raises:
            Unauthenticated: the token is not believed; the words say why.
            Unavailable: its issuer's keys can't be had.
        """
        if len(token) > MAX_BYTES:
            raise Unauthenticated(f"The token is longer than {MAX_BYTES} characters")
        digest = hashlib.sha256(token.encode()).digest()
        before = self._verified.get(digest)
        if before is not None and await before.still_holds(self._clock()):
            return before.token
        signed, header, claims = _read(token)
        known = self._known.get(claims["iss"]) if isinstance(claims.get("iss"), str) else None
        if known is None:
            raise Unauthenticated("The token is of an issuer that is not known here")
        known.check_header(header)
        key = await known.check_signature(signed, header["kid"])
        known.check_claims(claims, self._audience, self._clock())
        _check_binding(claims, certificate)
        told = known.token(claims)
        if "cnf" not in claims:
            self._verified[digest] = _Verified(told, claims["exp"], header["kid"], key, known.keys)
            if len(self._verified) > MOST_KEPT:
                self._verified.popitem(last=False)
        return told

    async def metadata(self) -> dict[str, Metadata]:
        """What the issuers say of themselves, by their names here; those that can't be reached are left out."""
        asked = [(known.name, known.keys.metadata()) for known in self._known.values()]
        told = await asyncio.gather(*(one for _, one in asked), return_exceptions=True)
        found = {}
        for (name, _), answer in zip(asked, told, strict=True):
            if isinstance(answer, Metadata):
                found[name] = answer
            elif not isinstance(answer, IssuerUnavailable):
                raise answer
        return found

    async def aclose(self) -> None:
        """Close the connections to the issuers."""
        for known in self._known.values():
            await known.keys.aclose()
        await self._http.aclose()


class _Known:
    """An issuer, and what its tokens must be."""

    def __init__(self, name: str, issuer: Issuer, keys: IssuerKeys) -> None:
        self.name, self.keys = name, keys
        self._url = issuer.url
        self._algorithms = frozenset(issuer.algorithms)
        self._types = frozenset(kind.lower() for kind in issuer.types)
        self._registry = JWSRegistry(algorithms=issuer.algorithms, strict_check_header=False)

    def check_header(self, header: Mapping[str, Any]) -> None:
        """Which algorithm is ours to say, not the token's; keys and addresses of keys in it (jwk, jku) mean nothing."""
        if not isinstance(header.get("alg"), str) or header["alg"] not in self._algorithms:
            raise Unauthenticated("The token is signed with an algorithm that is not taken")
        if "crit" in header or "b64" in header:
            raise Unauthenticated("The token has extensions that are not known here (crit)")
        kind = header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in self._types:
            raise Unauthenticated("The token is no access token: its typ is not at+jwt (RFC 9068)")
        if not isinstance(header.get("kid"), str) or not _KID.fullmatch(header["kid"]):
            raise Unauthenticated("The token does not name the key it is signed with (kid)")

    async def check_signature(self, signed: CompactSignature, kid: str) -> PublicKey:
        """Only by the key that the issuer publishes under this id, which is returned."""
        try:
            key = await self.keys.find(kid)
        except IssuerUnavailable as error:
            raise Unavailable(f"The token can't be checked now: {error}") from error
        if key is None:
            raise Unauthenticated("The token is signed with a key that its issuer does not publish")
        if not self._is_signed(signed, key):
            raise Unauthenticated("The token's signature is wrong")
        return key

    def _is_signed(self, signed: CompactSignature, key: PublicKey) -> bool:
        try:
            return validate_compact(signed, key, registry=self._registry)
        except (JoseError, ValueError):
            return False

    def check_claims(self, claims: dict[str, Any], audience: str, now: float) -> None:
        """Whose it is, for whom, and when; and that it is no ID token, which is for a client to read."""
        rules = JWTClaimsRegistry(
            now=int(now),
            leeway=SKEW_SECONDS,
            iss={"essential": True, "value": self._url},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
        )
        try:
            rules.validate(claims)
        except ExpiredTokenError:
            raise Unauthenticated("The token has expired") from None
        except JoseError as error:
            wrong = error.description or f"its claim {getattr(error, 'claim', '')} is not as it must be"
            raise Unauthenticated(f"The token is not for this agent ({audience}), or not now: {wrong}") from None
        if _other_audiences(claims["aud"], audience, self._url):
            raise Unauthenticated("The token is for others too: ask for one for this agent alone (RFC 8707)")
        if _is_id_token(claims):
            raise Unauthenticated("The token is an ID token; send the access token")

    def token(self, claims: Mapping[str, Any]) -> Token:
        """The claims in the form that callers are found by."""
        client = claims.get("client_id", claims.get("azp", ""))
        subject = claims.get("sub", "")
        act = claims.get("act", {})
        actor = act.get("sub", "") if isinstance(act, dict) else ""
        token_id = claims.get("jti", "")
        for name in (client, subject, actor, token_id):
            if name != "" and not (isinstance(name, str) and _NAME.fullmatch(name)):
                raise Unauthenticated("The token names somebody by what is no name")
        if not (client or subject) or ("act" in claims and not actor):
            raise Unauthenticated("The token does not say whose it is")
        return Token(self.name, subject, client, _scopes(claims), actor, token_id, claims["exp"])


def _read(token: str) -> tuple[CompactSignature, dict[str, Any], dict[str, Any]]:
    """The parts of a token, not verified. Raises Unauthenticated when it is none."""
    try:
        signed = extract_compact(token.encode("ascii"), registry=_BOUNDS)
        header, claims = signed.headers(), loads(signed.payload or b"")
    except (JoseError, ValueError, RecursionError):
        raise Unauthenticated("The token is no signed JWT") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise Unauthenticated("The token is no signed JWT")
    return signed, header, claims


def _other_audiences(said: str | list[str], audience: str, issuer: str) -> set[str]:
    """Whom else a token is for; not counting its issuer, which some name for what they tell of a person."""
    named = {said} if isinstance(said, str) else set(said)
    return {one for one in named - {audience} if not one.startswith(f"{issuer.rstrip('/')}/")}


def _is_id_token(claims: Mapping[str, Any]) -> bool:
    """By what only those have (OpenID Connect Core §2, §3.3.2.11), or what Keycloak writes into them."""
    return bool(claims.keys() & _OF_ID_TOKENS) or str(claims.get("typ", "")).lower() in {"id", "refresh"}


def _check_binding(claims: Mapping[str, Any], certificate: bytes | None) -> None:
    """A token that is bound to a key is no bearer token: who has it must prove that the key is theirs (RFC 8705)."""
    bound = claims.get("cnf")
    if bound is None:
        return
    digest = urlsafe_b64encode(hashlib.sha256(certificate or b"").digest()).rstrip(b"=").decode()
    if certificate is None or bound != {"x5t#S256": digest}:
        raise Unauthenticated("The token is bound to a key that this call does not prove to have")


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """RFC 9068 §2.2.3; some issuers call it scp, and list it."""
    told = claims.get("scope", claims.get("scp", ""))
    if isinstance(told, str):
        return frozenset(told.split())
    return frozenset(one for one in told if isinstance(one, str)) if isinstance(told, list) else frozenset()


class _Bounds(JWSRegistry):
    """The sizes that a token's parts may have: in all it has at most MAX_BYTES."""

    max_header_length = MAX_BYTES


_BOUNDS = _Bounds()
