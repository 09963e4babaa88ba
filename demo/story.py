"""What the demo plays: two requests, the questions they raise, and a crash in the middle."""

import json

from a2a.types import Message, Task, TaskState
from rich.console import Console

from sidecard.cli.client import AgentClient
from sidecard.cli.project import Project
from sidecard.cli.system import System
from sidecard.extension import Asked
from sidecard.tasks.binding import data_of, text_of
from sidecard.tasks.states import state_name

TRIP = (
    "Book me a flight from London to Lisbon on 3 March for Ada Lovelace and file the 180 EUR hotel receipt from "
    "Hotel Avenida, my budget is 900 EUR"
)
AIRPORT = "LHR"
RECEIPT = "File the 1,800 EUR hotel receipt from Hotel Avenida"


class StoryWentWrong(Exception):
    """Something else happened than the story tells; the message says what."""


async def book_a_trip(project: Project, out: Console) -> Task:
    """A flight and a receipt in one request; London has several airports, so the desk asks which."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        _says(out, "desk", TRIP)
        task = await desk.send(TRIP)
        _expect(task, TaskState.TASK_STATE_INPUT_REQUIRED)
        _asks(out, task)
        _says(out, "desk", AIRPORT)
        task = await desk.answer(task, AIRPORT)
        _expect(task, TaskState.TASK_STATE_COMPLETED)
        _gives(out, task)
        return task


async def approve_a_receipt(project: Project, system: System, out: Console) -> Task:
    """A receipt above the limit waits for the manager.

    The question climbs from compliance, the orchestrator is killed while it waits, nobody approves their own, and the
    manager's answer continues the very same tasks.
    """
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        _says(out, "desk", RECEIPT)
        task = await desk.send(RECEIPT)
        _expect(task, TaskState.TASK_STATE_INPUT_REQUIRED)
        _asks(out, task)
        system.kill("orchestrator")
        out.print("[bold red]kill -9[/bold red]      the orchestrator, while its task waits")
        seconds = system.restart("orchestrator")
        out.print(f"             started anew, healthy after {seconds:.1f} s; the task is still there")
        _says(out, "desk", "approve")
        refused = await desk.try_answer(task, "approve")
        out.print(f"[bold yellow]refused[/bold yellow]      {refused}")
    async with AgentClient.direct(project, "orchestrator", caller="manager") as manager:
        _says(out, "manager", "approve")
        task = await manager.answer(task, "approve")
        _expect(task, TaskState.TASK_STATE_COMPLETED)
        _gives(out, task)
        return task


def _says(out: Console, who: str, text: str) -> None:
    out.print(f"[bold cyan]{who:<12}[/bold cyan] {text}")


def _asks(out: Console, task: Task) -> None:
    asked = Asked.of(task.status.message)
    out.print(f"[bold magenta]{state_name(task.status.state):<12}[/bold magenta] {text_of(task.status.message)}")
    for value, meaning in (asked.options if asked else {}).items():
        out.print(f"             [bold]{value}[/bold]  {meaning}")


def _gives(out: Console, task: Task) -> None:
    out.print(f"[bold green]{state_name(task.status.state):<12}[/bold green] task {task.id}")
    for artifact in task.artifacts:
        parts = Message(parts=artifact.parts)
        out.print(f"             [bold]{artifact.name}[/bold]")
        out.print(f"             {text_of(parts)}")
        out.print(f"             [dim]data: {json.dumps(data_of(parts))[:110]} …[/dim]", markup=True)


def _expect(task: Task, state: TaskState) -> None:
    if task.status.state != state:
        raise StoryWentWrong(
            f"the task is {state_name(task.status.state)}, not {state_name(state)}: {text_of(task.status.message)}"
        )
