"""`sidecard check` and `sidecard publish`: what agents promise their callers, against their code."""

import json

import pytest
from typer.testing import CliRunner

from sidecard.cli import app
from sidecard.errors import ConfigurationError

RECORD = "agents/flights/contract.json"


def publish(project, *words: str) -> dict:
    done = CliRunner().invoke(app, ["publish", *words, "--json", "--project", str(project.root)])
    if isinstance(done.exception, Exception):
        raise done.exception
    return json.loads(done.stdout)["published"]


def skills(project, *scopes: str, version: str = "1.0.0") -> None:
    """Gives the agent's code these skills and version; what it has published stays."""
    record = (project.root / RECORD).read_text()
    project.stub("flights", list(scopes))
    code = (project.root / "agents/flights/agent.py").read_text()
    project.write("agents/flights/agent.py", code.replace('version="1.0.0"', f"version={version!r}"))
    project.write(RECORD, record)


def test_a_skill_that_is_gone_needs_a_new_major_version(project):
    """The check fails and publishing is refused, until the version says so."""
    skills(project, "flights:search", version="1.1.0")
    problem = "flights:book is gone; that breaks callers of version 1.0.0"
    assert ("agents/flights/agent.py", problem) in project.findings()
    with pytest.raises(ConfigurationError, match=r'flights:book is gone.*Write version="2\.0\.0"'):
        publish(project)
    skills(project, "flights:search", version="2.0.0")
    assert publish(project) == {"flights": "2.0.0"}
    assert not [file for file, _ in project.findings() if "flights" in file]


def test_what_is_not_published_is_found(project):
    """A compatible change, as a new minor version, waits for `sidecard publish`."""
    skills(project, "flights:book", "flights:look", "flights:search", version="1.1.0")
    assert (RECORD, "says other than the code of 'flights', version 1.1.0") in project.findings()
    assert publish(project, "flights") == {"flights": "1.1.0"}
    assert publish(project, "flights") == {}


@pytest.mark.parametrize(("version", "record"), [("1.4", "same"), ("1.0.0", "nonsense"), ("1.0.0", None)])
def test_what_can_not_be_compared_is_found(project, version, record):
    """A version that is none, a record that somebody has mangled, and none at all."""
    skills(project, "flights:book", "flights:search", version=version)
    if record is None:
        (project.root / RECORD).unlink()
    elif record != "same":
        project.write(RECORD, record)
    [(file, problem)] = project.findings()
    assert file == RECORD
    assert problem.startswith("can't be compared with the code" if record else "is missing")


def test_publishing_an_agent_that_is_not_there(project):
    """The message names those that are."""
    with pytest.raises(ConfigurationError, match="there are: compliance, expenses, flights, orchestrator"):
        publish(project, "hotels")
