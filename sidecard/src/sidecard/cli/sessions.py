"""People who are signed in on this machine: their tokens, in `.sidecard/sessions/<name>.json`, for nobody else."""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidecard.errors import ConfigurationError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
"""What a session may be called; it names a file."""
EARLY_SECONDS = 30
"""By which a token is replaced before it expires: it still has to get to the agent."""


class AgentToken(BaseModel):
    """An access token for one agent: of use to nobody else (RFC 8707). `expires_at` is in seconds since 1970."""

    model_config = ConfigDict(extra="forbid")

    access_token: str = Field(repr=False)
    expires_at: float
    scope: str
    refresh_token: str = Field(default="", repr=False)

    @property
    def is_fresh(self) -> bool:
        """Whether it is good for a request that is made now."""
        return time.time() < self.expires_at - EARLY_SECONDS


class Session(BaseModel):
    """Somebody who has signed in, at an issuer, as its client; `tokens` by the agents' names for themselves."""

    model_config = ConfigDict(extra="forbid")

    issuer: str
    client: str
    subject: str
    tokens: dict[str, AgentToken] = Field(default_factory=dict)


class Sessions:
    """The sessions in a folder, which and whose files others can't read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Who is signed in."""
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def read(self, name: str) -> Session | None:
        """A session; None when there is none of that name. Raises ConfigurationError when it can't be read."""
        path = self._path(name)
        try:
            return Session.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):  # whose words would show what is in it
            raise ConfigurationError(f"{path} is no session: `sidecard logout {name}`, then sign in again.") from None

    def write(self, name: str, session: Session) -> None:
        """Keep a session, in place of the one that has the name: whole or not at all."""
        path = self._path(name)
        partial = path.with_name(f".{path.name}.partial")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(session.model_dump_json(indent=2))
        partial.replace(path)

    def remove(self, name: str) -> None:
        """Forget a session, where there is one."""
        self._path(name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Within it nobody else changes this session: an issuer that sees a refresh token twice takes both back."""
        with self._path(name).with_suffix(".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise ConfigurationError(f"A session can't be called {name!r}: give it a name of letters and digits, --as.")
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return self._folder / f"{name}.json"
