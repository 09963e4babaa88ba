"""The keys that one issuer signs with, as it publishes them, kept for a while and fetched again as they rotate."""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey, import_key

from sidecard.callers.discovery import Metadata, discover, fetch_json
from sidecard.errors import IssuerUnavailable

log = logging.getLogger("sidecard")

FRESH_SECONDS = 60.0
"""Older keys still serve while they are fetched again: what an issuer withdraws stops working about so soon."""
STALE_SECONDS = 3_600.0
"""Keys this old serve no longer, when the issuer could not be reached all the time."""
RETRY_SECONDS = 5.0
"""Between two fetches at least, whatever anybody asks for."""
DISCOVERY_SECONDS = 3_600.0
MOST_KEYS = 100
SHORTEST_RSA = 2_048

PublicKey = RSAKey | ECKey | OKPKey


class IssuerKeys:
    """The keys of one issuer by their ids. Nothing is fetched before somebody asks."""

    def __init__(self, issuer: str, http: httpx.AsyncClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer, self._http, self._clock = issuer, http, clock
        self._keys: dict[str, PublicKey] = {}
        self._fetched = self._tried = self._discovered = -math.inf
        self._metadata: Metadata | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> PublicKey | None:
        """The key with exactly this id, or None.

        An id that is not known has the keys fetched once more, as they may have rotated; however many ask, they wait
        for one fetch, and there is at most one in RETRY_SECONDS. Raises IssuerUnavailable when no keys can be had.
        """
        now = self._clock()
        if kid not in self._keys or now - self._fetched > FRESH_SECONDS:
            fetching = self._fetch_again(now)
            if fetching is not None and (kid not in self._keys or now - self._fetched > STALE_SECONDS):
                await asyncio.shield(fetching)
        if self._clock() - self._fetched > STALE_SECONDS:
            raise IssuerUnavailable(f"the keys of {self._issuer} can't be fetched; this agent's log says why")
        return self._keys.get(kid)

    async def metadata(self) -> Metadata:
        """What the issuer says of itself, at most DISCOVERY_SECONDS ago. Raises IssuerUnavailable."""
        if self._metadata is None or self._clock() - self._discovered > DISCOVERY_SECONDS:
            self._metadata = await discover(self._http, self._issuer)
            self._discovered = self._clock()
        return self._metadata

    async def aclose(self) -> None:
        """Fetch no more."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _fetch_again(self, now: float) -> asyncio.Task[None] | None:
        """The fetch under way, or a new one; None when the last one is too short ago."""
        if self._fetching is not None and not self._fetching.done():
            return self._fetching
        if now - self._tried < RETRY_SECONDS:
            return None
        self._tried = now
        self._fetching = asyncio.create_task(self._fetch(), name=f"keys of {self._issuer}")
        return self._fetching

    async def _fetch(self) -> None:
        try:
            metadata = await self.metadata()
            self._keys = usable(await fetch_json(self._http, metadata.jwks_uri))
        except IssuerUnavailable as error:
            self._discovered = -math.inf  # the keys may have moved
            log.warning("The keys of %s can't be fetched: %s", self._issuer, error)
        except Exception:
            log.exception("The keys of %s can't be fetched", self._issuer)
        else:
            self._fetched = self._clock()


def usable(key_set: dict[str, Any]) -> dict[str, PublicKey]:
    """The keys of a JWK set (RFC 7517 §5) that may verify signatures, by id.

    Others are left out: symmetric and private ones, those for encryption, RSA below 2048 bits, without an id or with
    that of another.
    """
    listed = key_set.get("keys")
    listed = [key for key in listed if isinstance(key, dict)][:MOST_KEYS] if isinstance(listed, list) else []
    kids = Counter(key.get("kid") for key in listed if isinstance(key.get("kid"), str))
    keys: dict[str, PublicKey] = {}
    for described in listed:
        try:
            key = import_key(described)
            key.check_use("sig")
            key.check_key_op("verify")
        except (JoseError, ValueError, TypeError, AssertionError):
            continue
        if isinstance(key, OctKey) or key.is_private:
            continue
        if isinstance(key, RSAKey) and key.public_key.key_size < SHORTEST_RSA:
            continue
        if key.kid and kids[key.kid] == 1:
            keys[key.kid] = key
    return keys
