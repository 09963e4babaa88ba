"""What a run prints and keeps: a table of medians, the ratios with their targets, and one line of JSON."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.rounds import Outcome

TARGETS = {
    "send_vs_memory_8": (">=", 2.5),
    "send_vs_memory_32": (">=", 4.0),
    "send_vs_sqlite_8": (">=", 20.0),
    "send_p50_vs_floor": ("<=", 1.5),
    "stream_vs_memory_1000": (">=", 3.0),
    "stream_10000_vs_100": (">=", 0.85),
    "first_event_p50_vs_floor": ("<=", 2.0),
    "mesh_vs_raw": ("<=", 1.3),
    "orchestrations_vs_workflow": (">=", 5.0),
    "kib_per_stream": ("<=", 64.0),
    "send_100k_vs_empty": (">=", 0.85),
    "list_100k_vs_empty": (">=", 0.85),
    "quiet_p50_beside_noise": ("<=", 1.5),
    "quiet_rate_beside_noise": (">=", 0.7),
}


class Report:
    """Collects while a run goes on, and says each figure as soon as it is known."""

    def __init__(self, console: Console) -> None:
        self.results: dict[str, float] = {}
        self._console = console
        self._table = Table("what", "median", "unit", "rounds", title="Medians")

    def figures(self, what: str, outcome: Outcome, unit: str) -> None:
        """Put the contenders of a race into the table."""
        for name, rounds in outcome.figures.items():
            shown = " ".join(f"{figure:,.1f}" for figure in rounds)
            self._table.add_row(f"{what}: {name}", f"{outcome.median(name):,.1f}", unit, shown)
        self.say(f"{what}: {', '.join(f'{n} {outcome.median(n):,.1f}' for n in outcome.figures)} {unit}")

    def say(self, words: str) -> None:
        """Something for whoever watches."""
        self._console.print(f"  {words}")

    def result(self, key: str, value: float) -> None:
        """One figure of the JSON. What was not measured is never put in."""
        self.results[key] = round(value, 3)

    def finish(self, path: Path | None) -> None:
        """Print everything, the line of JSON last; and keep it in a file, beside what others have measured there."""
        self._console.print(self._table)
        ratios = Table("result", "value", "target", title="Results")
        for key, value in self.results.items():
            sign, target = TARGETS.get(key, ("", 0.0))
            met = value >= target if sign == ">=" else value <= target
            ratios.add_row(key, f"{value:,.3f}", f"{sign} {target:g}{'' if met else '  missed'}" if sign else "")
        self._console.print(ratios)
        line = json.dumps(self.results)
        if path is not None:
            kept = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps(kept | self.results) + "\n")
        print(line, flush=True)
