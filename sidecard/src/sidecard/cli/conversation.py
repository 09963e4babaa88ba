"""What `send`, `stream`, `task`, `cancel` and `card` share: one trace, one client, one way to show how it went."""

import asyncio
from collections.abc import Awaitable, Callable

import typer
from a2a.types import Task, TaskState
from a2a.utils.errors import A2AError, TaskNotFoundError

from sidecard import telemetry
from sidecard.cli import show
from sidecard.cli.answers import how_to_answer
from sidecard.cli.client import AgentClient
from sidecard.cli.console import Console
from sidecard.cli.project import Project
from sidecard.cli.way import DESK
from sidecard.errors import ConfigurationError, SidecardError
from sidecard.refusals import Forbidden, Unauthenticated
from sidecard.settings import Settings
from sidecard.tasks.states import INTERRUPTED, TERMINAL, state_name

ENDED_BADLY = 1
NOT_DONE = 2
STOPPED = 130


class Conversation:
    """One command's talk with an agent, as a caller (default: desk) in a tenant, in the project of this folder."""

    def __init__(self, agent: str, *, caller: str = "", tenant: str = "", as_json: bool = False) -> None:
        self.console = Console(as_json=as_json)
        self.project = Project()
        self.telemetry = telemetry.Telemetry()
        self._agent, self._caller, self._tenant = agent, caller, tenant

    def run(self, doing: str, work: Callable[[], Awaitable[int]]) -> None:
        """Do a command's work, which returns its exit code, in a trace that starts here and is named after it.

        What goes wrong is one line and exit code NOT_DONE; Ctrl-C is one, too, and STOPPED.
        """

        async def traced() -> int:
            with telemetry.span(f"sidecard {doing} {self._agent}"):
                return await work()

        try:
            self.telemetry = telemetry.configure("user", otlp_endpoint=Settings.load(DESK).otlp_endpoint)
            code = asyncio.run(traced())
        except (SidecardError, A2AError) as error:
            self.console.failure(_line(error))
            code = NOT_DONE
        except KeyboardInterrupt:
            words = f"interrupted; a task that {self._agent} has taken goes on: `sidecard task {self._agent}` lists it"
            self.console.failure(words)
            code = STOPPED
        finally:
            self.telemetry.shutdown()
        if code:
            raise typer.Exit(code)

    def client(self) -> AgentClient:
        """A client of the agent: through the user's sidecar, or directly with the key of another caller."""
        if self._caller and self._caller != DESK:
            return AgentClient.direct(
                self.project, self._agent, caller=self._caller, tenant=self._tenant, telemetry=self.telemetry
            )
        return AgentClient.through_desk(self.project, self._agent, tenant=self._tenant, telemetry=self.telemetry)

    def how_to_answer(self, task: Task) -> str:
        """The command that answers the task's question; see `answers`."""
        return how_to_answer(self.project, self._agent, task, self._caller, self._tenant)

    def outcome(self, task: Task) -> int:
        """Show a task as it is; returns the exit code that it stands for."""
        if self.console.as_json:
            print(show.proto_json(task))
        for line in show.task(task, self.how_to_answer(task)):
            self.console.line(line)
        return exit_code(task)


def exit_code(task: Task) -> int:
    """What a task's state stands for: ENDED_BADLY when it ended and is not completed, else 0."""
    return ENDED_BADLY if task.status.state in TERMINAL - {TaskState.TASK_STATE_COMPLETED} else 0


async def waiting(client: AgentClient, task_id: str) -> Task:
    """The task, which must wait for an answer. Raises ConfigurationError."""
    found = await client.get(task_id)
    if found.status.state not in INTERRUPTED:
        state = state_name(found.status.state)
        raise ConfigurationError(f"The task is {state} and asks nothing now: `sidecard task {client.agent} {task_id}`.")
    return found


def _line(error: SidecardError | A2AError) -> str:
    hint = ""
    if isinstance(error, TaskNotFoundError):
        hint = ": `sidecard task AGENT` lists the tasks of the same caller (--as, --tenant)"
    elif isinstance(error, Forbidden):
        hint = ": agents/callers.yaml says who may; --as names another caller"
    elif isinstance(error, Unauthenticated):
        hint = ": agents/callers.yaml must grant this caller something here; after a change `make down up`"
    words = str(error.message) if isinstance(error, A2AError) else str(error)
    return show.one_line(words) + hint
