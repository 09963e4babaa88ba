"""Talking to agents on the command line: `send`, `stream`, `task`, `cancel`, `card`.

Exit codes: 0 for what is done, goes on or waits for an answer; 1 when the task ended FAILED, REJECTED or CANCELED;
2 when the command could not be done, with one line that says why and what to do.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidecard.cli.console import Console

if TYPE_CHECKING:
    from a2a.types import Task

    from sidecard.cli.client import AgentClient
    from sidecard.telemetry import Telemetry

PANEL = "Talking to agents"
ENDED_BADLY = 1
NOT_DONE = 2

Agent = Annotated[str, typer.Argument(help="App-id of the agent.")]
Text = Annotated[str, typer.Argument(help="What to say, in words.")]
Data = Annotated[str, typer.Option(help="JSON: the fields of the skill's input.")]
Files = Annotated[list[Path] | None, typer.Option("--file", help="A file to attach; may be repeated.")]
Skill = Annotated[str, typer.Option(help="Id of the skill that is meant, where several fit.")]
TaskId = Annotated[str, typer.Option("--task", help="A task to go on with.")]
Answer = Annotated[str, typer.Option(help="Answer to the question that the --task waits with.")]
Context = Annotated[str, typer.Option(help="Id of the context that a new task belongs to.")]
Tenant = Annotated[str, typer.Option(help="Tenant to work in; default: the default one.")]
As = Annotated[
    str, typer.Option("--as", help="Caller with a key in .sidecard/keys; default: through your sidecar, desk.")
]
MessageId = Annotated[str, typer.Option(help="Saying the same again under the same id starts nothing twice.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return as soon as the agent has taken it.")]
Json = Annotated[bool, typer.Option("--json", help="Print the A2A object as JSON for programs.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (send, stream, task, cancel, card):
        app.command(command.__name__, rich_help_panel=PANEL)(command)


def send(
    agent: Agent,
    text: Text = "",
    *,
    data: Data = "",
    file: Files = None,
    skill: Skill = "",
    task: TaskId = "",
    answer: Answer = "",
    context: Context = "",
    tenant: Tenant = "",
    caller: As = "",
    message_id: MessageId = "",
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Say something to an agent, wait for the outcome and show it.

    Exit code 0 when the task is completed, goes on or asks something; 1 when it failed, was rejected or canceled;
    2 when it could not be sent.
    """
    console = Console(as_json=as_json)

    async def work(telemetry: "Telemetry") -> int:
        from sidecard.cli import show, typed

        said, content = typed.content(
            text, data=data, files=file, skill=skill, task=task, answer=answer, context=context, message_id=message_id
        )
        async with _client(agent, caller, tenant, telemetry) as client:
            if answer:
                content["answers"] = await _waiting(client, task)
            with show.waiting(f"{agent} …", quiet=as_json) as tell:
                done = await client.send(said, wait=not no_wait, seen=lambda seen: tell(show.doing(seen)), **content)
        return _outcome(console, agent, done, caller, tenant)

    _run(console, f"send to {agent}", work)


def stream(
    agent: Agent,
    text: Text = "",
    *,
    data: Data = "",
    file: Files = None,
    skill: Skill = "",
    task: TaskId = "",
    answer: Answer = "",
    context: Context = "",
    tenant: Tenant = "",
    caller: As = "",
    message_id: MessageId = "",
    as_json: Json = False,
) -> None:
    """Say something to an agent and show what happens as it happens; with --task alone, watch that task.

    With --json one event (StreamResponse) per line. A broken stream is resumed. Exit codes as with `send`.
    """
    console = Console(as_json=as_json)

    async def work(telemetry: "Telemetry") -> int:
        from a2a.types import Task

        from sidecard.cli import show, typed
        from sidecard.cli.answers import how_to_answer
        from sidecard.cli.events import fold
        from sidecard.cli.project import Project

        said, content = typed.content(
            text, data=data, files=file, skill=skill, task=task, answer=answer, context=context, message_id=message_id,
            may_be_empty=bool(task),
        )  # fmt: skip
        watched = not (said or data or file)
        async with _client(agent, caller, tenant, telemetry) as client:
            if answer:
                content["answers"] = await _waiting(client, task)
            view, now = show.LiveView(), Task()
            async for event in client.follow(task) if watched else client.stream(said, **content):
                now = fold(now, event)
                if as_json:
                    print(show.proto_json(event), flush=True)
                for line in view.lines(event):
                    console.line(line)
        if hint := how_to_answer(Project(), agent, now, caller, tenant):
            console.line(f"  [dim]answer:[/dim] {show.plain(hint)}")
        return _exit_code(now)

    _run(console, f"stream from {agent}", work)


def task(
    agent: Agent,
    task_id: Annotated[str, typer.Argument(help="The task; without it your tasks are listed, newest first.")] = "",
    *,
    history: Annotated[int, typer.Option(min=0, help="Show the last so many messages, too.")] = 0,
    tenant: Tenant = "",
    caller: As = "",
    as_json: Json = False,
) -> None:
    """Show a task, or list your tasks at an agent."""
    console = Console(as_json=as_json)

    async def work(telemetry: "Telemetry") -> int:
        from sidecard.cli import show

        async with _client(agent, caller, tenant, telemetry) as client:
            if not task_id:
                listed = await client.tasks()
                if as_json:
                    print(show.proto_json(listed))
                for line in show.tasks(listed):
                    console.line(line)
                return 0
            found = await client.get(task_id, history=history)
        for line in show.history(found.history):
            console.line(line)
        _outcome(console, agent, found, caller, tenant)
        return 0

    _run(console, f"task at {agent}", work)


