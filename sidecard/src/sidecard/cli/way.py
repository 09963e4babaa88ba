"""The ways to an agent from the command line: through the user's sidecar, or directly with a key of one's own."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from sidecard.callers import KEY_HEADER
from sidecard.cli.project import App, Project
from sidecard.errors import AgentUnavailable, ConfigurationError
from sidecard.registry import Registry
from sidecard.revocations import Revocations
from sidecard.settings import Settings
from sidecard.sidecar import MeshTransport
from sidecard.trust import TrustStore

DESK = "desk"
"""App-id of the user's own sidecar, which has no app."""


@dataclass(frozen=True)
class Way:
    """How one agent is reached. `headers` and `auth` say who calls; only once the agent's card is verified."""

    agent: str
    url: str
    transport: httpx.AsyncBaseTransport
    trust: TrustStore
    headers: dict[str, str] = field(default_factory=dict)
    auth: httpx.Auth | None = None


def through_desk(project: Project, agent: str) -> Way:
    """Through the user's sidecar, as caller `desk`: Dapr's access rules say which agents that reaches.

    DAPR_HTTP_PORT and DAPR_API_TOKEN, where set, win over dapr.yaml and `.sidecard/tokens/desk.env`.

    Raises:
        ConfigurationError: there is no such agent, no token or trust file yet, or a variable is wrong.
    """
    agent_of(project, agent)
    return Way(agent, f"http://{agent}", mesh(project), pinned_keys(project).of_app(agent))


def mesh(project: Project) -> httpx.AsyncBaseTransport:
    """To any app, by its app-id, through the user's sidecar. Raises ConfigurationError when it has no token yet."""
    settings = Settings.load(DESK, project.local)
    if not settings.dapr_api_token.get_secret_value():
        raise ConfigurationError(f"There is no token of {DESK} in {project.local}: run `make up`, which makes one.")
    if "dapr_http_port" not in settings.model_fields_set:
        settings.dapr_http_port = project.app(DESK).dapr_http_port
    return _DeskTransport(settings)


def directly(project: Project, agent: str, caller: str = "") -> Way:
    """To the agent's own port, as a caller with a key in `.sidecard/keys`, or with a session (`sidecard login`).

    Without a caller only to its public card.

    Raises:
        ConfigurationError: there is no such agent, no such key or session, or no trust file yet.
    """
    url = f"http://127.0.0.1:{agent_of(project, agent).app_port}"
    unreachable = f"{agent} does not answer at {url}: run `make up`, or `make restart agent={agent}` if it crashed."
    way = Way(agent, url, _DirectTransport(unreachable), pinned_keys(project).of_app(agent))
    if not caller:
        return way
    if (project.local / "sessions" / f"{caller}.json").exists():
        from sidecard.cli.signed_in import SessionAuth

        return replace(way, auth=SessionAuth(project, caller, agent))
    return replace(way, headers={KEY_HEADER: _key(project.local / "keys", caller)})


def anywhere(project: Project, url: str) -> Way:
    """To whatever agent is at a URL, for its public card. Raises ConfigurationError when there is no trust file yet.

    The person at the keyboard names the address: it may be any.
    """
    return Way("", url, httpx.AsyncHTTPTransport(), pinned_keys(project))


@contextlib.asynccontextmanager
async def registry(project: Project) -> AsyncIterator[Registry]:
    """The inventory of agents, through the user's sidecar. Raises ConfigurationError."""
    async with httpx.AsyncClient(transport=mesh(project), timeout=30.0) as client:
        yield Registry(client)


@contextlib.asynccontextmanager
async def revocations(project: Project) -> AsyncIterator[Revocations]:
    """The list of who is revoked, through the user's sidecar. Raises ConfigurationError."""
    async with httpx.AsyncClient(transport=mesh(project), timeout=30.0) as client:
        yield Revocations(client)


def agent_of(project: Project, name: str) -> App:
    """The agent's entry in dapr.yaml. Raises ConfigurationError naming the agents there are."""
    agents = {app.app_id: app for app in project.apps if app.is_agent}
    if name not in agents:
        other = any(app.app_id == name for app in project.apps)
        what = f"{name!r} is an app, but no agent" if other else f"There is no agent {name!r} in dapr.yaml"
        raise ConfigurationError(f"{what}; there are: {', '.join(sorted(agents))}.")
    return agents[name]


def pinned_keys(project: Project) -> TrustStore:
    """The keys that cards are verified with. Raises ConfigurationError when there are none yet."""
    path = project.local / "trust.json"
    try:
        return TrustStore.parse(path.read_bytes())
    except OSError:
        raise ConfigurationError(f"No publisher's keys are pinned, {path} can't be read: run `make up`.") from None


def _key(folder: Path, caller: str) -> str:
    known = {path.stem: path for path in folder.glob("*.key")}
    if caller not in known:
        raise ConfigurationError(
            f"There is no key of {caller!r} in {folder} (there are: {', '.join(sorted(known)) or 'none'}): "
            "give it `api_key: true` in agents/callers.yaml, then `make down up`; people sign in by `sidecard login`."
        )
    return known[caller].read_text().strip()


class _DirectTransport(httpx.AsyncHTTPTransport):
    """Says what to do when nobody listens."""

    def __init__(self, unreachable: str) -> None:
        super().__init__()
        self._unreachable = unreachable

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except httpx.ConnectError as error:
            raise AgentUnavailable(self._unreachable) from error


class _DeskTransport(MeshTransport):
    """Turns what the sidecar itself answers into our errors; what the agent answers passes unchanged."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._address = f"127.0.0.1:{settings.dapr_http_port}"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await super().handle_async_request(request)
        except httpx.ConnectError as error:
            raise AgentUnavailable(f"The sidecar {DESK} does not answer at {self._address}: run `make up`.") from error
        if response.is_success:
            return response
        await response.aread()
        agent, reason = request.url.host, _dapr_reason(response)
        if response.status_code == httpx.codes.UNAUTHORIZED and not _is_json(response):
            raise ConfigurationError(
                f"The sidecar {DESK} at {self._address} was started with another token than this project's: "
                "run `make down up` here."
            )
        if reason and response.status_code == httpx.codes.FORBIDDEN:
            raise ConfigurationError(
                f"Dapr's access rules do not let {DESK} {request.method} {request.url.path} at {agent}: add it to the "
                f"policy of {DESK} in components/access/{agent}.yaml, or go there directly, `--as <caller with a key>`."
            )
        if reason:
            raise AgentUnavailable(
                f"{agent} can't be reached through {DESK} ({reason}): run `make up`, "
                f"or `make restart agent={agent}` if it crashed."
            )
        return response


def _dapr_reason(response: httpx.Response) -> str:
    """Dapr's own words in an error, or nothing when the error is the agent's."""
    try:
        content = json.loads(response.content)
    except ValueError:
        return ""
    if not isinstance(content, dict) or "errorCode" not in content:
        return ""
    words = str(content.get("message") or content["errorCode"])
    return words.rpartition("err: ")[2].replace("\n", " ")[:200]


def _is_json(response: httpx.Response) -> bool:
    return "json" in response.headers.get("content-type", "")
