"""Who may answer a task's question, and what exactly they type."""

import shlex
import shutil
import sys
from pathlib import Path

from a2a.types import Task

from sidecard.callers import CallersFile
from sidecard.cli.project import Project
from sidecard.cli.way import DESK
from sidecard.errors import ConfigurationError
from sidecard.extension import Asked
from sidecard.tasks.states import INTERRUPTED


def how_to_answer(project: Project, agent: str, task: Task, caller: str = "", tenant: str = "") -> str:
    """The command that answers a task's open question, as this caller or as one who may; empty when it asks nothing."""
    if task.status.state not in INTERRUPTED:
        return ""
    asked = Asked.of(task.status.message) or Asked(question="")
    if asked.authority:
        words = [_program(), "grant", agent, "--task", task.id]
        return shlex.join([*words, *_as(caller, tenant)]) + f"   (or: {_program()} refuse …)"
    who = who_may_answer(project, agent, asked, caller or DESK)
    if who is None:
        return f"somebody with the right {asked.scope} must, and agents/callers.yaml gives it to nobody with a key"
    likeliest = next(iter(asked.options), "your answer")
    words = [_program(), "send", agent, "--task", task.id, "--answer", likeliest]
    return shlex.join(words + _as(who, tenant))


def _as(caller: str, tenant: str) -> list[str]:
    words = ["--tenant", tenant] if tenant else []
    return words + (["--as", caller] if caller not in ("", DESK) else [])


def who_may_answer(project: Project, agent: str, asked: Asked, caller: str) -> str | None:
    """This caller if it may answer, else the first who may and has a key; None when there is nobody."""
    if not asked.scope:
        return caller
    try:
        callers = CallersFile.read(project.root / "agents" / "callers.yaml").callers
    except ConfigurationError:
        return caller  # the agent decides anyway
    holders = [name for name, grant in callers.items() if asked.scope in grant.grants.get(agent, ())]
    if caller in holders:
        return caller
    return next((name for name in holders if callers[name].api_key), None)


def _program() -> str:
    """How this command is called here: as it was typed, where it is not on the PATH."""
    typed = sys.argv[0]
    return typed if Path(typed).name == "sidecard" and not shutil.which("sidecard") else "sidecard"
