"""`python -m chaos [--wishes N] [--seed S]`: every fault on every store, and chaos/results.json."""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from chaos.cluster import cluster
from chaos.faults import FAULTS
from chaos.run import Outcome, run

RESULTS = Path(__file__).parent / "results.json"
STORES = {"state.sqlite": 1, "state.postgresql": 2, "state.redis": 2}
"""Each store, and how many replicas share it."""


def main() -> None:
    """Run everything, print a line each, and exit with 1 when a promise did not hold."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--wishes", type=int, default=1_000, help="tasks per fault and store")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=STORES, action="append", help="only this one; may be given again")
    parser.add_argument("--fault", choices=FAULTS, action="append", help="only this one; may be given again")
    options = parser.parse_args()
    outcomes = []
    for kind in options.store or STORES:
        for fault in options.fault or FAULTS:
            if fault == "kill the store" and kind == "state.sqlite":
                continue  # SQLite runs within the sidecar
            if fault == "freeze a replica" and STORES[kind] == 1:
                continue  # nobody else would notice
            with cluster(kind, STORES[kind]) as started:
                outcome = asyncio.run(run(started, fault, options.wishes, options.seed))
            outcomes.append(outcome)
            _tell(outcome)
    RESULTS.write_text(json.dumps([outcome.as_dict() for outcome in outcomes], indent=1) + "\n")
    sys.exit(not all(outcome.good for outcome in outcomes))


def _tell(outcome: Outcome) -> None:
    verdict = "ok  " if outcome.good else "FAIL"
    counts = f"{outcome.runs} tasks, {outcome.faults} faults, {outcome.ends}"
    bad = f"lost {outcome.lost}, stuck {outcome.stuck}, double {outcome.double_effects + outcome.second_terminals}"
    print(f"{verdict} {outcome.store:<18} {outcome.fault:<18} {counts}; {bad}; recovery p50 {outcome.recovery_p50_s} s")


if __name__ == "__main__":
    main()
