"""`make tour`."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console as RichConsole

from demo.collector import Collector
from foreign import openid, parties
from sidecard import telemetry
from sidecard.cli.console import Console
from sidecard.cli.project import Project
from sidecard.cli.system import System
from sidecard.errors import ConfigurationError, SidecardError
from tour import actions, cards, desk, handshake, registry, trace
from tour.impostor import Impostor
from tour.stage import ProofFailed, Stage

Proof = Callable[[Stage], Awaitable[None]]
PROOFS: tuple[tuple[str, Proof], ...] = (
    ("a handshake with an agent made with Google's ADK, in both directions", handshake.prove),
    ("a card's signature is verified, and a tampered card refused", cards.prove),
    ("an explicit action for each terminal state, with idempotent retries", actions.prove),
    ("one trace across the vendor boundary", trace.prove),
    ("the registry, and a blocked injection", registry.prove),
)
CLIENTS = {
    "clients": [parties.client(name) for name in (desk.GUIDE, desk.PARTNER)],
    "scopes": f"{handshake.RAIL} {handshake.SEARCH}",
}


def main() -> None:
    """Start the desk and its neighbours, prove, and stop it all, whatever happens. Exits 0 only if all was proven."""
    signal.signal(signal.SIGTERM, _interrupt)
    console, out = Console(), RichConsole(highlight=False, width=None if sys.stdout.isatty() else 120)
    try:
        _tour(Project(), console, out)
    except (SidecardError, ProofFailed, RuntimeError) as error:
        console.failure(error)
        sys.exit(1)
    except KeyboardInterrupt:
        console.failure("interrupted; everything that was started is stopped")
        sys.exit(130)
    out.rule("all five are proven")


def _tour(project: Project, console: Console, out: RichConsole) -> None:
    if any(System(project).healthy().values()):
        raise ConfigurationError("the desk is up already: `make down` first, the tour starts and stops its own")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tour-", ignore_cleanup_errors=True)))
        collector = stack.enter_context(Collector())
        impostor = stack.enter_context(Impostor())
        with console.phase("an OpenID provider, and an agent made with ADK"):
            provider = stack.enter_context(openid.running(CLIENTS))
            railways = stack.enter_context(parties.railways(provider.issuer))
        with console.phase("a copy of the project"):
            copy = desk.made(project, folder, provider.issuer, railways, impostor.url)
        # Everything that is started below inherits where to send its spans.
        os.environ.update(collector.environment())
        system = System(copy, console=console)
        try:
            system.up()
            asyncio.run(_prove(Stage(copy, system, provider, railways, impostor, collector, out), console))
        finally:
            with console.phase("stop everything"):
                system.down()


async def _prove(stage: Stage, console: Console) -> None:
    traces = telemetry.configure("user", otlp_endpoint=stage.collector.url)
    try:
        with telemetry.span("a journey by rail and air"):
            await _proof(1, stage, console)
    finally:
        await asyncio.to_thread(traces.shutdown)
    for number in range(2, len(PROOFS) + 1):
        await _proof(number, stage, console)


async def _proof(number: int, stage: Stage, console: Console) -> None:
    title, prove = PROOFS[number - 1]
    stage.out.rule(f"{number}. {title}")
    with console.phase(f"proof {number}"):
        try:
            await prove(stage)
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise ProofFailed(f"proof {number} has failed, {title}: {reason}") from error


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
