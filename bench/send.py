"""SendMessage of a trivial skill: tasks per second with several callers, and how long one caller waits."""

from collections.abc import Mapping
from dataclasses import replace

from bench.floor import transaction_ms
from bench.load import Order
from bench.processes import load
from bench.report import Report
from bench.rounds import Rounds


def throughput(contenders: Mapping[str, Order], callers: int, seconds: float, rounds: Rounds, report: Report) -> None:
    """`send_vs_<contender>_<callers>` for each but `ours`."""
    orders = {name: replace(order, callers=callers, seconds=seconds) for name, order in contenders.items()}
    outcome = rounds.race({name: lambda order=order: load(order).per_second for name, order in orders.items()})  # type: ignore[misc]
    report.figures(f"SendMessage, {callers} callers", outcome, "tasks/s")
    for name in contenders:
        if name != "ours":
            report.result(f"send_vs_{name}_{callers}", outcome.ratio("ours", name))


def latency(ours: Order, bare: Order, store: tuple[int, str], seconds: float, rounds: Rounds, report: Report) -> None:
    """How long one caller waits for a task, and for a stream's first event, against what can't be avoided."""
    ours, bare = replace(ours, seconds=seconds), replace(bare, seconds=seconds)
    stream = replace(ours, method="SendStreamingMessage", text="chunks 10", chunks=10)
    outcome = rounds.race(
        {
            "ours": lambda: load(ours).p50_ms,
            "first event": lambda: load(stream).first_p50_ms,
            "bare route": lambda: load(bare).p50_ms,
            "bare transaction": lambda: transaction_ms(*store, seconds),
        }
    )
    report.figures("one caller, p50", outcome, "ms")
    report.result("send_p50_vs_floor", outcome.ratio("ours", "bare route", "bare transaction"))
    report.result("first_event_p50_vs_floor", outcome.ratio("first event", "bare route", "bare transaction"))
