"""A store full of finished tasks against an almost empty one: neither sending nor listing may take longer."""

from dataclasses import replace
from functools import partial

from bench.estate import Estate
from bench.processes import load
from bench.report import Report
from bench.rounds import Rounds

CALLERS = 8
PAGE = 100
"""More than ListTasks gives at once by default, so that both agents give a full page."""


def history(system: Estate, tasks: int, seconds: float, rounds: Rounds, report: Report) -> None:
    """`send_100k_vs_empty` and `list_100k_vs_empty`, of the agents `full` and `empty`, when that many are asked for."""
    for agent, count in (("empty", PAGE), ("full", tasks)):
        load(replace(system.direct(agent), callers=CALLERS * 4, count=count))
    name = f"{tasks // 1_000}k"
    for what, method in (("send", "SendMessage"), ("list", "ListTasks")):
        outcome = rounds.race({agent: partial(_measure, system, agent, method, seconds) for agent in ("full", "empty")})
        report.figures(f"{method} with {tasks:,} finished tasks or few", outcome, "/s")
        report.result(f"{what}_{name}_vs_empty", outcome.ratio("full", "empty"))


def _measure(system: Estate, agent: str, method: str, seconds: float) -> float:
    return load(replace(system.direct(agent), method=method, callers=CALLERS, seconds=seconds)).per_second
