"""The command line's frame: errors as lines, JSON for programs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sidecard.cli.project import Project


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sidecard.cli", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_error_is_one_line(project: Project) -> None:
    """What the user can mend is said in one line, without a traceback."""
    ended = _run(project.root, "restart", "nobody")
    assert ended.returncode == 1
    assert ended.stderr == "dapr.yaml has no app 'nobody'; it has stub-agent, stub-tool, stub-desk\n"


def test_error_as_json(project: Project) -> None:
    """With --json the same error is one object on standard output."""
    ended = _run(project.root, "restart", "nobody", "--json")
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["ok"] is False
    assert "nobody" in json.loads(ended.stdout)["error"]


@pytest.mark.parametrize("command", ["up", "down", "sentry", "bootstrap"])
def test_outside_a_project(tmp_path: Path, command: str) -> None:
    """In a folder without dapr.yaml each command says so, and leaves nothing behind."""
    ended = _run(tmp_path, command)
    assert ended.returncode == 1
    assert "there is no dapr.yaml in" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_bootstrap(project: Project) -> None:
    """The first run says what it made, the second that nothing was missing."""
    first = json.loads(_run(project.root, "bootstrap", "--json").stdout)
    assert first["ok"]
    assert "trust.json" in first["made"]
    assert "everything is there" in _run(project.root, "bootstrap").stdout


def test_down_when_nothing_runs(project: Project) -> None:
    """Stopping nothing is no error."""
    assert json.loads(_run(project.root, "down", "--json").stdout) == {"ok": True, "stopped": 0}
