"""What signing in is for: whom to ask for a token for an agent, and that token, fresh, in each request to it."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
from joserfc.jwk import KeySet

from sidecard.callers import CallersFile
from sidecard.callers.discovery import Metadata, discover, fetch_json
from sidecard.callers.file import Issuer
from sidecard.callers.issuer_keys import usable
from sidecard.cli import sign_in
from sidecard.cli.project import Project
from sidecard.cli.sessions import NAME, AgentToken, Session, Sessions
from sidecard.cli.sign_in import Asked
from sidecard.errors import ConfigurationError, IssuerUnavailable, SignInFailed
from sidecard.settings import Settings


def folder(project: Project) -> Path:
    """Where the sessions of a project are."""
    return project.local / "sessions"


def check_name(project: Project, name: str) -> None:
    """Raises ConfigurationError for a name that no session can have, as it is not one's own."""
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"A session can't be called {name!r}: give it a name of letters and digits, --as.")
    if (project.local / "keys" / f"{name}.key").exists() or any(app.app_id == name for app in project.apps):
        raise ConfigurationError(f"{name} is an app, or a caller with a key: give the session another name, --as.")


def audience_of(project: Project, agent: str) -> str:
    """Whom tokens for an agent are made out to. Raises ConfigurationError when dapr.yaml has no such agent."""
    return Settings(_env_file=None, **project.app(agent).environment).token_audience  # type: ignore[arg-type]


def ask(project: Project, agent: str, issuer: str = "", hint: str = "") -> Asked:
    """What to ask whom, for a person to talk to an agent. Raises ConfigurationError, IssuerUnavailable."""
    file = CallersFile.read(project.root / "agents" / "callers.yaml")
    audience = audience_of(project, agent)
    held = {name: scopes for name, known in file.issuers.items() if (scopes := _held(file, name, known, agent))}
    if issuer:
        held = {name: scopes for name, scopes in held.items() if name == issuer}
    if len(held) != 1:
        there = f"there are: {', '.join(sorted(held))}; choose by --issuer" if held else "agents/callers.yaml has none"
        raise ConfigurationError(f"Name one issuer whose people may do something at {agent}: {there}.")
    [(name, scopes)] = held.items()
    known = file.issuers[name]
    metadata, keys = asyncio.run(_told(known.url))
    return Asked(metadata, keys, known.login, audience, tuple(sorted(scopes)), hint)


def _held(file: CallersFile, name: str, issuer: Issuer, agent: str) -> set[str]:
    """What people of an issuer hold at an agent, whoever they are."""
    listed = [g for g in file.callers.values() if g.token and g.token.issuer == name and g.token.subject]
    rights = [*listed, *([issuer.everyone] if issuer.everyone else [])]
    return {scope for one in rights for scope in one.grants.get(agent, ())}


async def _told(issuer: str) -> tuple[Metadata, KeySet]:
    async with httpx.AsyncClient() as http:
        metadata = await discover(http, issuer)
        return metadata, KeySet(list(usable(await fetch_json(http, metadata.jwks_uri)).values()))


class SessionAuth(httpx.Auth):
    """Sends a session's token for one agent with each request, replaced when it expires.

    Raises ConfigurationError, when there is no such session, or when it has ended.
    """

    def __init__(self, project: Project, name: str, agent: str) -> None:
        self._sessions, self._name, self._agent = Sessions(folder(project)), name, agent
        self._audience = audience_of(project, agent)
        self._known: AgentToken | None = None

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """One request, with the token."""
        if self._known is None or not self._known.is_fresh:
            self._known = await asyncio.to_thread(self._fresh)
        request.headers["Authorization"] = f"Bearer {self._known.access_token}"
        yield request

    def _fresh(self) -> AgentToken:
        with self._sessions.held(self._name):
            session = self._sessions.read(self._name)
            token = session.tokens.get(self._audience) if session else None
            again = f"`sidecard login {self._agent} --as {self._name}`"
            if session is None or token is None:
                raise ConfigurationError(f"{self._name} is not signed in for {self._agent}: {again}.")
            if token.is_fresh:
                return token
            try:
                token = sign_in.refreshed(_asked_before(session, self._audience, token), token)
            except SignInFailed as error:
                raise ConfigurationError(f"{error} Sign in again: {again}.") from error
            session.tokens[self._audience] = token
            self._sessions.write(self._name, session)
            return token


def end(project: Project, name: str) -> bool:
    """Forget a session, and tell its issuer; False when that could not be done. Raises ConfigurationError."""
    sessions, told = Sessions(folder(project)), True
    with sessions.held(name):
        if name not in sessions.names():
            raise ConfigurationError(f"{name} is not signed in; there are: {', '.join(sessions.names()) or 'none'}.")
        try:
            session = sessions.read(name)
            if session is not None:
                for audience, token in session.tokens.items():
                    sign_in.ended(_asked_before(session, audience, token), token)
        except (ConfigurationError, SignInFailed, IssuerUnavailable):
            told = False
        finally:
            sessions.remove(name)
    return told


def _asked_before(session: Session, audience: str, token: AgentToken) -> Asked:
    metadata, keys = asyncio.run(_told(session.issuer))
    return Asked(metadata, keys, session.client, audience, tuple(token.scope.split()))
