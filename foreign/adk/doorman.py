"""Who comes in to a foreign agent: bearers of tokens that its issuer made out to it. Another firm's code, not ours."""

import hashlib
import json
import time

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

ALGORITHMS = ["RS256", "ES256"]


class Doorman:
    """ASGI middleware: the card is public, /seen shows what came, everything else needs a token with the scope.

    What came is kept without its tokens: of each only who it speaks of, and its SHA-256.
    """

    def __init__(self, app, *, issuer: str, audience: str, scope: str) -> None:
        self._app, self._issuer, self._audience, self._scope = app, issuer, audience, scope
        self._keys: KeySet | None = None
        self._seen: list[dict] = []

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/.well-known/"):
            await self._app(scope, receive, send)
            return
        if scope["path"] == "/seen":
            await _answer(send, 200, self._seen)
            return
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        token = headers.get("authorization", "").removeprefix("Bearer ")
        noted = {name: headers.get(name, "") for name in ("traceparent", "a2a-version")}
        noted |= {"path": scope["path"], "token": hashlib.sha256(token.encode()).hexdigest(), "names": sorted(headers)}
        self._seen.append(noted)
        try:
            claims = await self._verified(token)
        except (JoseError, ValueError, KeyError) as error:
            await _answer(send, 401, {"error": f"no token for this agent ({type(error).__name__})"})
            return
        noted |= {name: claims.get(name) for name in ("sub", "client_id", "act", "aud", "scope")}
        if self._scope not in str(claims.get("scope", "")).split():
            await _answer(send, 403, {"error": f"the token has no scope {self._scope}"})
            return
        await self._app(scope, receive, send)

    async def _verified(self, token: str) -> dict:
        if self._keys is None:
            async with httpx.AsyncClient() as http:
                metadata = (await http.get(f"{self._issuer}/.well-known/openid-configuration")).json()
                self._keys = KeySet.import_key_set((await http.get(metadata["jwks_uri"])).json())
        read = jwt.decode(token, self._keys, algorithms=ALGORITHMS)
        rules = jwt.JWTClaimsRegistry(
            now=int(time.time()),
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._audience},
            exp={"essential": True},
        )
        rules.validate(read.claims)
        return read.claims


async def _answer(send, status: int, content) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
