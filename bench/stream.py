"""Streams of chunks: chunks per second, which must not depend on how long a stream is."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.load import Order
from bench.processes import load
from bench.report import Report
from bench.rounds import Rounds

CALLERS = 8
AGAINST_THEIRS = 1_000


def streams(ours: Order, memory: Order, sizes: Sequence[int], *, chunks: int, rounds: Rounds, report: Report) -> None:
    """Streams of each size, some `chunks` in all, with 8 callers at once; one of the sizes against the SDK's engine."""
    contenders = {f"ours {size}": _measure(ours, size, chunks) for size in sizes}
    if AGAINST_THEIRS in sizes:
        contenders[f"memory {AGAINST_THEIRS}"] = _measure(memory, AGAINST_THEIRS, chunks)
    outcome = rounds.race(contenders)
    report.figures(f"streams, {CALLERS} callers", outcome, "chunks/s")
    if AGAINST_THEIRS in sizes:
        ratio = outcome.ratio(f"ours {AGAINST_THEIRS}", f"memory {AGAINST_THEIRS}")
        report.result(f"stream_vs_memory_{AGAINST_THEIRS}", ratio)
    if len(sizes) > 1:
        least, most = min(sizes), max(sizes)
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