def cancel(
    agent: Agent,
    task_id: Annotated[str, typer.Argument(help="The task.")],
    *,
    tenant: Tenant = "",
    caller: As = "",
    as_json: Json = False,
) -> None:
    """Cancel a task and everything that was delegated for it. Exit code 1 when it ended otherwise."""
    console = Console(as_json=as_json)

    async def work(telemetry: "Telemetry") -> int:
        from a2a.types import TaskState

        async with _client(agent, caller, tenant, telemetry) as client:
            ended = await client.cancel(task_id)
        _outcome(console, agent, ended, caller, tenant)
        return 0 if ended.status.state == TaskState.TASK_STATE_CANCELED else ENDED_BADLY

    _run(console, f"cancel at {agent}", work)


def card(
    agent: Annotated[str, typer.Argument(metavar="AGENT_OR_URL", help="App-id of an agent, or any agent's base URL.")],
    *,
    as_json: Json = False,
) -> None:
    """Fetch an agent's public card, verify it against the pinned keys, and show it. Exit code 2 when it is refused."""
    console = Console(as_json=as_json)

    async def work(telemetry: "Telemetry") -> int:
        import httpx

        from sidecard.card import fetch_card
        from sidecard.cli import show, way
        from sidecard.cli.project import Project

        project = Project()
        route = way.anywhere(project, agent) if "://" in agent else way.directly(project, agent)
        async with httpx.AsyncClient(transport=route.transport) as client:
            telemetry.instrument_client(client)
            verified = await fetch_card(client, route.url, route.trust, agent=route.agent or None)
        if as_json:
            print(show.card_json(verified))
        for line in show.card(verified):
            console.line(line)
        return 0

    _run(console, f"card of {agent}", work)


def _run(console: Console, name: str, work: "Callable[[Telemetry], Awaitable[int]]") -> None:
    """Do one command's work in a trace that starts here. What goes wrong is one line and exit code 2."""
    import asyncio

    from a2a.utils.errors import A2AError

    from sidecard import telemetry
    from sidecard.cli.way import DESK
    from sidecard.errors import SidecardError
    from sidecard.settings import Settings

    configured = telemetry.configure("user", otlp_endpoint=Settings.load(DESK).otlp_endpoint)

    async def traced() -> int:
        with telemetry.span(f"sidecard {name}"):
            return await work(configured)

    try:
        code = asyncio.run(traced())
    except (SidecardError, A2AError) as error:
        console.failure(_line(error))
        code = NOT_DONE
    finally:
        configured.shutdown()
    if code:
        raise typer.Exit(code)


def _line(error: Exception) -> str:
    from a2a.utils.errors import A2AError, TaskNotFoundError

    from sidecard.cli.show import one_line
    from sidecard.refusals import Forbidden, Unauthenticated

    hint = ""
    if isinstance(error, TaskNotFoundError):
        hint = ": `sidecard task AGENT` lists the tasks of the same caller (--as, --tenant)"
    elif isinstance(error, Forbidden):
        hint = ": agents/callers.yaml says who may; --as names another caller"
    elif isinstance(error, Unauthenticated):
        hint = ": agents/callers.yaml must grant this caller something here; after a change `make down up`"
    words = str(error.message) if isinstance(error, A2AError) else str(error)
    return one_line(words) + hint


def _client(agent: str, caller: str, tenant: str, telemetry: "Telemetry") -> "AgentClient":
    from sidecard.cli.client import AgentClient
    from sidecard.cli.project import Project
    from sidecard.cli.way import DESK

    if caller and caller != DESK:
        return AgentClient.direct(Project(), agent, caller=caller, tenant=tenant, telemetry=telemetry)
    return AgentClient.through_desk(Project(), agent, tenant=tenant, telemetry=telemetry)


async def _waiting(client: "AgentClient", task_id: str) -> "Task":
    """The task, which must wait for an answer. Raises ConfigurationError."""
    from sidecard.errors import ConfigurationError
    from sidecard.tasks.state import INTERRUPTED, state_name

    found = await client.get(task_id)
    if found.status.state not in INTERRUPTED:
        state = state_name(found.status.state)
        raise ConfigurationError(f"The task is {state} and asks nothing now: `sidecard task {client.agent} {task_id}`.")
    return found


def _outcome(console: Console, agent: str, task: "Task", caller: str, tenant: str) -> int:
    """Show a task as it is; returns the exit code that it stands for."""
    from sidecard.cli import show
    from sidecard.cli.answers import how_to_answer
    from sidecard.cli.project import Project

    if console.as_json:
        print(show.proto_json(task))
    for line in show.task(task, how_to_answer(Project(), agent, task, caller, tenant)):
        console.line(line)
    return _exit_code(task)


def _exit_code(task: "Task") -> int:
    from a2a.types import TaskState

    from sidecard.tasks.state import TERMINAL

    return ENDED_BADLY if task.status.state in TERMINAL - {TaskState.TASK_STATE_COMPLETED} else 0
