"""How a client without a token, or with a wrong one, learns which to get (RFC 6750 §3, RFC 9728)."""

import re
from dataclasses import dataclass
from typing import Any, Self

from a2a.utils.errors import A2AError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from sidecard.callers import KEY_HEADER, CallersFile
from sidecard.refusals import Forbidden, Unauthenticated
from sidecard.settings import Settings

PATH = "/.well-known/oauth-protected-resource"
INSUFFICIENT_SCOPE = 'Bearer error="insufficient_scope"'
KEY_CHALLENGE = f'ApiKey header="{KEY_HEADER}"'
"""What a 401 asks for where no token is taken; the scheme has no standard."""
_NOT_QUOTED = re.compile(r'[^\x20-\x7e]|["\\]')


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """An agent that takes access tokens: made out to `audience`, by one of `issuers`, for any of `scopes`."""

    name: str
    url: str
    audience: str
    issuers: tuple[str, ...]
    scopes: tuple[str, ...]

    @classmethod
    def of(cls, agent: str, settings: Settings, file: CallersFile) -> Self | None:
        """The agent, by the callers that it has; None when it takes no token."""
        scopes: set[str] = set()
        issuers = []
        for name, issuer in file.issuers.items():
            theirs = [grant for grant in file.callers.values() if grant.token and grant.token.issuer == name]
            held = {s for rights in (*theirs, issuer.everyone) if rights for s in rights.grants.get(agent, ())}
            if held:
                scopes |= held
                issuers.append(issuer.url)
        if not issuers:
            return None
        return cls(agent, settings.card_url, settings.token_audience, tuple(issuers), tuple(sorted(scopes)))

    @property
    def document(self) -> dict[str, Any]:
        """What a client needs to know to ask for a token (RFC 9728 §2)."""
        return {
            "resource": self.audience,
            "resource_name": self.name,
            "authorization_servers": list(self.issuers),
            "scopes_supported": list(self.scopes),
            "bearer_methods_supported": ["header"],
        }

    def route(self) -> Route:
        """Serves the document to anybody."""

        async def serve(_: Request) -> JSONResponse:
            return JSONResponse(self.document, headers={"Cache-Control": "public, max-age=300"})

        return Route(PATH, serve, methods=["GET"])


def challenge(error: A2AError, resource: ProtectedResource | None, *, with_token: bool) -> dict[str, str]:
    """The header of an answer that refuses a caller; none for other answers."""
    if isinstance(error, Forbidden) and with_token:
        return {"WWW-Authenticate": INSUFFICIENT_SCOPE}
    if not isinstance(error, Unauthenticated):
        return {}
    if resource is None:
        return {"WWW-Authenticate": KEY_CHALLENGE}
    told = [f'resource_metadata="{resource.url}{PATH}"']
    if with_token:
        told += ['error="invalid_token"', f'error_description="{_NOT_QUOTED.sub("", error.message)[:200]}"']
    return {"WWW-Authenticate": f"Bearer {', '.join(told)}"}
