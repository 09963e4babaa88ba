"""sidecard makes a plain Python function a crash-safe A2A skill behind a Dapr sidecar.

from sidecard import Agent, Task, serve
"""

from sidecard import telemetry as telemetry
from sidecard.agent import Agent, File, Skill
from sidecard.app import create_app, serve
from sidecard.errors import (
    AgentUnavailable,
    CardRejected,
    ConfigurationError,
    DelegationFailed,
    SidecardError,
    StoreUnavailable,
    TaskConflict,
)
from sidecard.tasks.context import Answer, Delegated, Group, Task

__all__ = [
    "Agent",
    "AgentUnavailable",
    "Answer",
    "CardRejected",
    "ConfigurationError",
    "Delegated",
    "DelegationFailed",
    "File",
    "Group",
    "SidecardError",
    "Skill",
    "StoreUnavailable",
    "Task",
    "TaskConflict",
    "create_app",
    "serve",
]
