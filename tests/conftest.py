"""How tests share two workers: what starts real processes runs on one, file by file on the other all else."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SYSTEM = ("bench", "chaos", "docs", "e2e", "k8s", "stores", "sidecard/cli/test_system.py")
"""They use the same ports, or the machine's whole attention."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one group run on one worker, in their order."""
    for item in items:
        path = item.path.relative_to(TESTS).as_posix()
        item.add_marker(pytest.mark.xdist_group("system" if path.startswith(SYSTEM) else path))
