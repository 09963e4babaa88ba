"""`make demo`."""

import asyncio
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from rich.console import Console as RichConsole

from demo import story
from demo.collector import Collector
from demo.trace_tree import missing, render
from sidecard import telemetry
from sidecard.cli.console import Console
from sidecard.cli.project import Project
from sidecard.cli.system import System
from sidecard.errors import ConfigurationError, SidecardError

APPS = ("orchestrator", "flights", "expenses", "compliance", "vendors")
METRICS_SECONDS = 10
SERVICES = ("user", "desk sidecar", *APPS, *(f"{app} sidecar" for app in APPS))


def main() -> None:
    """Start the desk, play, and stop it again, whatever happens. Exits 0 only if all of it went as told."""
    signal.signal(signal.SIGTERM, _interrupt)
    console, out = Console(), RichConsole(highlight=False, width=None if sys.stdout.isatty() else 120)
    project = Project()
    system = System(project, console=console)
    try:
        if any(system.healthy().values()):
            raise ConfigurationError("the desk is up already: `make down` first, the demo starts and stops its own")
        with Collector() as collector:
            # Everything that is started below inherits where to send its spans.
            os.environ.update(collector.environment())
            try:
                system.up()
                asyncio.run(_play(project, system, collector, console, out))
            finally:
                with console.phase("stop everything"):
                    system.down()
    except (SidecardError, story.StoryWentWrong) as error:
        console.failure(error)
        sys.exit(1)
    except KeyboardInterrupt:
        console.failure("interrupted; everything that was started is stopped")
        sys.exit(130)


async def _play(project: Project, system: System, collector: Collector, console: Console, out: RichConsole) -> None:
    traces = telemetry.configure("user", otlp_endpoint=collector.url)
    out.rule("A flight and a receipt")
    with console.phase("the main job"), telemetry.span("plan a trip") as root:
        trace_id = f"{root.get_span_context().trace_id:032x}"
        await story.book_a_trip(project, out)
    await asyncio.to_thread(traces.shutdown)
    out.rule("A receipt above the limit, and a crash")
    with console.phase("the approval"):
        await story.approve_a_receipt(project, system, out)
    out.rule("The one trace of the main job")
    spans = await asyncio.to_thread(collector.wait_for, trace_id, SERVICES)
    out.print(render(spans, trace_id))
    if absent := missing(spans, SERVICES):
        raise story.StoryWentWrong(f"the trace lacks {', '.join(sorted(absent))}")
    await _metrics(collector, out)


async def _metrics(collector: Collector, out: RichConsole) -> None:
    """Which of our metrics have arrived, and from whom."""
    out.rule("Metrics")
    async with asyncio.timeout(METRICS_SECONDS):
        while "sidecard.task.duration" not in collector.metrics().get("compliance", ()):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    for service, names in sorted(collector.metrics().items()):
        if ours := sorted(name for name in names if name.startswith("sidecard.")):
            out.print(f"{service:<12} {', '.join(ours)}")


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
