"""`make tour` proves what it says, on real processes, and leaves nothing."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from sidecard.cli import processes

HERE = Path(__file__).resolve().parents[2]
WORDS = (
    "COMPLETED     IC ",  # ADK's agent, called by ours
    "partner (token:company#partner)",  # ADK's client, in the audit of ours
    "was moved",
    "altered, or not signed with key 'railways-1'",
    "No valid signature found",  # ADK's client
    "call charter → FAILED the seat computer hung up",
    "held 1 time",
    'another agent → "flights"',
    "manager",
    "to railways ",
    "from ADK ",
    "outside the mesh",
    "block PROMPT_INJECTION",
    "all five are proven",
)


@pytest.fixture
def place(tmp_path):
    """The environment of a tour whose files and processes can be told from all others: by its folder for such files."""
    (tmp_path / "tour").mkdir()
    return os.environ | {"TMPDIR": str(tmp_path / "tour")}


def left(place):
    """What a tour has left behind: its processes, and its files."""
    alive = [p for p in psutil.process_iter() if processes.environment(p).get("TMPDIR") == place["TMPDIR"]]
    return [p for p in alive if p.status() != psutil.STATUS_ZOMBIE], list(Path(place["TMPDIR"]).iterdir())


@pytest.mark.timeout(240)  # a minute and a half on a busy machine
def test_the_tour_proves_all_five_and_leaves_nothing(place):
    """Each proof's key words; then no process and no file."""
    toured = subprocess.run(
        ["make", "tour"], cwd=HERE, env=place, capture_output=True, text=True, timeout=180, check=False
    )
    assert toured.returncode == 0, toured.stdout + toured.stderr
    for words in WORDS:
        assert words in toured.stdout
    assert left(place) == ([], [])


def test_an_interrupted_tour_leaves_nothing(place):
    """Ctrl-C while it starts: it stops what it started, the parties of other firms as well."""
    started = subprocess.Popen(
        [".venv/bin/python", "-m", "tour"],
        cwd=HERE, env=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not any(processes.is_sidecar(process) for process in left(place)[0]):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    started.send_signal(signal.SIGINT)
    output, _ = started.communicate(timeout=60)
    assert started.returncode == 130, output
    assert "interrupted" in output
    assert left(place) == ([], [])
