"""Proof 3: what is done when a delegated task ends without success, as its author declared it, from the tasks' logs."""

import re

from a2a.types import Task, TaskState

from sidecard.cli.client import AgentClient
from sidecard.tasks.binding import text_of
from tour.charter import FAILURES, HELD
from tour.desk import GUIDE
from tour.stage import Stage, expect, reached

FLIGHT = "CH 7"
CHILD = "│"
"""Stands before the lines of a log that are of a task that was delegated."""


async def prove(stage: Stage) -> None:
    """One task of the guide for each action."""
    await _retried(stage)
    await _surfaced(stage)
    await _elsewhere(stage)
    await _escalated(stage)


async def _retried(stage: Stage) -> None:
    stage.tell("FAILED", "idempotent: it is retried with backoff, under the same parent task", "yellow")
    task = await stage.ask(data={"flight": FLIGHT}, skill="count_seats", state=TaskState.TASK_STATE_COMPLETED)
    own = await _log(stage, task)
    calls = [line for line in own if " call" in line and "done" in line]
    expect([_end(line) for line in calls] == ["FAILED"] * FAILURES + ["COMPLETED"], "it failed twice, then succeeded")
    waits = [line for line in own if "done" in line and " sleep" in line]
    expect(len(waits) == FAILURES, "each retry waited before")
    told = re.findall(r"retry \d of \d in [\d.]+ s", "\n".join(own))
    expect([words[:12] for words in told] == ["retry 1 of 3", "retry 2 of 3"], f"each retry is told: {told}")
    stage.tell("retried", f"{', '.join(told)}: then COMPLETED, under one parent task", "green")


async def _surfaced(stage: Stage) -> None:
    stage.tell("FAILED", "not idempotent: it surfaces at once, and is done once", "yellow")
    task = await stage.ask(data={"flight": FLIGHT}, skill="hold_seat", state=TaskState.TASK_STATE_FAILED)
    own = await _log(stage, task)
    calls = [line for line in own if " call" in line and "done" in line]
    expect([_end(line) for line in calls] == ["FAILED"], "it was asked for once")
    held = (stage.project.root / HELD).read_text().splitlines()
    expect(len(held) == 1, f"the seat was held once, not {len(held)} times")
    stage.tell("surfaced", f"{text_of(task.status.message)}; held {len(held)} time: {held[0]}", "green")


async def _elsewhere(stage: Stage) -> None:
    stage.tell("REJECTED", "declared `elsewhere`: another agent with the same skill and contract is asked", "yellow")
    query = {"origin": "LHR", "destination": "LIS", "day": "3 March"}
    task = await stage.ask(data=query, skill="find_flight", state=TaskState.TASK_STATE_COMPLETED)
    own = await _log(stage, task)
    taken = re.findall(r"child +\S+ (\S+) has taken it", "\n".join(own))
    expect(taken == ["charter", "flights"], f"charter was asked, then flights: {taken}")
    calls = [line for line in own if " call" in line and "done" in line]
    expect([_end(line) for line in calls] == ["REJECTED", "COMPLETED"], "charter refused, flights did it")


async def _escalated(stage: Stage) -> None:
    stage.tell("REJECTED", "declared `escalate`: a person with that right decides, nobody for themselves", "yellow")
    asked = await stage.ask(data={"flight": FLIGHT}, skill="upgrade", state=TaskState.TASK_STATE_INPUT_REQUIRED)
    stage.tell("asks", text_of(asked.status.message), "magenta")
    async with AgentClient.through_desk(stage.project, GUIDE) as desk:
        refused = await desk.try_answer(asked, "retry")
    expect(refused, "who asked for it may not decide")
    stage.tell("desk", f"retry: refused, {refused}", "red")
    async with AgentClient.direct(stage.project, GUIDE, caller="manager") as manager:
        ended = await manager.answer(asked, "give_up")
    reached(ended, TaskState.TASK_STATE_FAILED)
    own = await _log(stage, asked)
    expect(re.search(r"message +manager: give_up", "\n".join(own)), "the manager's word is in the log")


async def _log(stage: Stage, task: Task) -> list[str]:
    """The lines of the guide's own log of a task; what is shown leaves out the delegated tasks' own."""
    shown = ("call", "child", "sleep", "step", "question", "ask", "message", "status", "guide")
    logged = await stage.command("log", GUIDE, task.id, only=shown, without=CHILD)
    expect(f"task {task.id}" in logged, "the log is of this task")
    stage.out.print()
    return [line for line in logged.splitlines() if CHILD not in line]


def _end(line: str) -> str:
    """The state in which a delegated task is recorded to have ended."""
    return line.partition("→")[2].split()[0]
