"""docs/durability.md names a test for every rule, and each of them is there."""

import re
from pathlib import Path

import pytest

from sidecard.settings import Settings
from sidecard.tasks import replicas, run, runner

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/durability.md").read_text()
RULES = PAGE.partition("## Each rule and its test")[2]
ROWS = [row.strip("|").split("|") for row in RULES.splitlines() if row.startswith("| ")]
CLAIMS = [(claim.strip(), re.findall(r"`([^`]+)`", tests)) for claim, tests in ROWS if claim.strip() != "what holds"]


def functions_in(file):
    """The names of a file's functions."""
    return set(re.findall(r"^(?:async )?def (\w+)", file.read_text(), re.MULTILINE))


@pytest.mark.parametrize(("claim", "tests"), CLAIMS, ids=[claim[:60] for claim, _ in CLAIMS])
def test_every_rule_names_tests_that_exist(claim, tests):
    """By file and function, so that whoever doubts a promise can run what proves it."""
    assert tests, claim
    for test in tests:
        path, _, name = test.partition("::")
        file = ROOT / path if "/" in path else ROOT / "tests/sidecard/tasks" / path
        assert file.is_file(), f"{claim}: {path} is not there"
        assert name.startswith("test_")
        assert name in functions_in(file), f"{claim}: {path} has no {name}"


def test_all_rules_are_read():
    """The table is found, and nothing in it is passed over."""
    assert len(CLAIMS) >= 50
    assert RULES.count("::test_") == sum(len(tests) for _, tests in CLAIMS)


def test_files_that_the_page_names_exist():
    """Wherever it names one of this project."""
    for path in re.findall(r"`((?:tests|chaos|sidecard)/[\w/.]+)`", PAGE):
        if path != "chaos/results.json":  # written by `make chaos`
            assert (ROOT / path).exists(), path


def test_numbers_on_the_page_are_those_in_the_code():
    """Seconds, tries and limits that people decide by."""
    settings = Settings(app_id="shop")
    said = {
        f"{settings.runs:,} skills at once (`SIDECARD_RUNS`), of one tenant {settings.tenant_runs}": 1,
        f"within seconds ({replicas.DEAD_SECONDS:.0f} s without a sign of life)": 1,
        f"{settings.deduplication_hours:.0f} hours more (`SIDECARD_DEDUPLICATION_HOURS`)": 1,
        f"agent for longer than {run.EVICT_SECONDS:.0f} s": 1,
    }
    text = " ".join(PAGE.split())
    assert {words: text.count(words) for words in said} == said
    assert settings.task_tries == 3, "three (`SIDECARD_TASK_TRIES`)"
    assert {"tenant": settings.tenant_runs, "replica": settings.runs} == runner.RUNS
