"""docs/durability.md names a test for every rule, and each of them is there."""

import json
import re
from collections import Counter

import pytest

from chaos.catalog import TRIALS
from sidecard.settings import Settings
from sidecard.tasks import replicas, run, runner
from tests.docs.pages import ROOT, check, claims

PAGE = (ROOT / "docs/durability.md").read_text()
RULES = PAGE.partition("## Each rule and its test")[2]
CLAIMS = claims(RULES)


@pytest.mark.parametrize("claim", CLAIMS, ids=[words[:60] for words, _ in CLAIMS])
def test_every_rule_names_tests_that_exist(claim):
    """By file and function, so that whoever doubts a promise can run what proves it."""
    check(claim, "tests/sidecard/tasks")


def test_all_rules_are_read():
    """The table is found, and nothing in it is passed over."""
    assert len(CLAIMS) >= 50
    assert RULES.count("::test_") == sum(len(tests) for _, tests in CLAIMS)


def test_files_that_the_page_names_exist():
    """Wherever it names one of this project."""
    for path in re.findall(r"`((?:tests|chaos|sidecard)/[\w/.]+)`", PAGE):
        assert (ROOT / path).exists(), path


def test_what_chaos_found_is_the_last_full_run():
    """Every trial of the catalogue, with nothing broken; after `make chaos` the table is to be made anew."""
    results = json.loads((ROOT / "chaos/results.json").read_text())
    run = Counter((one["fault"].partition(" for ")[0], one["store"]) for one in results)
    assert run == Counter((trial.fault, trial.kind) for trial in TRIALS)
    promises = ("lost", "stuck", "double_effects", "second_terminals")
    assert not any(one[promise] for one in results for promise in promises)
    assert not any(times for one in results for times in one["others"].values())
    found = PAGE.partition("## What it found")[2].partition("## ")[0]
    runs, faults = sum(one["runs"] for one in results), sum(one["faults"] for one in results)
    assert f"**{runs:,} tasks under {faults:,} faults; none lost" in " ".join(found.split())
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in found.splitlines() if row.startswith("| ")]
    assert rows[1:] == [
        [
            one["fault"],
            one["store"].removeprefix("state."),
            f"{one['runs']:,}",
            f"{one['faults']:,}",
            f"{one['recovery_p50_s']:g}, {one['recovery_p99_s']:g}",
        ]
        for one in results
    ]


def test_numbers_on_the_page_are_those_in_the_code():
    """Seconds, tries and limits that people decide by."""
    settings = Settings(app_id="shop")
    said = {
        f"{settings.runs:,} skills at once (`SIDECARD_RUNS`), of one tenant {settings.tenant_runs}": 1,
        f"of one caller {settings.caller_runs} (`SIDECARD_CALLER_RUNS`)": 1,
        f"within seconds ({replicas.DEAD_SECONDS:.0f} s without a sign of life)": 1,
        f"{settings.deduplication_hours:.0f} hours more (`SIDECARD_DEDUPLICATION_HOURS`)": 1,
        f"agent for longer than {run.EVICT_SECONDS:.0f} s": 1,
    }
    text = " ".join(PAGE.split())
    assert {words: text.count(words) for words in said} == said
    assert settings.task_tries == 3, "three (`SIDECARD_TASK_TRIES`)"
    runs = {"caller": settings.caller_runs, "tenant": settings.tenant_runs, "replica": settings.runs}
    assert runs == runner.RUNS
