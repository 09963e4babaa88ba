"""Content inspection: what goes into an agent's tasks and out of them is looked through before it is stored or sent.

What a skill's author uses: policy (Policy, Action). What looks: screen (the interface), local (the default, of
personal, secret, injection and plain), remote (a service of one's own), conversation (a Dapr component).
What acts: guard, with strings (where text stands), vault (reversible redaction), tools (MCP) and finding.
"""

from sidecard.screening.finding import Action, Decision, Direction, Finding, Kind, ScreeningFailed, Withheld
from sidecard.screening.policy import ANYONE, CALLER, Policy

__all__ = [
    "ANYONE",
    "CALLER",
    "Action",
    "Decision",
    "Direction",
    "Finding",
    "Kind",
    "Policy",
    "ScreeningFailed",
    "Withheld",
]
