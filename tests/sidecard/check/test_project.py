"""The project itself, and what holds for all findings."""

from pathlib import Path

import pytest

from sidecard.check import check
from sidecard.errors import ConfigurationError

ROOT = Path(__file__).parents[3]


def test_this_project_agrees():
    """Code, callers, Dapr files, containers and manifests of this project say the same."""
    assert check(ROOT) == []


def test_the_copy_agrees(project):
    """What the other tests break is whole before."""
    assert project.findings() == []


def test_a_folder_without_a_run_file_is_no_project(tmp_path):
    """The message says where to run the command."""
    with pytest.raises(ConfigurationError, match="run this in the project's folder"):
        check(tmp_path)


def test_broken_yaml_is_a_finding_that_names_the_line(project):
    """No traceback, and the other surfaces are still checked."""
    project.write("resiliency/resiliency.yaml", "a: [1\nb: 2\n")
    assert ("resiliency/resiliency.yaml", True) in [(f, "line 2" in p) for f, p in project.findings()]


def test_every_finding_says_what_to_do(project):
    """File, problem and fix are never empty, also for programs."""
    project.write("components/state.yaml", "")
    found = check(project.root)
    assert found
    assert all(all(finding.as_dict().values()) for finding in found)
