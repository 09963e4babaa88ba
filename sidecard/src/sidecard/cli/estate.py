"""`sidecard agents`, `enrol` and `dismiss`: the inventory of the estate, and who from outside belongs to it."""

from typing import TYPE_CHECKING, Annotated

import typer

from sidecard.cli.console import Console, at_terminal

if TYPE_CHECKING:
    from sidecard.registry import Enrolment

PANEL = "The estate"
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (agents, enrol, dismiss):
        app.command(command.__name__, rich_help_panel=PANEL)(command)


def agents(
    name: Annotated[str, typer.Argument(help="Only this one, with all that is known of it.")] = "",
    as_json: Json = False,
) -> None:
    """Show the inventory: which agents there are, who published them, what they call and what calls them."""
    import asyncio

    from sidecard.cli import inventory, way
    from sidecard.cli.project import Project
    from sidecard.errors import ConfigurationError

    console = Console(as_json=as_json)

    async def listed() -> "list[Enrolment]":
        async with way.registry(Project()) as registry:
            return await registry.agents()

    estate = asyncio.run(listed())
    shown = [one for one in estate if name in ("", one.app_id)]
    if name and not shown:
        raise ConfigurationError(f"'{name}' is not in the registry; there are: {', '.join(o.app_id for o in estate)}.")
    lines = inventory.detail(shown[0], estate) if name else inventory.table(estate, width=console.width)
    for line in lines:
        console.line(line)
    console.result(ok=True, agents=[inventory.values(one, estate) for one in shown])


def enrol(
    url: Annotated[str, typer.Argument(help="Base URL of an agent outside the mesh.")],
    *,
    name: Annotated[str, typer.Option(help="What it is to be called here; default: made of its card's name.")] = "",
    publisher: Annotated[str, typer.Option(help="Who must have published it.")] = "",
    pin: Annotated[
        bool, typer.Option("--pin", help="Believe the very card that it serves now, though nobody signed it.")
    ] = False,
    digest: Annotated[
        str, typer.Option(help="With --pin: the digest that its publisher told you; then nothing is asked.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Enrol an agent that lies outside the mesh, or take its new card; for operators.

    The registry fetches its card and verifies it against the keys pinned for its publisher (`sidecard trust pin`).
    The card of an agent that does not sign can be pinned itself, by --pin: it is shown, and enrolled once you say so.
    """
    import asyncio

    from sidecard.cli import inventory, way
    from sidecard.cli.project import Project
    from sidecard.errors import ConfigurationError
    from sidecard.registry import ForeignRequest

    if digest and not pin:
        raise ConfigurationError("--digest goes with --pin: a card that is signed needs none.")
    if pin and not digest and (as_json or not at_terminal()):
        raise ConfigurationError("There is nobody to ask: give the digest that its publisher told you by --digest.")
    console = Console(as_json=as_json)
    request = inventory.request(url, name=name, publisher=publisher, pin=pin, digest=digest)

    async def call(what: ForeignRequest, *, look: bool) -> "Enrolment":
        async with way.registry(Project()) as registry:
            return await (registry.look_at(what) if look else registry.enrol_foreign(what))

    if pin and not digest:
        shown = asyncio.run(call(request, look=True))
        for line in inventory.detail(shown, []):
            console.line(line)
        console.line("[yellow]Nobody has signed this card: what it says is only what this address answered.[/yellow]")
        typer.confirm("Ask its publisher for the digest. Is it this one, and shall the agent be enrolled?", abort=True)
        request = request.model_copy(update={"digest": shown.card_digest})
    enrolled = asyncio.run(call(request, look=False))
    for line in inventory.detail(enrolled, []):
        console.line(line)
    console.line(f"[green]enrolled[/green] as {enrolled.app_id}: `sidecard dismiss {enrolled.app_id}` ends that")
    console.result(ok=True, agent=inventory.values(enrolled, []))


def dismiss(
    name: Annotated[str, typer.Argument(help="Its name in the registry.")],
    as_json: Json = False,
) -> None:
    """Take an agent off the inventory; for operators. Agents of the mesh that run enrol themselves again."""
    import asyncio

    from sidecard.cli import way
    from sidecard.cli.project import Project

    console = Console(as_json=as_json)

    async def work() -> None:
        async with way.registry(Project()) as registry:
            await registry.dismiss(name)

    asyncio.run(work())
    console.line(f"{name} is dismissed: within 30 s nobody calls it any more")
    console.result(ok=True, dismissed=name)
