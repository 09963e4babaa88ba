"""docs/performance.md shows what bench/results.json says, and speaks of what is missed."""

import json
import re
from pathlib import Path

import pytest

from bench.report import TARGETS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/performance.md").read_text()
RESULTS = json.loads((ROOT / "bench/results.json").read_text())
ROWS = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+) \| .*\|$", PAGE, re.MULTILINE))


def test_the_table_is_what_was_measured_last():
    """After `make bench` with other figures the table on the page is to be made anew, and what it says thought over."""
    assert {key: f"{value:.3g}" for key, value in RESULTS.items()} == ROWS
    assert RESULTS.keys() >= TARGETS.keys()


MISSED = [k for k, (sign, wanted) in TARGETS.items() if k in RESULTS and (RESULTS[k] < wanted) == (sign == ">=")]


@pytest.mark.parametrize("key", MISSED)
def test_a_figure_that_is_missed_is_explained(key):
    """With what bounds it."""
    assert f"`{key}`** is missed" in PAGE.partition("## What bounds it")[2]
