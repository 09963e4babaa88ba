"""`sidecard grant` and `refuse`: what a task waits for before it may act in somebody's name (AUTH_REQUIRED)."""

from typing import TYPE_CHECKING, Annotated

import typer

from sidecard.cli.talk import PANEL, Agent, As, Json, TaskId, Tenant

if TYPE_CHECKING:
    from a2a.types import Task

    from sidecard.cli.client import AgentClient
    from sidecard.cli.conversation import Conversation

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask whether you are sure.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (grant, refuse):
        app.command(command.__name__, rich_help_panel=PANEL)(command)


def grant(
    agent: Agent, *, task: TaskId = "", tenant: Tenant = "", caller: As = "", yes: Yes = False, as_json: Json = False
) -> None:
    """Grant the authority that a task of yours waits for, such as to charge your card, and show how it goes on.

    Without --task it is the one task of yours that waits for an authority. What is granted is shown first. Exit codes
    as with `send`; 2 also when you are not sure.
    """
    _decide(agent, task, tenant, caller, granted=True, yes=yes, as_json=as_json)


def refuse(agent: Agent, *, task: TaskId = "", tenant: Tenant = "", caller: As = "", as_json: Json = False) -> None:
    """Refuse the authority that a task of yours waits for. Exit code 1 when the task ends by that, as most do."""
    _decide(agent, task, tenant, caller, granted=False, yes=True, as_json=as_json)


def _decide(agent: str, task_id: str, tenant: str, caller: str, *, granted: bool, yes: bool, as_json: bool) -> None:
    from sidecard.cli import conversation, show

    talk = conversation.Conversation(agent, caller=caller, tenant=tenant, as_json=as_json)

    async def work() -> int:
        async with talk.client() as client:
            waits = await _waiting(client, task_id)
            for line in show.status(waits.status):
                talk.console.line(line)
            if not yes and not _sure(talk):
                return conversation.NOT_DONE
            with show.waiting(f"{agent} …", quiet=as_json) as tell:
                done = await client.decide(waits, granted=granted, seen=lambda seen: tell(show.doing(seen)))
        return talk.outcome(done)

    talk.run("grant at" if granted else "refuse at", work)


async def _waiting(client: "AgentClient", task_id: str) -> "Task":
    """The task that waits for an authority. Raises ConfigurationError where there is none, or more than one."""
    from a2a.types import TaskState

    from sidecard.cli.conversation import waiting
    from sidecard.errors import ConfigurationError
    from sidecard.extension import Asked

    if not task_id:
        listed = [one.id for one in (await client.tasks(state=TaskState.TASK_STATE_AUTH_REQUIRED)).tasks]
        if len(listed) != 1:
            many = f"{len(listed)} tasks of yours wait for one at {client.agent}: say --task, one of {' '.join(listed)}"
            raise ConfigurationError(many if listed else f"No task of yours at {client.agent} waits for an authority.")
        task_id = listed[0]
    found = await waiting(client, task_id)
    asked = Asked.of(found.status.message)
    if asked is None or not asked.authority:
        raise ConfigurationError(f"That task waits for an answer: `sidecard send {client.agent} --task … --answer …`.")
    return found


def _sure(talk: "Conversation") -> bool:
    """Ask on a terminal; elsewhere --yes is needed."""
    import sys

    if not sys.stdin.isatty():
        talk.console.failure("say --yes to grant this without being asked")
        return False
    return typer.confirm("Grant it?")
