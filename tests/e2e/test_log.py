"""What was recorded of a delegated task, read and replayed on real Dapr."""

import json
import subprocess
import sys

from a2a.types import TaskState

from sidecard.cli.client import AgentClient

TRIP = (
    "Book me a flight from LHR to Lisbon on 3 March for Ada Lovelace and file the 1,800 EUR hotel receipt from "
    "Hotel Avenida"
)


def run(project, *words):
    command = [sys.executable, "-m", "sidecard.cli", *words, "--json"]
    return subprocess.run(command, cwd=project.root, capture_output=True, text=True, timeout=60, check=False)


def flat(logged):
    """(agent, task, state) of a tree of logs."""
    yield logged["agent"], logged["task"], logged["state"]
    for child in logged["children"]:
        yield from flat(child)


async def test_the_log_of_a_trip_has_its_delegations_and_each_of_them_replays(project):
    """The tree reaches over two agents to a third; every task in it agrees with its log, the waiting one too."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        task = await desk.send(TRIP)
    assert task.status.state == TaskState.TASK_STATE_INPUT_REQUIRED
    waiting = json.loads(run(project, "replay", "orchestrator", task.id).stdout)
    assert waiting["ok"], waiting
    assert "ask" in [stop["of"] for stop in waiting["stops"]]  # the flight may still be on its way to be booked
    async with AgentClient.direct(project, "orchestrator", caller="manager") as manager:
        task = await manager.answer(task, "approve")
    assert task.status.state == TaskState.TASK_STATE_COMPLETED
    shown = run(project, "log", "orchestrator", task.id)
    assert shown.returncode == 0, shown.stderr
    logged = json.loads(shown.stdout)
    tasks = list(flat(logged))
    assert {agent for agent, _, _ in tasks} == {"orchestrator", "flights", "expenses", "compliance"}
    assert {state for _, _, state in tasks} == {"COMPLETED"}
    for agent, task_id, _ in tasks:
        replayed = run(project, "replay", agent, task_id)
        assert replayed.returncode == 0, f"{agent}: {replayed.stdout}{replayed.stderr}"
        outcome = json.loads(replayed.stdout)
        assert outcome["replayed"] == outcome["state"] == "COMPLETED"
        assert outcome["stops"] == []
    assert json.loads(run(project, "log", "orchestrator", task.id).stdout) == logged
