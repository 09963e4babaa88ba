"""For tests without Dapr: a store that decides as Dapr's do, agents and issuers that answer as told, an agent served.

from sidecard.testing import FakeAgents, MemoryStore, served, started
"""

from sidecard.testing.engine import KEY, started
from sidecard.testing.fake_agents import FakeAgents, ended
from sidecard.testing.fake_issuer import AUDIENCE, ISSUER, FakeIssuer
from sidecard.testing.fake_receivers import FakeTopic, FakeWebhooks
from sidecard.testing.memory_store import MemoryStore
from sidecard.testing.messages import caller, message
from sidecard.testing.publisher import Publisher
from sidecard.testing.served_agent import APP_TOKEN, Binding, Served, key_of, served

__all__ = [
    "APP_TOKEN",
    "AUDIENCE",
    "ISSUER",
    "KEY",
    "Binding",
    "FakeAgents",
    "FakeIssuer",
    "FakeTopic",
    "FakeWebhooks",
    "MemoryStore",
    "Publisher",
    "Served",
    "caller",
    "ended",
    "key_of",
    "message",
    "served",
    "started",
]
