"""An issuer of access tokens in this process, whose keys and words a test decides."""

import json
import time
from typing import Any, Literal

import httpx
from joserfc import jwk, jwt

from sidecard.callers.discovery import OPENID_PATH

ISSUER = "https://login.example.org"
AUDIENCE = "http://127.0.0.1:8080"
"""The base URL of a `served` agent."""


class FakeIssuer:
    """Signs what it is told to; answers for its metadata and keys by `http`, and remembers what was asked.

    `down` makes it unreachable. `metadata` and `key_set` are what it answers.
    """

    def __init__(self, url: str = ISSUER, *, algorithm: Literal["ES256", "RS256", "EdDSA"] = "ES256") -> None:
        self.url, self.algorithm = url, algorithm
        self.down = False
        self.asked: list[str] = []
        self.keys: list[jwk.Key] = []
        self.metadata: dict[str, Any] = {
            "issuer": url,
            "jwks_uri": f"{url}/keys",
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
            "device_authorization_endpoint": f"{url}/device",
            "grant_types_supported": [
                "authorization_code",
                "client_credentials",
                "urn:ietf:params:oauth:grant-type:device_code",
            ],
            "code_challenge_methods_supported": ["S256"],
        }
        self.rotate()

    def rotate(self, *, withdraw: bool = False) -> None:
        """Sign with a new key from now on; with `withdraw`, the old ones are no longer published."""
        if self.algorithm == "RS256":
            key: jwk.Key = jwk.RSAKey.generate_key(2048, {"alg": "RS256", "use": "sig"}, auto_kid=True)
        elif self.algorithm == "ES256":
            key = jwk.ECKey.generate_key("P-256", {"alg": "ES256", "use": "sig"}, auto_kid=True)
        else:
            key = jwk.OKPKey.generate_key("Ed25519", {"alg": "EdDSA", "use": "sig"}, auto_kid=True)
        self.keys = [key, *([] if withdraw else self.keys)]

    @property
    def key_set(self) -> dict[str, Any]:
        """What it publishes of its keys."""
        return {"keys": [key.as_dict(private=False) for key in self.keys]}

    def claims(self, subject: str = "ada", scope: str = "look", **more: object) -> dict[str, Any]:
        """What a sound token of a person has; None leaves a claim out."""
        now = int(time.time())
        told = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": subject,
            "client_id": "desktop",
            "scope": scope,
            "iat": now,
            "exp": now + 300,
        }
        return {name: value for name, value in (told | more).items() if value is not None}

    def sign(self, claims: dict[str, Any], key: jwk.Key | None = None, **header: object) -> str:
        """A token with these claims; members of its header are added, or replaced; None leaves one out."""
        key = key or self.keys[0]
        whole = {"alg": self.algorithm, "kid": self.keys[0].kid, "typ": "at+jwt"} | header
        told = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(told, claims, key, algorithms=[str(told["alg"])], default_type=None)

    def token(self, subject: str = "ada", scope: str = "look", **more: object) -> str:
        """A token that is sound but for what is said otherwise."""
        return self.sign(self.claims(subject, scope, **more))

    def http(self) -> httpx.AsyncClient:
        """A client that reaches this issuer, and nothing else."""
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        if self.down:
            raise httpx.ConnectError("it is down", request=request)
        told = {f"{self.url}{OPENID_PATH}": self.metadata, f"{self.url}/keys": self.key_set}.get(str(request.url))
        return httpx.Response(404) if told is None else httpx.Response(200, content=json.dumps(told))
