"""Through two sidecars: a task against the way alone and the engine alone."""

from dataclasses import replace

from bench.estate import RAW, Estate
from bench.processes import load
from bench.raw import PATH
from bench.report import Report
from bench.rounds import Rounds


def mesh(system: Estate, seconds: float, rounds: Rounds, report: Report) -> None:
    """`mesh_vs_raw`: one caller's p50 from the desk, over raw invocation plus the task without sidecars."""
    through = replace(system.through_sidecars("ours", "/a2a"), seconds=seconds)
    raw = replace(system.through_sidecars(RAW, PATH), seconds=seconds, method="", expect="ok")
    direct = replace(system.direct("ours"), seconds=seconds)
    outcome = rounds.race(
        {
            "task through sidecars": lambda: load(through).p50_ms,
            "raw invocation": lambda: load(raw).p50_ms,
            "task without sidecars": lambda: load(direct).p50_ms,
        }
    )
    report.figures("mesh, p50", outcome, "ms")
    ratio = outcome.ratio("task through sidecars", "raw invocation", "task without sidecars")
    report.result("mesh_vs_raw", ratio)
