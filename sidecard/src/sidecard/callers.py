"""Who calls: verified once, at the edge, by the own sidecar's word or by a key. Everything later asks the Caller."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import yaml
from a2a.auth.user import User
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidecard.errors import ConfigurationError
from sidecard.validation import explain

APP_ID_HEADER = "dapr-caller-app-id"
TOKEN_HEADER = "dapr-api-token"  # noqa: S105 -- a header's name
KEY_HEADER = "x-api-key"

_CLAIMS = frozenset({APP_ID_HEADER, TOKEN_HEADER, KEY_HEADER})


def claims(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What the headers of a request (names in lower case) say of its caller: nothing at all, when one comes twice.

    daprd 1.18 puts the true app-id beside those that a caller made up, in any order.
    """
    said = [(name, value) for name, value in headers if name in _CLAIMS]
    unique = dict(said)
    return unique if len(unique) == len(said) else {}


def came_through_sidecar(said: Mapping[str, str], app_token: str) -> bool:
    """Whether a request with these `claims` came through the own sidecar: only it knows the app's token.

    Only then does `dapr-caller-app-id` say who calls. False when no token is configured.
    """
    return bool(app_token) and hmac.compare_digest(said.get(TOKEN_HEADER, "").encode(), app_token.encode())


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified identity and what it may do at this agent. `subject` is on whose behalf it acts, usually itself."""

    name: str
    subject: str
    scopes: frozenset[str]
    tenants: frozenset[str] = frozenset({""})
    speaks_for_others: bool = False

    def may_use(self, tenant: str) -> bool:
        """Whether it may work in this tenant; "" is the default one."""
        return tenant in self.tenants

    def on_behalf_of(self, subject: str) -> "Caller":
        """The same caller for somebody else, where it may speak for others; otherwise itself."""
        return replace(self, subject=subject) if subject and self.speaks_for_others else self


class Grant(BaseModel):
    """One caller in agents/callers.yaml."""

    model_config = ConfigDict(extra="forbid")

    sidecar: bool = False
    api_key: bool = False
    speaks_for_others: bool = False
    tenants: list[str] = Field(default_factory=list)
    grants: dict[str, list[str]] = Field(default_factory=dict)


class CallersFile(BaseModel):
    """agents/callers.yaml: the callers of the whole estate."""

    model_config = ConfigDict(extra="forbid")

    callers: dict[str, Grant]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ConfigurationError, naming the file and what is wrong with it."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text()))
        except ValidationError as error:
            raise ConfigurationError(f"{path} is not a list of callers: {explain(error)}") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise ConfigurationError(f"{path} is not a list of callers: {reason}") from error


class Callers:
    """The callers that one agent knows. Whoever is not listed is nobody."""

    def __init__(self, agent: str, file: CallersFile, *, app_token: str, api_keys: Mapping[str, str]) -> None:
        """`api_keys` maps the SHA-256 (hex) of a key to its caller's name."""
        self._app_token = app_token
        self._api_keys = api_keys
        self._grants = file.callers
        self._agent = agent

    def identify(self, headers: Mapping[str, str]) -> Caller | None:
        """The caller behind a request's `claims`, or None.

        The app-id header is believed only together with the app API token, which only the own sidecar knows.
        """
        if came_through_sidecar(headers, self._app_token):
            name = headers.get(APP_ID_HEADER, "")
            return self._caller(name) if name in self._grants and self._grants[name].sidecar else None
        key = headers.get(KEY_HEADER, "")
        if key:
            name = self._api_keys.get(hashlib.sha256(key.encode()).hexdigest(), "")
            return self._caller(name) if name in self._grants and self._grants[name].api_key else None
        return None

    def scopes_of(self, name: str) -> frozenset[str]:
        """What somebody holds at this agent; nothing, when not listed."""
        grant = self._grants.get(name)
        return frozenset(grant.grants.get(self._agent, ())) if grant else frozenset()

    def _caller(self, name: str) -> Caller | None:
        scopes = self.scopes_of(name)
        if not scopes:
            return None
        grant = self._grants[name]
        return Caller(
            name=name,
            subject=name,
            scopes=scopes,
            tenants=frozenset({"", *grant.tenants}),
            speaks_for_others=grant.speaks_for_others,
        )


class CallerUser(User):
    """A Caller as the SDK's routes carry a user."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    @property
    def is_authenticated(self) -> bool:
        """Always: who is not verified does not get this far."""
        return True

    @property
    def user_name(self) -> str:
        """The verified name."""
        return self.caller.name
