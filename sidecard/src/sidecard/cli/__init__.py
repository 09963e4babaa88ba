"""The `sidecard` command. Each group of commands is a module; here they come together, and errors become lines."""

import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from sidecard.cli import estate, granting, keys, login, revealing, revoke, talk
from sidecard.cli.audit import audit
from sidecard.cli.check import check
from sidecard.cli.console import Console
from sidecard.cli.dead import redeliver, undelivered
from sidecard.cli.log import log
from sidecard.cli.publish import publish
from sidecard.cli.replay import replay
from sidecard.errors import SidecardError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Works with the desk's agents."
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]


@app.command("up", rich_help_panel="The system")
def _up(as_json: Json = False) -> None:
    """Start everything and wait until every agent is healthy."""
    from sidecard.cli.system import System

    console = Console(as_json=as_json)
    ready = System(console=console).up()
    console.line("[green]up[/green]: `make down` stops it, `make restart agent=flights` starts one app anew")
    console.result(ok=True, ready=ready, phases=console.phases)


@app.command("down", rich_help_panel="The system")
def _down(as_json: Json = False) -> None:
    """Stop everything that was started from this checkout."""
    from sidecard.cli.system import System

    console = Console(as_json=as_json)
    with console.phase("stop"):
        stopped = System(console=console).down()
    console.line(f"{stopped} processes stopped" if stopped else "nothing was running")
    console.result(ok=True, stopped=stopped)


@app.command("restart", rich_help_panel="The system")
def _restart(agent: Annotated[str, typer.Argument(help="App-id, as in dapr.yaml.")], as_json: Json = False) -> None:
    """Start one app anew; its sidecar keeps running."""
    from sidecard.cli.system import System

    console = Console(as_json=as_json)
    seconds = System(console=console).restart(agent)
    console.done(f"{agent} is healthy again", seconds)
    console.result(ok=True, agent=agent, seconds=seconds)


@app.command("sentry", rich_help_panel="The system")
def _sentry(as_json: Json = False) -> None:
    """Start sentry alone; then `runtime/bin/dapr run -f .` works by hand."""
    from sidecard.cli.system import System

    console = Console(as_json=as_json)
    System(console=console).start_sentry()
    console.line("sentry runs: now `runtime/bin/dapr run -f .`; `make down` stops sentry")
    console.result(ok=True)


@app.command("runtime", rich_help_panel="Set-up")
def _runtime(as_json: Json = False) -> None:
    """Find daprd, sentry and the Dapr CLI, or build them."""
    from sidecard.cli import runtime
    from sidecard.cli.project import Project

    console = Console(as_json=as_json)
    with console.phase("Dapr programs"):
        programs = runtime.ensure(Project(), console)
    console.result(ok=True, programs=programs, phases=console.phases)


@app.command("bootstrap", rich_help_panel="Set-up")
def _bootstrap(as_json: Json = False) -> None:
    """Make the keys and tokens that are missing."""
    from sidecard.cli import bootstrap
    from sidecard.cli.project import Project

    console = Console(as_json=as_json)
    made = bootstrap.ensure(Project())
    console.line(f"made in .sidecard/: {', '.join(made)}" if made else "everything is there")
    console.result(ok=True, made=made)


app.command("check", rich_help_panel="Set-up")(check)
app.command("publish", rich_help_panel="Set-up")(publish)
talk.register(app)
login.register(app)
estate.register(app)
revoke.register(app)
granting.register(app)
revealing.register(app)
keys.register(app)
app.command("log", rich_help_panel="Looking into tasks")(log)
app.command("audit", rich_help_panel="Looking into tasks")(audit)
app.command("replay", rich_help_panel="Looking into tasks")(replay)
app.command("undelivered", rich_help_panel="Looking into tasks")(undelivered)
app.command("redeliver", rich_help_panel="Looking into tasks")(redeliver)


def main() -> None:
    """Runs the command line. A known error is one line and exit code 1, Ctrl-C or SIGTERM exit code 130."""
    signal.signal(signal.SIGTERM, _interrupt)  # a stopped `up` must stop what it started
    as_json = "--json" in sys.argv
    try:
        app(standalone_mode=True)
    except SidecardError as error:
        Console(as_json=as_json).failure(error)
        sys.exit(1)
    except KeyboardInterrupt:
        Console(as_json=as_json).failure("interrupted")
        sys.exit(130)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
