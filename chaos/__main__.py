"""`python -m chaos [--scale S] [--seed S]`: every fault on every store, and chaos/results.json."""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

from chaos.catalog import TRIALS, Trial
from chaos.cluster import cluster
from chaos.outcome import Outcome

RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    """Run everything, print a line each, and exit with 1 when a promise did not hold."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of tasks; 0.1 is a tenth")
    parser.add_argument("--seed", type=int, default=1)
    for name, values in (("store", {t.kind for t in TRIALS}), ("fault", {t.fault for t in TRIALS})):
        parser.add_argument(f"--{name}", choices=sorted(values), action="append", help="only this; may be repeated")
    options = parser.parse_args()
    trials = [
        trial
        for trial in TRIALS
        if (not options.store or trial.kind in options.store) and (not options.fault or trial.fault in options.fault)
    ]
    left = sum(trial.seconds for trial in trials) * options.scale
    print(f"{len(trials)} trials, about {left / 60:.0f} minutes on two cores", flush=True)
    outcomes: list[Outcome] = []
    began = time.monotonic()
    for number, trial in enumerate(trials, 1):
        at = f"{number:>2}/{len(trials)} {(time.monotonic() - began) / 60:>4.1f} min"
        if why := trial.missing():
            print(f"skip {at} {trial.kind:<16} {trial.fault}: {why}", flush=True)
            continue
        outcome = _try(trial, max(1, round(trial.size * options.scale)), options.seed)
        outcomes.append(outcome)
        print(f"{'ok  ' if outcome.good else 'FAIL'} {at} {_told(outcome)}", flush=True)
        if len(trials) == len(TRIALS) and options.scale == 1:
            RESULTS.write_text(json.dumps([outcome.as_dict() for outcome in outcomes], indent=1) + "\n")
    sys.exit(not all(outcome.good for outcome in outcomes))


def _try(trial: Trial, size: int, seed: int) -> Outcome:
    with cluster(trial.kind, trial.count, trial.setting) as started:
        outcome = asyncio.run(trial.do(started, size, seed))
        if not outcome.good:
            for replica in started.replicas:
                print(replica.app.log.read_text()[-4_000:])
    return outcome


def _told(outcome: Outcome) -> str:
    counts = f"{outcome.runs} tasks, {outcome.faults} faults, {outcome.ends}"
    bad = f"lost {outcome.lost}, stuck {outcome.stuck}, double {outcome.double_effects}"
    bad += "".join(f", {name}: {times}" for name, times in outcome.others.items() if times)
    ends = f"second ends {outcome.second_terminals}; recovery p50 {outcome.recovery_p50_s} s; {outcome.seconds:.0f} s"
    return f"{outcome.store:<16} {outcome.fault:<30} {counts}; {bad}, {ends}"


if __name__ == "__main__":
    main()
