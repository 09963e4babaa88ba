"""What a request says of its caller, before anybody has looked whether it is true."""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

APP_ID_HEADER = "dapr-caller-app-id"
TOKEN_HEADER = "dapr-api-token"  # noqa: S105 -- a header's name
KEY_HEADER = "x-api-key"
AUTHORIZATION_HEADER = "authorization"

_NAMES = frozenset({APP_ID_HEADER, TOKEN_HEADER, KEY_HEADER, AUTHORIZATION_HEADER})


@dataclass(frozen=True, slots=True)
class Claims:
    """The headers of a request that are about its caller, and the certificate that its connection came with (DER)."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    certificate: bytes | None = None

    @classmethod
    def of(cls, headers: Iterable[tuple[str, str]], certificate: bytes | None = None) -> Self:
        """From all headers (names in lower case) of a request: nothing at all is said, when one comes twice.

        daprd 1.18 puts the true app-id beside those that a caller made up, in any order.
        """
        said = [(name, value) for name, value in headers if name in _NAMES]
        unique = dict(said)
        return cls(unique, certificate) if len(unique) == len(said) else cls()

    def came_through_sidecar(self, app_token: str) -> bool:
        """Whether the request came through the own sidecar: only it knows the app's token.

        Only then does `app_id` say who calls. False when no token is configured.
        """
        said = self.headers.get(TOKEN_HEADER, "")
        return bool(app_token) and hmac.compare_digest(said.encode(), app_token.encode())

    @property
    def app_id(self) -> str:
        """The caller's app-id, as the own sidecar or anybody else gave it; "" without."""
        return self.headers.get(APP_ID_HEADER, "")

    @property
    def key(self) -> str:
        """An API key, or ""."""
        return self.headers.get(KEY_HEADER, "")

    @property
    def authorization(self) -> str:
        """The Authorization header, whatever its scheme, or ""."""
        return self.headers.get(AUTHORIZATION_HEADER, "")
