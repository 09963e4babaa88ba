"""`sidecard publish`: records what agents promise their callers, and refuses what would break those."""

from pathlib import Path
from typing import Annotated

import typer

from sidecard.cli.console import Console


def publish(
    agent: Annotated[str, typer.Argument(help="App-id of the agent; default: all.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")] = False,
    project: Annotated[Path, typer.Option(help="The project's folder.")] = Path(),
) -> None:
    """Record what agents promise their callers (agents/<name>/contract.json), for `sidecard check` to compare with.

    What breaks callers is refused without a new major version of the agent, what only adds without a new minor one.
    """
    from sidecard.check.contracts import file_of, refused
    from sidecard.check.estate import Estate
    from sidecard.contract import Published, number_of
    from sidecard.errors import ConfigurationError

    console = Console(as_json=as_json)
    estate = Estate(project.resolve())
    agents = estate.agents
    if estate.findings:
        first = estate.findings[0]
        raise ConfigurationError(f"{first.file} {first.problem}: {first.fix}.")
    if agent and agent not in agents:
        raise ConfigurationError(f"There is no agent {agent!r}; there are: {', '.join(agents) or 'none'}.")
    written: dict[str, str] = {}
    for name in [agent] if agent else sorted(agents):
        number_of(agents[name].version)
        present = Published.of(agents[name].version, agents[name].contracts)
        published = Published.read(estate.root / file_of(name))
        if published == present:
            continue
        refusals = list(refused(name, published, present)) if published else []
        if refusals:
            reasons = "; ".join(finding.problem for finding in refusals)
            raise ConfigurationError(
                f"{name} is not published: {reasons}. {refusals[0].fix[0].upper()}{refusals[0].fix[1:]}."
            )
        present.write(estate.root / file_of(name))
        written[name] = present.version
        console.line(f"{name} {present.version}: {file_of(name)}, to be committed")
    if not written:
        console.line("everything is published")
    console.result(ok=True, published=written)
