"""`sidecard login` and `logout`: people who sign in at their OpenID provider, to be known to agents by name."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sidecard.cli.console import Console

if TYPE_CHECKING:
    from sidecard.cli.sign_in import SignedIn

PANEL = "Talking to agents"
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (login, logout):
        app.command(command.__name__, rich_help_panel=PANEL)(command)


def login(
    agent: Annotated[str, typer.Argument(help="App-id of the agent to talk to.")],
    *,
    name: Annotated[str, typer.Option("--as", help="Name of the session; default: what the issuer calls you.")] = "",
    issuer: Annotated[str, typer.Option(help="Where to sign in, where agents/callers.yaml has several.")] = "",
    device: Annotated[bool, typer.Option("--device", help="Sign in on another device, by a code.")] = False,
    browser: Annotated[bool, typer.Option(help="Open the browser, or only print the address.")] = True,
    as_json: Json = False,
) -> None:
    """Sign in for an agent; then `sidecard send <agent> … --as <name>` speaks as you.

    The token is for that agent alone, kept in .sidecard/sessions and replaced when it expires.
    """
    import webbrowser

    from sidecard.cli import sessions, sign_in, signed_in
    from sidecard.cli.project import Project

    project, console = Project(), Console(as_json=as_json)
    if name:
        signed_in.check_name(project, name)
    asked = signed_in.ask(project, agent, issuer, name)

    def tell(*lines: str) -> None:
        for line in lines:
            print(line, file=sys.stderr, flush=True)

    def show(url: str) -> None:
        opened = browser and webbrowser.open(url)
        tell("Sign in, in the browser that opens, or here:" if opened else "Sign in here:", url)

    def show_device(page: str, code: str, complete: str) -> None:
        tell(f"On any device, open {page} and type {code}", *([f"or open {complete}"] if complete else []))

    done: SignedIn = sign_in.by_device(asked, show_device) if device else sign_in.by_browser(asked, show)
    name = name or done.subject
    signed_in.check_name(project, name)
    kept = sessions.Sessions(signed_in.folder(project))
    with kept.held(name):
        session = kept.read(name)
        person = (asked.metadata.issuer, asked.client, done.subject)
        if session is None or (session.issuer, session.client, session.subject) != person:
            session = sessions.Session(issuer=person[0], client=person[1], subject=person[2])
        session.tokens[asked.resource] = done.token
        kept.write(name, session)
    console.line(f'{name} is signed in: `sidecard send {agent} "…" --as {name}`, `sidecard logout {name}` ends it')
    console.result(ok=True, name=name, subject=done.subject, issuer=session.issuer, agent=agent, scope=done.token.scope)


def logout(
    name: Annotated[str, typer.Argument(help="Name of the session.")],
    as_json: Json = False,
) -> None:
    """End a session, here and at its issuer."""
    from sidecard.cli import signed_in
    from sidecard.cli.project import Project

    console = Console(as_json=as_json)
    told = signed_in.end(Project(), name)
    console.line(f"{name} is signed out" + ("" if told else "; its issuer could not be told, and may take its token"))
    console.result(ok=True, name=name, told=told)
