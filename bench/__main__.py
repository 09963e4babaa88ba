"""`make bench`: measures, prints a table and one line of JSON, and keeps each figure in bench/results.json."""

import argparse
import contextlib
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from bench.control_plane import workflow
from bench.cost import costs
from bench.databases import postgresql, redis
from bench.estate import estate
from bench.history import history
from bench.load import Order
from bench.memory import open_streams
from bench.mesh import mesh
from bench.ours import DELEGATIONS, ERRANDS
from bench.processes import theirs
from bench.quotas import quotas
from bench.report import Report
from bench.rounds import Rounds
from bench.send import latency, throughput
from bench.stream import streams
from sidecard.errors import ConfigurationError

RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True)
class Size:
    """How much is measured: seconds of a race, tasks and chunks in all.

    Races are short and rounds many: what a shared machine gives changes within seconds, and only what is measured side
    by side can be compared.
    """

    seconds: float = 2.0
    tasks: int = 1_000
    sizes: tuple[int, int, int] = (100, 1_000, 10_000)
    chunks: int = 20_000
    streams: int = 2_000
    finished: int = 100_000


QUICK = Size(seconds=0.1, tasks=100, sizes=(10, 50, 100), chunks=400, streams=100, finished=1_000)


def main() -> None:
    """Run what is asked for. Everything that is started is stopped again, also after Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="how often everything is measured (default 11)")
    parser.add_argument("--quick", action="store_true", help="try the harness: little, and nothing is kept")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part only (may be repeated)")
    given = parser.parse_args()
    size, parts = (QUICK, given.only or ["sdk", "cost"]) if given.quick else (Size(), given.only or list(PARTS))
    report = Report(Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 120))
    kept = None if given.quick else RESULTS
    try:
        for part in parts:
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                PARTS[part](Path(folder), size, Rounds(given.rounds), report)
    except Exception:
        report.finish(kept)  # what was measured before is a result too
        raise
    report.finish(kept)


def _sdk(folder: Path, size: Size, rounds: Rounds, report: Report) -> None:
    """Our engine and the SDK's, on this machine at the same time."""
    with contextlib.ExitStack() as stack:
        system = stack.enter_context(estate(folder / "desk", ["ours"]))
        ours = system.direct("ours")
        memory, sqlite, bare = (
            Order(port=stack.enter_context(theirs(k, folder))) for k in ("memory", "sqlite", "bare")
        )
        spanless = Order(port=stack.enter_context(theirs("memory", folder, spans=False)))
        contenders = {"ours": ours, "memory": memory, "memory, its spans off": spanless, "sqlite": sqlite}
        eight = throughput(contenders, 8, size.seconds, rounds, report)
        report.result("send_vs_memory_8", eight.ratio("ours", "memory"))
        report.result("send_vs_sqlite_8", eight.ratio("ours", "sqlite"))
        many = throughput({"ours": ours, "memory": memory}, 32, size.seconds, rounds, report)
        report.result("send_vs_memory_32", many.ratio("ours", "memory"))
        latency(ours, bare, system.store("ours"), seconds=size.seconds, rounds=rounds, report=report)
        streams(ours, memory, size.sizes, chunks=size.chunks, rounds=rounds, report=report)


def _cost(folder: Path, size: Size, rounds: Rounds, report: Report) -> None:
    costs(size.tasks, size.sizes, report)


def _mesh(folder: Path, size: Size, rounds: Rounds, report: Report) -> None:
    with estate(folder / "desk", ["ours"], mesh=True) as system:
        mesh(system, size.seconds, rounds, report)


def _orchestrations(folder: Path, size: Size, rounds: Rounds, report: Report) -> None:
    """Five delegations in a row, as a task of ours and as a Dapr Workflow."""
    with estate(folder / "desk", ["ours", ERRANDS]) as system:
        try:
            with workflow(system, folder) as dapr:
                contenders = {"ours": system.direct(ERRANDS), "Dapr Workflow": dapr}
                outcome = throughput(contenders, 8, size.seconds, rounds, report, what=f"{DELEGATIONS} delegations")
                report.result("orchestrations_vs_workflow", outcome.ratio("ours", "Dapr Workflow"))
        except ConfigurationError as missing:
            report.say(f"Dapr Workflow is not measured: {missing}")


def _memory(folder: Path, size: Size, rounds: Rounds, report: Report) -> None:
    with estate(folder / "desk", ["ours"]) as system:
        open_streams(system, "ours", size.streams, report)


def _history(folder: Path, size: Size, rounds: Rounds, report: Report) -> None:
    with estate(folder / "desk", ["full", "empty"]) as system:
        history(system, size.finished, size.seconds, rounds, report)


def _quotas(folder: Path, size: Size, rounds: Rounds, report: Report) -> None:
    """A quiet tenant beside a noisy one, with the noisy one's quota and without."""
    quotas(folder / "desk", size.seconds, rounds, report)


def _databases(folder: Path, size: Size, rounds: Rounds, report: Report) -> None:
    """Our engine on stores that replicas can share, against the SDK's engine in memory."""
    for name, database in (("postgresql", postgresql), ("redis", redis)):
        with contextlib.ExitStack() as stack:
            try:
                store = stack.enter_context(database())
            except ConfigurationError as missing:
                report.say(f"{name} is not measured: {missing}")
                continue
            system = stack.enter_context(estate(folder / f"desk-{name}", ["ours"], store))
            contenders = {
                name: system.direct("ours"),
                "memory": Order(port=stack.enter_context(theirs("memory", folder))),
            }
            outcome = throughput(contenders, 8, size.seconds, rounds, report)
            report.result(f"send_vs_memory_8_{name}", outcome.ratio(name, "memory"))


PARTS = {
    "sdk": _sdk,
    "cost": _cost,
    "mesh": _mesh,
    "orchestrations": _orchestrations,
    "memory": _memory,
    "history": _history,
    "databases": _databases,
    "quotas": _quotas,
}


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
