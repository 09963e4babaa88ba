"""What an issuer of tokens says of itself: OpenID Connect Discovery 1.0, or OAuth metadata (RFC 8414)."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from sidecard.callers.addresses import is_safe
from sidecard.errors import IssuerNotBelieved, IssuerUnavailable

OPENID_PATH = "/.well-known/openid-configuration"
OAUTH_PATH = "/.well-known/oauth-authorization-server"
FETCH_SECONDS = 5.0
"""For connecting, headers and body together."""
MAX_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Metadata:
    """An issuer's own description, from `url`; `document` holds its endpoints by their names in RFC 8414 §2.

    `jwks_uri` is "" where nobody verifies anything by its keys and it names none.
    """

    url: str
    issuer: str
    jwks_uri: str
    document: Mapping[str, Any]

    @property
    def is_openid(self) -> bool:
        """Whether it is an OpenID provider."""
        return self.url.endswith(OPENID_PATH)

    def endpoint(self, name: str) -> str:
        """The address of an endpoint; "" when it has none that is safe to use."""
        url = self.document.get(name)
        return url if isinstance(url, str) and is_safe(url) else ""

    def supports(self, name: str, value: str, default: tuple[str, ...] = ()) -> bool:
        """Whether a list of what is supported, or the default that it has when it is left out, has a value."""
        return value in (self.document.get(name) or default)


async def discover(http: httpx.AsyncClient, issuer: str, *, verifies: bool = True) -> Metadata:
    """The metadata of an issuer, from either of its well-known places. Who `verifies` its tokens needs its keys.

    Raises:
        IssuerUnavailable: it can't be reached.
        IssuerNotBelieved: what it says is not about itself, or its keys lie where anybody could change them.
    """
    parsed = urlsplit(issuer)
    path = parsed.path.rstrip("/")
    places = (issuer.rstrip("/") + OPENID_PATH, f"{parsed.scheme}://{parsed.netloc}{OAUTH_PATH}{path}")
    failures = []
    for url in places:
        try:
            document = await fetch_json(http, url)
        except IssuerUnavailable as error:
            failures.append(str(error))
            continue
        if document.get("issuer") != issuer:
            raise IssuerNotBelieved(f"{url} describes another issuer than {issuer}: write its own name, to the letter")
        keys = document.get("jwks_uri") if verifies else ""
        if verifies and (
            not isinstance(keys, str) or not is_safe(keys) or (parsed.scheme == "https" and keys[:6] != "https:")
        ):
            raise IssuerNotBelieved(f"{url} names no https address of its keys (jwks_uri)")
        return Metadata(url, issuer, str(keys), document)
    raise IssuerUnavailable("; ".join(failures))


async def fetch_json(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """A JSON object, of bounded size, in bounded time, from there and nowhere else. Raises IssuerUnavailable."""
    body = bytearray()
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}  # a compressed one unpacks to any size
    try:
        async with (
            asyncio.timeout(FETCH_SECONDS),
            http.stream("GET", url, headers=headers, follow_redirects=False) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise IssuerUnavailable(f"{url} answers HTTP {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise IssuerUnavailable(f"{url} answers compressed, though asked not to")
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise IssuerUnavailable(f"{url} answers more than {MAX_BYTES} bytes")
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise IssuerUnavailable(f"{url} does not answer ({error or type(error).__name__})") from error
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise IssuerUnavailable(f"{url} answers no JSON") from error
    if not isinstance(found, dict):
        raise IssuerUnavailable(f"{url} answers no JSON object")
    return found
