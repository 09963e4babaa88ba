"""What the tests of a page need: the rows of its table of promises, and whether the tests that those name are there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

Claim = tuple[str, list[str]]
"""What holds, and the tests that show it."""


HEAD = "what holds"


def claims(tables: str) -> list[Claim]:
    """The rows of tables with two columns, without their heads."""
    rows = [row.strip("|").split("|") for row in tables.splitlines() if row.startswith("| ")]
    found = [(claim.strip(), re.findall(r"`([^`]+)`", tests)) for claim, tests in rows]
    return [(claim, tests) for claim, tests in found if claim != HEAD]


def check(claim: Claim, folder: str = "") -> None:
    """Fails unless each test exists: a file, or a function in one; without a folder of its own it is in `folder`."""
    words, tests = claim
    assert tests, words
    for test in tests:
        path, _, name = test.partition("::")
        file = ROOT / path if "/" in path else ROOT / folder / path
        assert file.is_file(), f"{words}: {path} is not there"
        functions = set(re.findall(r"^(?:async )?def (\w+)", file.read_text(), re.MULTILINE))
        assert not name or (name.startswith("test_") and name in functions), f"{words}: {path} has no {name}"
