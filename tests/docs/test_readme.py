"""What the README tells people to type works, in a copy of the project."""

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sidecard.cli import processes
from sidecard.cli.project import Project
from sidecard.cli.system import System

HERE = Path(__file__).resolve().parents[2]
README = (HERE / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line]
DEMO = "make demo"
SELF = "make test"  # runs this test


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the project with keys and data of its own; nothing of it may run afterwards."""
    project = Project(HERE).copy_to(tmp_path_factory.mktemp("readme"))
    yield project
    subprocess.run([".venv/bin/sidecard", "down"], cwd=project.root, check=True, capture_output=True)


def run(project, command, timeout=120):
    return subprocess.run(
        shlex.split(command), cwd=project.root, capture_output=True, text=True, timeout=timeout, check=False
    )


def test_the_readme_names_the_commands_that_matter():
    """If a command leaves the README, this test notices."""
    assert {DEMO, SELF, "make up", "make down", "make restart agent=flights"} <= set(COMMANDS)


def test_the_demo_plays_the_story_and_leaves_nothing(copy):
    """Both questions, the crash, the whole trace; then no process and no port."""
    result = run(copy, DEMO)
    assert result.returncode == 0, result.stdout + result.stderr
    for words in ("several airports", "kill -9", "approved by manager", "task run book_flight", "MCP send tools/call"):
        assert words in result.stdout
    assert processes.marked(copy.mark) == []


def test_an_interrupted_demo_leaves_nothing(copy):
    """Ctrl-C while it starts: it stops what it started."""
    started = subprocess.Popen(
        [".venv/bin/python", "-m", "demo"], cwd=copy.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 60
    while not any(processes.role(process) == "sidecar" for process in processes.marked(copy.mark)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    started.send_signal(signal.SIGINT)
    output, _ = started.communicate(timeout=60)
    assert started.returncode == 130, output
    assert "interrupted" in output
    assert processes.marked(copy.mark) == []


def test_dapr_run_works_by_hand(copy):
    """Once sentry is up, `dapr run -f .` needs no exports; Ctrl-C stops it, `make down` stops sentry."""
    assert "`runtime/bin/dapr run -f .`" in README
    assert run(copy, "make sentry").returncode == 0
    environment = {name: os.environ[name] for name in ("PATH", "HOME")}
    with (copy.root / "by-hand.log").open("w") as log:
        started = subprocess.Popen(
            ["runtime/bin/dapr", "run", "-f", "."], cwd=copy.root, env=environment, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 60
        while not all(System(copy).healthy().values()):
            assert time.monotonic() < deadline, (copy.root / "by-hand.log").read_text()[-3000:]
            time.sleep(0.3)
    finally:
        started.send_signal(signal.SIGINT)
        started.wait(timeout=60)
    assert run(copy, "make down").returncode == 0
    assert not any(System(copy).healthy().values())


def test_every_other_command_of_the_readme_works_in_its_order(copy):
    """From `make up` to `make down`, each exits with 0."""
    for command in COMMANDS:
        if command not in (DEMO, SELF):
            result = run(copy, command)
            assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    assert processes.marked(copy.mark) == []
