"""Talking to agents on the command line: `send`, `stream`, `task`, `cancel`, `card`.

Exit codes: 0 for what is done, goes on or waits for an answer; 1 when the task ended FAILED, REJECTED or CANCELED;
2 when the command could not be done, with one line that says why and what to do.
"""

from pathlib import Path
from typing import Annotated

import typer

PANEL = "Talking to agents"

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
    str,
    typer.Option(
        "--as", help="Caller with a key in .sidecard/keys, or signed in; default: through your sidecar, desk."
    ),
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
    from sidecard.cli import conversation, show, typed

    talk = conversation.Conversation(agent, caller=caller, tenant=tenant, as_json=as_json)

    async def work() -> int:
        said, content = typed.content(
            text, data=data, files=file, skill=skill, task=task, answer=answer, context=context, message_id=message_id
        )
        async with talk.client() as client:
            if answer:
                content["answers"] = await conversation.waiting(client, task)
            with show.waiting(f"{agent} …", quiet=as_json) as tell:
                done = await client.send(said, wait=not no_wait, seen=lambda seen: tell(show.doing(seen)), **content)
        return talk.outcome(done)

    talk.run("send to", work)


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
    from a2a.types import Task

    from sidecard.cli import conversation, show, typed
    from sidecard.streamed import fold

    talk = conversation.Conversation(agent, caller=caller, tenant=tenant, as_json=as_json)

    async def work() -> int:
        said, content = typed.content(
            text, data=data, files=file, skill=skill, task=task, answer=answer, context=context, message_id=message_id,
            may_be_empty=bool(task),
        )  # fmt: skip
        watched = not (said or data or file)
        async with talk.client() as client:
            if answer:
                content["answers"] = await conversation.waiting(client, task)
            view, now = show.LiveView(), Task()
            async for event in client.follow(task) if watched else client.stream(said, **content):
                now = fold(now, event)
                if as_json:
                    print(show.proto_json(event), flush=True)
                for line in view.lines(event):
                    talk.console.line(line)
        if hint := talk.how_to_answer(now):
            talk.console.line(f"  [dim]answer:[/dim] {show.plain(hint)}")
        return conversation.exit_code(now)

    talk.run("stream from", work)


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
    from sidecard.cli import conversation, show

    talk = conversation.Conversation(agent, caller=caller, tenant=tenant, as_json=as_json)

    async def work() -> int:
        async with talk.client() as client:
            if not task_id:
                listed = await client.tasks()
                if as_json:
                    print(show.proto_json(listed))
                for line in show.tasks(listed):
                    talk.console.line(line)
                return 0
            found = await client.get(task_id, history=history)
        for line in show.history(found.history):
            talk.console.line(line)
        talk.outcome(found)
        return 0

    talk.run("task at", work)


def cancel(
    agent: Agent,
    task_id: Annotated[str, typer.Argument(help="The task.")],
    *,
    tenant: Tenant = "",
    caller: As = "",
    as_json: Json = False,
) -> None:
    """Cancel a task and everything that was delegated for it. Exit code 1 when it ended otherwise."""
    from a2a.types import TaskState

    from sidecard.cli import conversation

    talk = conversation.Conversation(agent, caller=caller, tenant=tenant, as_json=as_json)

    async def work() -> int:
        async with talk.client() as client:
            ended = await client.cancel(task_id)
        talk.outcome(ended)
        return 0 if ended.status.state == TaskState.TASK_STATE_CANCELED else conversation.ENDED_BADLY

    talk.run("cancel at", work)


def card(
    agent: Annotated[
        str, typer.Argument(metavar="AGENT_OR_URL", help="App-id, name in the registry, or any agent's base URL.")
    ],
    *,
    extended: Annotated[bool, typer.Option("--extended", help="As it is for you: what you may do there.")] = False,
    tenant: Tenant = "",
    caller: As = "",
    as_json: Json = False,
) -> None:
    """Fetch an agent's public card, verify it, and show it; --extended, its card for you. Exit code 2 when refused.

    An app-id of dapr.yaml is asked at its own port, a URL at its well-known path; any other name is looked up in the
    registry. Cards are verified against the pinned keys, or with the digest that an operator has pinned.
    """
    from sidecard.cli import cards, conversation, show

    talk = conversation.Conversation(agent, caller=caller, tenant=tenant, as_json=as_json)

    async def work() -> int:
        if extended:
            async with talk.client() as client:
                verified = await client.extended_card()
        else:
            verified = await cards.fetch(talk.project, agent, talk.telemetry)
        if as_json:
            print(show.card_json(verified))
        for line in show.card(verified):
            talk.console.line(line)
        return 0

    talk.run("card of", work)
