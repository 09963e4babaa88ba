"""`sidecard replay`: runs a task's skill over its log again, without effects, and says whether they agree."""

import importlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sidecard.cli.console import Console

if TYPE_CHECKING:
    from sidecard.agent import Agent
    from sidecard.cli.project import Project
    from sidecard.screening.vault import Vault
    from sidecard.tasks.comparison import Replay

DISAGREES = 1


def replay(
    agent: Annotated[str, typer.Argument(help="App-id of the agent.")],
    task: Annotated[str, typer.Argument(help="The task; default: your newest one there.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")] = False,
) -> None:
    """Run a task's skill, as its code is here, over the recorded steps, and compare what it makes; for operators.

    Nothing is written or sent: a recorded step returns what was recorded, and the first that is not stops its branch.
    Exit code 0 when log and replay agree, 1 when they do not or the log can't be read.
    """
    import asyncio

    from sidecard.callers import Callers, CallersFile
    from sidecard.cli.project import Project
    from sidecard.cli.stores import newest_task, no_task, stores
    from sidecard.tasks.replay import replay as replayed
    from sidecard.tasks.states import state_name

    console = Console(as_json=as_json)
    project = Project()

    async def work() -> "tuple[str, Replay]":
        async with stores(project) as opened:
            task_id = task or await newest_task(project, agent)
            folded, entries = await opened.read_log(agent, task_id)
            if not entries:
                raise no_task(agent, task_id)
            code = _code_of(project, agent)
            file = CallersFile.read(project.root / "agents" / "callers.yaml")
            scopes_of = Callers(agent, file, app_token="", api_keys={}).scopes_of
            outcome = await replayed(
                code, opened.of(agent), folded, entries, scopes_of, vault=_vault_of(project, agent)
            )
            return state_name(folded.state), outcome

    state, outcome = asyncio.run(work())
    for line in _lines(outcome, state):
        console.line(line)
    console.result(
        ok=outcome.agrees,
        state=state,
        replayed=outcome.state,
        steps=outcome.steps,
        outputs=outcome.outputs,
        stops=[{"step": s.key, "of": s.kind, "name": s.name, "begun": s.begun} for s in outcome.stops],
        disagreements=outcome.disagreements,
    )
    if not outcome.agrees:
        raise typer.Exit(DISAGREES)


def _lines(outcome: "Replay", state: str) -> "list[str]":
    from sidecard.cli.show import one_line, plain

    found = [f"[red]differs[/red]  {plain(one_line(words))}" for words in outcome.disagreements]
    stops = [
        f"[yellow]stops[/yellow]    at {plain(str(stop))}, "
        + ("begun and without an outcome yet" if stop.begun else "not recorded")
        for stop in outcome.stops
    ]
    did = f"{outcome.steps} recorded steps returned, {outcome.outputs} outputs as recorded"
    ends = f"ends {outcome.state}" if outcome.state else "does not end"
    verdict = "[green]agrees[/green]" if outcome.agrees else "[red]disagrees[/red]"
    return [*stops, *found, f"{verdict}: {did}; the log says {state}, the replay {ends}"]


def _vault_of(project: "Project", agent: str) -> "Vault | None":
    """What opens what was redacted in the agent's tasks; None where this project does not have its key."""
    from sidecard.cli.bootstrap import read_json
    from sidecard.screening.vault import Vault
    from sidecard.tasks.identity import task_id_keys

    secret = read_json(project.local / "secrets.json").get(agent, {}).get("task-id-key")
    if not secret:
        return None
    key, *former = task_id_keys(secret)
    return Vault(agent, key, former)


def _code_of(project: "Project", name: str) -> "Agent":
    """The agent as the code of this project has it. Raises ConfigurationError."""
    from sidecard.agent import Agent
    from sidecard.errors import ConfigurationError

    sys.path.insert(0, str(project.root))
    module = f"agents.{name}.agent"
    try:
        found = importlib.import_module(module).agent
    except Exception as error:
        raise ConfigurationError(f"{module} can't be imported: {type(error).__name__}: {error}") from error
    if not isinstance(found, Agent):
        raise ConfigurationError(f"{module} has no `agent`, made by `sidecard.Agent`")
    return found
