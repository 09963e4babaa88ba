"""A quiet tenant, alone and beside one that sends without pause: with that one's quota, and with none.

All in the same minutes on the same agent, so the ratios count. The noise comes from a process on the same machine,
which takes some of it whatever it is answered.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from bench.estate import BOUNDLESS, LOADER, estate
from bench.load import Order, Seen
from bench.processes import load, noise
from bench.report import Report
from bench.rounds import Outcome, Rounds

NOISY = "noisy"
QUIET_TENANT, LIMITED, FREE = "quiet", "limited", "free"
QUOTA = {"rate": 50, "burst": 50, "concurrent": 4}
CONNECTIONS = 32
"""Of the noisy one; each sends again as soon as it is answered."""
QUIET_CALLERS = 2
PLENTY = 3_600.0


def quotas(folder: Path, seconds: float, rounds: Rounds, report: Report) -> None:
    """Measure it, and put three ratios of the quiet one's figures into the report."""
    grants = {"ours": ["bench:say"]}
    more = {
        LOADER: {"api_key": True, "tenants": [QUIET_TENANT], "grants": grants},
        NOISY: {"api_key": True, "tenants": [LIMITED, FREE], "grants": grants},
    }
    tenants = {LIMITED: QUOTA, FREE: BOUNDLESS, QUIET_TENANT: BOUNDLESS}
    with estate(folder, ["ours"], more_callers=more, quotas={"tenants": tenants}) as system:
        quiet = replace(system.direct("ours"), tenant=QUIET_TENANT, callers=QUIET_CALLERS, seconds=seconds)
        loud = replace(system.direct("ours", NOISY), callers=CONNECTIONS, seconds=PLENTY, expect='"jsonrpc"', warm_up=0)
        beside: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "alone": nullcontext,
            "beside noise within a quota": lambda: _noise(loud, LIMITED),
            "beside noise without": lambda: _noise(loud, FREE),
        }
        seen: dict[str, list[Seen]] = {name: [] for name in beside}
        for _ in range(rounds.count):
            for name, surroundings in beside.items():
                with surroundings():
                    seen[name].append(load(quiet))
    alone, within, without = seen
    for what, unit, values in (
        ("per second", "tasks/s", {name: [one.per_second for one in all_of] for name, all_of in seen.items()}),
        ("p50", "ms", {name: [one.p50_ms for one in all_of] for name, all_of in seen.items()}),
        ("p99", "ms", {name: [one.p99_ms for one in all_of] for name, all_of in seen.items()}),
    ):
        outcome = Outcome(values)
        report.figures(f"quiet tenant, {what}", outcome, unit)
        name = what.replace("per second", "rate")
        report.result(f"quiet_{name}_beside_noise", outcome.ratio(within, alone))
        report.result(f"quiet_{name}_beside_noise_without_quota", outcome.ratio(without, alone))


@contextmanager
def _noise(loud: Order, tenant: str) -> Iterator[None]:
    with noise(replace(loud, tenant=tenant)):
        load(replace(loud, tenant=tenant, callers=1, seconds=1.0))  # until it is loud
        yield
