"""`sidecard revoke`, `restore` and `revoked`: who is let in no more, whatever they prove to be."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sidecard.cli.console import Console

if TYPE_CHECKING:
    from sidecard.cli.project import Project
    from sidecard.revocations import RevocationList

PANEL = "The estate"
Who = Annotated[
    str,
    typer.Argument(
        help="A caller's name, app:<app-id>, key:<first 16 digits of its SHA-256>, client:<client id>, "
        "token:<its jti> or certificate:<SHA-256 thumbprint>."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (revoke, restore, revoked):
        app.command(command.__name__, rich_help_panel=PANEL)(command)


def revoke(
    who: Who,
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the list.")] = "",
    as_json: Json = False,
) -> None:
    """Let somebody in no more, at any agent, and end what is being told to them; for operators. Within 5 seconds."""
    from sidecard.cli import way
    from sidecard.cli.project import Project

    project, console = Project(), Console(as_json=as_json)
    mark = _mark(who)
    _check_known(project, mark)

    async def work() -> "RevocationList":
        async with way.revocations(project) as list_:
            return await list_.revoke(mark, reason)

    _done(
        console, work, mark, f"{mark} is revoked: within 5 s nobody lets it in; `sidecard restore {who}` takes it back"
    )


def restore(who: Who, as_json: Json = False) -> None:
    """Let somebody in again that was revoked; for operators."""
    from sidecard.cli import way
    from sidecard.cli.project import Project

    project, console = Project(), Console(as_json=as_json)
    mark = _mark(who)

    async def work() -> "RevocationList":
        async with way.revocations(project) as list_:
            return await list_.restore(mark)

    _done(console, work, mark, f"{mark} is let in again, within 5 s, where agents/callers.yaml says so")


def revoked(as_json: Json = False) -> None:
    """Show who is revoked: since when, by whose word, and why."""
    import asyncio

    from rich.markup import escape

    from sidecard.cli import way
    from sidecard.cli.project import Project

    console = Console(as_json=as_json)

    async def work() -> "RevocationList":
        async with way.revocations(Project()) as list_:
            return await list_.all()

    listed = asyncio.run(work())
    for one in listed.revoked:
        why = f": {escape(one.reason)}" if one.reason else ""
        console.line(
            f"{escape(one.mark)}  [dim]since {one.since:%Y-%m-%d %H:%M:%S} UTC, by {escape(one.by)}{why}[/dim]"
        )
    if not listed.revoked:
        console.line("nobody is revoked")
    console.result(ok=True, revoked=[one.model_dump(mode="json") for one in listed.revoked])


def _mark(who: str) -> str:
    from sidecard.callers.denied import mark_of
    from sidecard.errors import ConfigurationError

    try:
        return mark_of(who)
    except ValueError as error:
        raise ConfigurationError(f"{who!r} names nobody: {error}.") from None


def _check_known(project: "Project", mark: str) -> None:
    """Raises ConfigurationError for a caller that there is not: whoever mistypes in a hurry must learn it."""
    from sidecard.callers import CallersFile
    from sidecard.errors import ConfigurationError

    kind, _, name = mark.partition(":")
    if kind not in {"caller", "app"} or "/" in name:  # <issuer>/<person> are not listed one by one
        return
    callers = CallersFile.read(project.root / "agents" / "callers.yaml").callers
    known = set(callers) if kind == "caller" else {app.app_id for app in project.apps}
    if name not in known:
        raise ConfigurationError(f"There is no {kind} {name!r}; there are: {', '.join(sorted(known))}.")


def _done(console: Console, work: Callable[[], Coroutine[Any, Any, "RevocationList"]], mark: str, words: str) -> None:
    import asyncio

    from rich.markup import escape

    listed = asyncio.run(work())
    console.line(escape(words))
    console.result(ok=True, mark=mark, revoked=[one.mark for one in listed.revoked])
