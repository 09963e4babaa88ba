"""`make bench`: measures, prints a table and one line of JSON, and keeps that in bench/results.json."""

import argparse
import contextlib
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from bench.cost import costs
from bench.estate import estate
from bench.load import Order
from bench.processes import theirs
from bench.report import Report
from bench.rounds import Rounds
from bench.send import latency, throughput
from bench.stream import streams

RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True)
class Size:
    """How much is measured: seconds of a race, tasks and chunks in all."""

    seconds: float = 4.0
    tasks: int = 1_000
    sizes: tuple[int, ...] = (100, 1_000, 10_000)
    chunks: int = 20_000


QUICK = Size(seconds=0.3, tasks=100, sizes=(100, 1_000), chunks=2_000)


def main() -> None:
    """Run what is asked for. Everything that is started is stopped again, also after Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default 5)")
    parser.add_argument("--quick", action="store_true", help="try the harness: little of everything, nothing is kept")
    given = parser.parse_args()
    size = QUICK if given.quick else Size()
    report = Report(Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 120))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        _side_by_side(Path(folder), size, Rounds(given.rounds), report)
    costs(size.tasks, size.sizes, report)
    report.finish(None if given.quick else RESULTS)


def _side_by_side(folder: Path, size: Size, rounds: Rounds, report: Report) -> None:
    """Our engine and the SDK's, on this machine at the same time."""
    with contextlib.ExitStack() as stack:
        system = stack.enter_context(estate(folder / "desk", ["ours"]))
        ours = system.direct("ours")
        memory, sqlite, bare = (
            Order(port=stack.enter_context(theirs(k, folder))) for k in ("memory", "sqlite", "bare")
        )
        throughput({"ours": ours, "memory": memory, "sqlite": sqlite}, 8, size.seconds, rounds, report)
        throughput({"ours": ours, "memory": memory}, 32, size.seconds, rounds, report)
        latency(ours, bare, system.store("ours"), size.seconds, rounds, report)
        streams(ours, memory, size.sizes, size.chunks, rounds, report)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
