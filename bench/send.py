"""SendMessage of a trivial skill: tasks per second with several callers, and how long one caller waits."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from bench.floor import transaction_ms
from bench.load import Order
from bench.processes import load
from bench.report import Report
from bench.rounds import Outcome, Rounds


def throughput(
    contenders: Mapping[str, Order],
    callers: int,
    seconds: float,
    rounds: Rounds,
    report: Report,
    *,
    what: str = "SendMessage",
) -> Outcome:
    """Tasks per second of each contender, with so many callers at once."""
    orders = {name: replace(order, callers=callers, seconds=seconds) for name, order in contenders.items()}
    outcome = rounds.race({name: partial(_per_second, order) for name, order in orders.items()})
    report.figures(f"{what}, {callers} callers", outcome, "tasks/s")
    return outcome


def _per_second(order: Order) -> float:
    return load(order).per_second


def latency(
    ours: Order, bare: Order, store: tuple[int, int, str], *, seconds: float, rounds: Rounds, report: Report
) -> None:
    """How long one caller waits for a task, and for a stream's first event, against what can't be avoided.

    The transaction that counts goes over gRPC, as Dapr's SDK has it; ours over HTTP is shown beside it.
    """
    ours, bare = replace(ours, seconds=seconds), replace(bare, seconds=seconds)
    stream = replace(ours, method="SendStreamingMessage", text="chunks 10", chunks=10)
    outcome = rounds.race(
        {
            "ours": lambda: load(ours).p50_ms,
            "first event": lambda: load(stream).first_p50_ms,
            "bare route": lambda: load(bare).p50_ms,
            "bare transaction": lambda: transaction_ms("grpc", store, seconds),
            "bare transaction over HTTP": lambda: transaction_ms("http", store, seconds),
        }
    )
    report.figures("one caller, p50", outcome, "ms")
    report.result("send_p50_vs_floor", outcome.ratio("ours", "bare route", "bare transaction"))
    report.result("first_event_p50_vs_floor", outcome.ratio("first event", "bare route", "bare transaction"))
