"""The agents' state stores as an operator reads them: each through the agent's own sidecar, with its token."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from sidecard.cli.client import AgentClient
from sidecard.cli.project import Project
from sidecard.cli.way import agent_of
from sidecard.errors import ConfigurationError, StoreUnavailable
from sidecard.registry import REGISTRY
from sidecard.tasks.entry import Entry
from sidecard.tasks.loading import read_log
from sidecard.tasks.read_only import ReadOnly
from sidecard.tasks.state import FoldedTask
from sidecard.tasks.store import DaprStateStore, StateStore


class Stores:
    """Opens each store when it is first asked for; the registry, which is no agent, has an audit in its own."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._open: dict[str, DaprStateStore] = {}

    def of(self, agent: str) -> StateStore:
        """An agent's store, to read. Raises ConfigurationError for no such agent here, or no token for it yet."""
        return ReadOnly(self.writable(agent))

    def writable(self, agent: str) -> StateStore:
        """The same, for what an agent is asked by way of its store: nothing else may be written past it."""
        if agent not in self._open:
            app = self._project.app(agent) if agent == REGISTRY else agent_of(self._project, agent)
            tokens = self._project.local / "tokens" / f"{agent}.env"
            self._open[agent] = DaprStateStore(grpc_port=app.dapr_grpc_port, token=_token(tokens))
        return self._open[agent]

    async def read_log(self, agent: str, task_id: str) -> tuple[FoldedTask, list[Entry]]:
        """See `tasks.tree.ReadLog`."""
        store = self.of(agent)
        with reaching(agent):
            return await read_log(store, task_id)

    async def close(self) -> None:
        """Close what was opened."""
        for store in self._open.values():
            await store.close()


@contextlib.contextmanager
def reaching(agent: str) -> Iterator[None]:
    """Says what to do where an agent's store can't be reached. Raises StoreUnavailable."""
    try:
        yield
    except StoreUnavailable as error:
        raise StoreUnavailable(
            f"{agent}'s store can't be reached through its sidecar: {error}; run `make up`, or `make down up` if its "
            "token is another one now"
        ) from error


def _token(path: Path) -> str:
    """The sidecar's token. The environment has no say here: it could name one of several sidecars at most."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition("=")
            if name == "DAPR_API_TOKEN" and value:
                return value
    raise ConfigurationError(f"There is no token of a sidecar in {path}: run `make up`, which makes one.")


@contextlib.asynccontextmanager
async def stores(project: Project) -> AsyncIterator[Stores]:
    """The stores of a project, closed at the end."""
    opened = Stores(project)
    try:
        yield opened
    finally:
        await opened.close()


async def newest_task(project: Project, agent: str) -> str:
    """The user's newest task at an agent, asked through desk. Raises ConfigurationError when there is none."""
    async with AgentClient.through_desk(project, agent) as client:
        listed = await client.tasks(limit=1)
    if not listed.tasks:
        raise ConfigurationError(f"You have no task at {agent} yet: name one, or `sidecard send {agent} …`.")
    return listed.tasks[0].id


def no_task(agent: str, task_id: str) -> ConfigurationError:
    """What to say of a task without a log."""
    return ConfigurationError(f"{agent} has no log of a task {task_id!r}: `sidecard task AGENT` lists tasks.")
