"""`sidecard check`: what disagrees in a project."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sidecard.cli.console import Console


def check(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")] = False,
    project: Annotated[Path, typer.Option(help="The project's folder.")] = Path(),
) -> None:
    """Say what disagrees between agents, callers, dapr.yaml, components, resiliency, compose and k8s.

    Exit code 1 when something does; warnings alone fail nothing.
    """
    from sidecard.check import check as find

    console = Console(as_json=as_json)
    findings = find(project)
    errors = [finding for finding in findings if finding.level == "error"]
    for finding in findings:
        colour = "red" if finding.level == "error" else "yellow"
        console.line(f"[{colour}]{escape(finding.file)}[/{colour}]: {escape(finding.problem)}")
        console.line(f"    [dim]{escape(finding.fix)}[/dim]")
    count = f"{len(errors)} disagreement{'s' if len(errors) > 1 else ''}"
    console.line(count if errors else "[green]everything agrees[/green]")
    console.result(ok=not errors, findings=[finding.as_dict() for finding in findings])
    if errors:
        raise typer.Exit(1)
