"""`sidecard undelivered` and `sidecard redeliver`: what was given up, and delivering it after all.

To webhooks and the topic that is events, to other agents the cancel of what was delegated to them.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from sidecard.cli.console import Console

if TYPE_CHECKING:
    from sidecard.tasks.dead import DeadLetter

TAKEN_SECONDS = 10.0
TOPIC = "topic"

Agent = Annotated[str, typer.Argument(help="App-id of the agent.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]


def undelivered(agent: Agent, as_json: Json = False) -> None:
    """List the deliveries of an agent that were given up, with how many events each is missing; for operators.

    Besides webhooks, and the topic, these are other agents that are to cancel what an ended task had delegated to them.

    They are read through the agent's own sidecar with that sidecar's token, and nothing is written. A delivery is
    listed until it is made after all (`sidecard redeliver`), its webhook is set anew or deleted, or its task expires.
    """
    import asyncio

    from sidecard.cli.project import Project
    from sidecard.cli.stores import reaching, stores
    from sidecard.tasks.dead import dead_letters

    console = Console(as_json=as_json)

    async def work() -> "list[DeadLetter]":
        async with stores(Project()) as opened:
            store = opened.of(agent)
            with reaching(agent):
                return await dead_letters(store)

    letters = asyncio.run(work())
    for letter in letters:
        for line in _lines(letter):
            console.line(line)
    if not letters:
        console.line(f"{agent} has given up no delivery")
    console.result(ok=True, undelivered=[_values(letter) for letter in letters])


def redeliver(
    agent: Agent,
    task: Annotated[str, typer.Argument(help="Only of this task; default: all that `undelivered` lists.")] = "",
    to: Annotated[
        str,
        typer.Option(
            help="Only to this receiver: a webhook by the id of its configuration, `topic`, or, for its cancel, the id "
            "of a delegated task."
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Have deliveries made after all that were given up: every event that was missed, in order; for operators.

    The agent is asked through its own sidecar, with that sidecar's token. Each is then tried as if it were new, from
    the event on that could not be delivered, for SIDECARD_DELIVERY_DAYS before it is given up again.
    """
    import asyncio

    from sidecard.cli.project import Project
    from sidecard.cli.stores import reaching, stores
    from sidecard.errors import AgentUnavailable, ConfigurationError
    from sidecard.tasks.dead import ask_for, dead_letters, taken

    console = Console(as_json=as_json)

    async def work() -> "tuple[list[DeadLetter], bool]":
        async with stores(Project()) as opened:
            store = opened.writable(agent)
            with reaching(agent):
                known = await dead_letters(store)
                wanted = [letter for letter in known if task in ("", letter.task_id) and to in ("", _to(letter))]
                if not wanted and (task or to):
                    raise ConfigurationError(
                        f"{agent} has given up no such delivery: see `sidecard undelivered {agent}`."
                    )
                if not await ask_for(store, wanted):
                    raise AgentUnavailable(
                        f"{agent} has yet to do what it was asked before: see that it runs, try again."
                    )
                return wanted, await taken(store, wanted, TAKEN_SECONDS)

    letters, done = asyncio.run(work())
    for letter in letters:
        console.line(f"{_where(letter)}: {_what(letter)} to be delivered again")
    if not letters:
        console.line(f"{agent} has given up no delivery")
    elif not done:
        console.line(f"[yellow]{agent} was asked and has not answered: it does so as soon as it runs[/yellow]")
    console.result(ok=True, taken=done, redelivered=[_values(letter) for letter in letters])


def _lines(letter: "DeadLetter") -> "list[str]":
    from sidecard.cli.show import one_line, plain
    from sidecard.tasks.state import iso

    why = f"{letter.attempts} attempts since {iso(letter.since)}, the last: {plain(one_line(letter.problem))}"
    return [f"{_where(letter)}  [yellow]{_what(letter)}[/yellow]", f"    [dim]{why}[/dim]"]


def _where(letter: "DeadLetter") -> str:
    from sidecard.cli.show import one_line, plain

    to = f"webhook {letter.config_id} to {letter.url}" if letter.url else "the topic"
    if letter.child:
        to = f"cancel of {letter.agent}'s task {letter.child}"
    return f"[dim]task {plain(letter.task_id)}[/dim]  {plain(one_line(to))}"


def _what(letter: "DeadLetter") -> str:
    return "1 event" if letter.waiting == 1 else f"{letter.waiting} events"


def _to(letter: "DeadLetter") -> str:
    """What `--to` names it by."""
    return letter.child or letter.config_id or TOPIC


def _values(letter: "DeadLetter") -> dict[str, object]:
    from sidecard.tasks.state import iso

    return {
        "task": letter.task_id,
        "webhook": "" if letter.child else letter.config_id or TOPIC,
        "url": letter.url,
        "agent": letter.agent,
        "child": letter.child,
        "since": iso(letter.since),
        "attempts": letter.attempts,
        "problem": letter.problem,
        "events": letter.waiting,
    }
