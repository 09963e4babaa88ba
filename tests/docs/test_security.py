"""docs/security.md names what shows each promise, and says of content inspection what was measured."""

import json
import re

import pytest
from typer.main import get_command

from sidecard.cli import app
from tests.docs.pages import ROOT, check, claims

PAGE = (ROOT / "docs/security.md").read_text()
TABLE = PAGE.partition("## Each promise and its test")[2].partition("\n## ")[0]
CLAIMS = claims(TABLE)


@pytest.mark.parametrize("claim", CLAIMS, ids=[words[:60] for words, _ in CLAIMS])
def test_every_promise_names_tests_that_exist(claim):
    """So that whoever doubts one can run what shows it."""
    check(claim)


def test_all_promises_are_read():
    """The table is found, and nothing in it is passed over."""
    assert len(CLAIMS) >= 30
    assert TABLE.count("`tests/") == sum(len(tests) for _, tests in CLAIMS)


def test_every_command_that_the_page_names_exists():
    """Whoever types it gets what is promised."""
    commands = get_command(app).commands
    for name in set(re.findall(r"`sidecard (\w+)", PAGE)):
        assert name in commands, name


def test_the_rates_are_those_that_were_measured():
    """After `python -m bench.screening` the table is to be made anew."""
    results = json.loads((ROOT / "bench/screening.json").read_text())["injection"]
    rows = re.findall(r"^\| ([\w' ]+) \| ([\d,]+) of ([\d,]+) \|$", PAGE, re.MULTILINE)
    measured = results["caught, held out"] | results["benign"]
    assert rows == [(name, f"{one['found']:,}", f"{one['texts']:,}") for name, one in measured.items()]
