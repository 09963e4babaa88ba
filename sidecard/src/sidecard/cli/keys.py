"""`sidecard keys` and `sidecard trust`: the keys that our agents sign with, and those of others that are believed."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidecard.cli.console import Console, at_terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sidecard.cli.keyring import Key

PANEL = "The estate"
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]
Agent = Annotated[str, typer.Argument(help="App-id of the agent.")]
Publisher = Annotated[str, typer.Argument(help="The publisher's name, as its cards say it (provider.organization).")]

keys = typer.Typer(help="The keys that our agents sign their cards with: list, rotate, retire.")
trust = typer.Typer(help="The publishers whose cards are believed: list, pin, unpin.")


def register(app: typer.Typer) -> None:
    """Add both groups to the command line."""
    app.add_typer(keys, name="keys", rich_help_panel=PANEL, invoke_without_command=True)
    app.add_typer(trust, name="trust", rich_help_panel=PANEL, invoke_without_command=True)


@keys.callback()
def _list_keys(context: typer.Context, as_json: Json = False) -> None:
    """List the keys of our agents, with their age and use; --json has the public halves, for partners to pin."""
    if context.invoked_subcommand is None:
        _list(as_json=as_json, own=True)


@keys.command("rotate")
def rotate(agent: Agent, as_json: Json = False) -> None:
    """Make an agent a new key beside the old one: its cards then bear the signatures of both.

    The new public key is pinned at once. Once everybody who pins the old one knows the new one too,
    `sidecard keys retire` ends the overlap.
    """
    from sidecard.cli.keyring import RESTART, Keyring
    from sidecard.cli.project import Project

    console = Console(as_json=as_json)
    made = Keyring(Project()).rotate(agent)
    console.line(f"{agent} has the new key {made.kid}, thumbprint {made.thumbprint}. {RESTART}")
    console.line(f"When all who pin {agent}'s key know this one: `sidecard keys retire {agent}`")
    console.result(ok=True, agent=agent, kid=made.kid, thumbprint=made.thumbprint, public=made.public)


@keys.command("retire")
def retire(
    agent: Agent,
    kid: Annotated[str, typer.Argument(help="Only this key; default: all but the newest.")] = "",
    as_json: Json = False,
) -> None:
    """Remove an agent's old keys: nothing is signed with them any more, and no card is believed through them."""
    from sidecard.cli.keyring import RESTART, Keyring
    from sidecard.cli.project import Project

    console = Console(as_json=as_json)
    retired = Keyring(Project()).retire(agent, kid)
    console.line(f"{agent} no longer has {', '.join(retired)}. {RESTART}")
    console.result(ok=True, agent=agent, retired=retired)


@trust.callback()
def _list_trust(context: typer.Context, as_json: Json = False) -> None:
    """List the publishers whose cards are believed, by which keys."""
    if context.invoked_subcommand is None:
        _list(as_json=as_json, own=False)


@trust.command("pin")
def pin(
    publisher: Publisher,
    file: Annotated[Path, typer.Argument(help="Its public key: a JWK, a JWK Set, or PEM.")],
    *,
    kid: Annotated[str, typer.Option(help="The key's name, where the file has none.")] = "",
    agents: Annotated[str, typer.Option(help="The agents whose cards it may sign, by commas; default: all.")] = "",
    thumbprint: Annotated[str, typer.Option(help="The one that the publisher told you; then nothing is asked.")] = "",
    as_json: Json = False,
) -> None:
    """Believe the cards that a publisher signs with this key, once you have compared its thumbprint (RFC 7638)."""
    from sidecard.cli import keyring
    from sidecard.cli.project import Project
    from sidecard.cli.show import plain
    from sidecard.errors import ConfigurationError

    console = Console(as_json=as_json)
    ring = keyring.Keyring(Project())
    found = keyring.read_public(file, kid, [name.strip() for name in agents.split(",") if name.strip()])
    prints = [keyring.thumbprint(jwk) for jwk in found]
    for jwk, shown in zip(found, prints, strict=True):
        console.line(f"{plain(publisher)}: key {plain(str(jwk['kid']))}, {jwk['alg']}, thumbprint {shown}")
    if thumbprint and not keyring.confirmed(found, thumbprint):
        raise ConfigurationError(f"{file} has thumbprint {', '.join(prints)}, not {thumbprint}: ask the publisher.")
    if not thumbprint:
        if as_json or not at_terminal():
            raise ConfigurationError("There is nobody to ask: give the thumbprint that its publisher told you.")
        typer.confirm(
            "Ask the publisher for its thumbprint, by another way than the file came. Is it this?", abort=True
        )
    ring.pin(publisher, found)
    console.line(f"pinned: cards of {plain(publisher)} are believed. {keyring.RESTART}")
    console.result(ok=True, publisher=publisher, thumbprints=prints)


@trust.command("unpin")
def unpin(
    publisher: Publisher,
    kid: Annotated[str, typer.Argument(help="Only this key; default: all of them.")] = "",
    as_json: Json = False,
) -> None:
    """Believe no card any more that a publisher signs with this key."""
    from sidecard.cli.keyring import RESTART, Keyring
    from sidecard.cli.project import Project
    from sidecard.cli.show import plain

    console = Console(as_json=as_json)
    gone = Keyring(Project()).unpin(publisher, kid)
    console.line(f"{plain(publisher)}: {plain(', '.join(gone))} no longer believed. {RESTART}")
    console.result(ok=True, publisher=publisher, unpinned=gone)


def _list(*, as_json: bool, own: bool) -> None:
    from sidecard.cli.keyring import Keyring
    from sidecard.cli.project import Project

    console = Console(as_json=as_json)
    ring = Keyring(Project())
    found = list(ring.own() if own else [*ring.own(), *ring.foreign()])
    for line in _lines(found):
        console.line(line)
    console.result(ok=True, publisher=ring.publisher, keys=[asdict(key) for key in found])


def _lines(found: "Iterable[Key]") -> "Iterator[str]":
    from datetime import UTC, datetime

    from sidecard.cli.show import plain

    shown = list(found)
    width = max((len(key.kid) for key in shown), default=0)
    publisher = None
    for key in shown:
        if key.publisher != publisher:
            publisher = key.publisher
            yield f"[bold]{plain(publisher)}[/bold]"
        age = f"{(datetime.now(UTC) - key.made).days} days old" if key.made else "of unknown age"
        signs = "cards of all its agents" if key.agents is None else f"cards of {', '.join(key.agents) or 'nobody'}"
        what = key.use if key.agent else f"trusted for {signs}"
        yield f"  {plain(key.kid.ljust(width))}  {plain(what)}, {age}  [dim]{key.thumbprint}[/dim]"
