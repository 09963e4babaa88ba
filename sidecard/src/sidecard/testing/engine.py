"""An agent's engine in this process, without its bindings."""

import contextlib
from collections.abc import AsyncIterator

from sidecard.agent import Agent
from sidecard.push import Webhooks
from sidecard.screening.guard import Guard
from sidecard.screening.screen import Screen
from sidecard.screening.vault import Vault
from sidecard.tasks.cursor import Backoff
from sidecard.tasks.engine import Engine
from sidecard.tasks.runner import RUNS
from sidecard.tasks.turns import Limits
from sidecard.tasks.watch import Delegator
from sidecard.testing.fake_agents import FakeAgents
from sidecard.testing.fake_receivers import FakeTopic
from sidecard.testing.memory_store import MemoryStore
from sidecard.vouching import Vouching

KEY = b"only for tests"


def guard_of(agent: Agent, screen: Screen | None) -> Guard | None:
    """The guard that an agent has with this screen; none without."""
    return None if screen is None else Guard(agent, screen, Vault(agent.name, KEY))


@contextlib.asynccontextmanager
async def started(
    agent: Agent,
    store: MemoryStore,
    agents: Delegator | None = None,
    *,
    webhooks: Webhooks | None = None,
    topic: FakeTopic | None = None,
    backoff: Backoff | None = None,
    runs: Limits = RUNS,
    vouching: Vouching | None = None,
    screen: Screen | None = None,
) -> AsyncIterator[Engine]:
    """An engine of this agent on a store; leaving the block is like stopping the process.

    `agents` are the others: FakeAgents, or whatever follows and cancels as they do.
    `runs` says how many skills may run at once; `vouching` is what a `Publisher` gives.
    `runs` says how many skills may run at once; `screen` inspects what goes in and out, once it is started.
    """
    engine = Engine(
        agent,
        store,
        task_id_key=KEY,
        delegator=agents or FakeAgents(),
        scopes_of=lambda _: agent.scopes,
        sender=webhooks,
        topic=topic,
        backoff=backoff,
        runs=runs,
        vouching=vouching,
        guard=guard_of(agent, screen),
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
