"""sidecard makes a plain Python function a crash-safe A2A skill behind a Dapr sidecar.

from sidecard import Agent, Task, serve
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sidecard import telemetry as telemetry  # first: it sets switches that the SDK reads on import

if TYPE_CHECKING:
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
    from sidecard.tasks.context import Answer, Authority, AuthorityRefused, Delegated, Group, StepFailed, Task

# Loaded when asked for: the command line needs few of them, and the A2A SDK takes a second to import.
_PUBLIC = {
    "sidecard.agent": ("Agent", "File", "Skill"),
    "sidecard.app": ("create_app", "serve"),
    "sidecard.errors": (
        "AgentUnavailable",
        "CardRejected",
        "ConfigurationError",
        "DelegationFailed",
        "SidecardError",
        "StoreUnavailable",
        "TaskConflict",
    ),
    "sidecard.tasks.context": (
        "Answer",
        "Authority",
        "AuthorityRefused",
        "Delegated",
        "Group",
        "StepFailed",
        "Task",
    ),
}
_WHERE = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [
    "Agent",
    "AgentUnavailable",
    "Answer",
    "Authority",
    "AuthorityRefused",
    "CardRejected",
    "ConfigurationError",
    "Delegated",
    "DelegationFailed",
    "File",
    "Group",
    "SidecardError",
    "Skill",
    "StepFailed",
    "StoreUnavailable",
    "Task",
    "TaskConflict",
    "create_app",
    "serve",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whatever is exported
    if name not in _WHERE:
        raise AttributeError(f"module 'sidecard' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
