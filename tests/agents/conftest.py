"""How agents' skills are tried out: served on a store in memory, at a fixed time, with callers of their own."""

from datetime import UTC, datetime

import pytest

from sidecard.screening.local import LocalScreen
from sidecard.testing import MemoryStore, served

SCREEN = LocalScreen()  # as every agent has it: its rules must let the desk's own business through
NOW = datetime(2027, 2, 1, 12, tzinfo=UTC)


@pytest.fixture
def desk():
    """Serves an agent; every time in one test is the same agent, restarted.

    `ada` may use all its skills, `boss` approves what others spend, and `both` may do either.
    """
    store = MemoryStore()

    def serve(agent, agents=None, *, now=NOW):
        skills = sorted({skill.scope for skill in agent.skills.values()})
        held = {"ada": skills, "boss": ["spend:approve"], "both": [*skills, "spend:approve"]}
        callers = {name: {"api_key": True, "grants": {agent.name: scopes}} for name, scopes in held.items()}
        at = int(now.timestamp() * 1000)
        return served(agent, store, callers, agents, clock=lambda: at, screen=SCREEN)

    return serve
