"""`sidecard log`: what is recorded of a task, and of everything that was delegated from it."""

from typing import Annotated

import typer

from sidecard.cli.console import Console


def log(
    agent: Annotated[str, typer.Argument(help="App-id of the agent.")],
    task: Annotated[str, typer.Argument(help="The task; default: your newest one there.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")] = False,
) -> None:
    """Show a task's log, with those of the tasks it delegated, as one tree; for operators.

    It is read through each agent's own sidecar with that sidecar's token, and nothing is written. Every line has its
    place (entry and number within), the time of the entry, and what was recorded.
    """
    import asyncio

    from sidecard.cli import records
    from sidecard.cli.project import Project
    from sidecard.cli.stores import newest_task, no_task, stores
    from sidecard.tasks.tree import Logged, read_tree

    console = Console(as_json=as_json)
    project = Project()

    async def work() -> Logged:
        async with stores(project) as opened:
            return await read_tree(opened.read_log, agent, task or await newest_task(project, agent))

    logged = asyncio.run(work())
    if logged.missing:
        raise no_task(agent, logged.task_id)
    for line in records.lines(logged):
        console.line(line)
    console.result(ok=True, **records.as_values(logged))
