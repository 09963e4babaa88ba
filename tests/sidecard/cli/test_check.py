"""`sidecard check` on the command line."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sidecard.check import Finding
from sidecard.cli.check import check

ERROR = Finding("dapr.yaml", "has no app 'flights' [yet]", "add an entry")
WARNING = Finding("agents/callers.yaml", "nobody holds 'x'", "grant it", "warning")


@pytest.fixture
def run(monkeypatch):
    """Runs the command on a project with these findings."""

    def run(findings, *arguments):
        monkeypatch.setattr("sidecard.check.check", lambda project: findings)
        app = typer.Typer()
        app.command()(check)
        return CliRunner().invoke(app, list(arguments))

    return run


def test_a_disagreement_is_exit_code_1(run):
    """File, problem and fix are printed as they are, brackets included."""
    done = run([ERROR])
    assert done.exit_code == 1
    assert "dapr.yaml: has no app 'flights' [yet]" in done.output
    assert "add an entry" in done.output
    assert "1 disagreement\n" in done.output


def test_a_warning_fails_nothing(run):
    """It is printed all the same."""
    done = run([WARNING])
    assert done.exit_code == 0
    assert "nobody holds 'x'" in done.output


def test_programs_get_one_json_object(run):
    """With --json, standard output is nothing else."""
    done = run([ERROR, WARNING], "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {"ok": False, "findings": [ERROR.as_dict(), WARNING.as_dict()]}


def test_a_folder_without_a_project_is_one_clear_error(tmp_path: Path):
    """The message says where to run it; the command line prints it as one line."""
    app = typer.Typer()
    app.command()(check)
    done = CliRunner().invoke(app, ["--project", str(tmp_path)])
    assert "there is no dapr.yaml" in str(done.exception)
