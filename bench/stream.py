"""Streams of chunks: chunks per second, which must not depend on how long a stream is."""

from collections.abc import Callable
from dataclasses import replace

from bench.load import Order
from bench.processes import load
from bench.report import Report
from bench.rounds import Rounds

CALLERS = 8


def streams(
    ours: Order, memory: Order, sizes: tuple[int, int, int], *, chunks: int, rounds: Rounds, report: Report
) -> None:
    """Streams of three sizes, some `chunks` in all, with 8 callers at once; the middle one against the SDK's engine.

    `stream_vs_memory_<middle>` and `stream_<longest>_vs_<shortest>`.
    """
    least, middle, most = sizes
    contenders = {f"ours {size}": _measure(ours, size, chunks) for size in sizes}
    contenders[f"memory {middle}"] = _measure(memory, middle, chunks)
    outcome = rounds.race(contenders)
    report.figures(f"streams, {CALLERS} callers", outcome, "chunks/s")
    report.result(f"stream_vs_memory_{middle}", outcome.ratio(f"ours {middle}", f"memory {middle}"))
    report.result(f"stream_{most}_vs_{least}", outcome.ratio(f"ours {most}", f"ours {least}"))


def _measure(order: Order, size: int, chunks: int) -> Callable[[], float]:
    order = replace(
        order,
        method="SendStreamingMessage",
        text=f"chunks {size}",
        chunks=size,
        callers=CALLERS,
        count=max(CALLERS, chunks // size),
        warm_up=1,
    )
    return lambda: load(order).per_second * size
