"""The errors of the library, one family.

SidecardError
├── ConfigurationError   the project or its environment is set up wrongly
├── CardRejected         an Agent Card is unsigned, altered or not from a pinned publisher
├── AgentUnavailable     another agent, the registry or a tool server can't be reached
│   └── AccessDenied     its access rules refuse this app
├── IssuerUnavailable    an issuer of tokens can't be reached
│   └── IssuerNotBelieved  what it says of itself can't be believed
├── DelegationFailed     a delegated task ended without success
├── StoreUnavailable     the Dapr state store does not answer
├── WebhookRejected      what a webhook received is not from whom it should be
└── TaskConflict         somebody else has created this log entry
    └── LogBroken        a log does not chain: the store lost or mixed writes

Each message says what happened and what to do about it. Those that never leave a few modules stand there:
`egress.DestinationRefused`, and the task engine's.
"""


class SidecardError(Exception):
    """Base of every error that the library raises on purpose."""


class ConfigurationError(SidecardError):
    """The project, its environment or its store is set up wrongly; nothing can run until it is mended."""


class CardRejected(SidecardError):
    """An Agent Card did not verify, so nothing it says is believed."""


class AgentUnavailable(SidecardError):
    """Another agent, the registry or a tool server can't be reached now; the same call may succeed later."""


class AccessDenied(AgentUnavailable):
    """Access rules refuse this app; the same call is refused until somebody changes them."""


class IssuerUnavailable(SidecardError):
    """An issuer of tokens can't be reached now, or does not describe itself as it must."""


class IssuerNotBelieved(IssuerUnavailable):
    """An issuer describes another one, or names addresses that can't be believed: somebody must correct that."""


class DelegationFailed(SidecardError):
    """A delegated task ended FAILED, CANCELED or REJECTED.

    `state` is the A2A state's name, `reason` the other agent's own words.
    """

    def __init__(self, agent: str, skill: str, state: str, reason: str) -> None:
        super().__init__(f"{skill} of {agent} ended {state}: {reason}")
        self.agent, self.skill, self.state, self.reason = agent, skill, state, reason


class StoreUnavailable(SidecardError):
    """The state store does not answer; nothing was acknowledged."""


class WebhookRejected(SidecardError):
    """What a webhook received is not signed with a secret we know, or is too old."""


class TaskConflict(SidecardError):
    """The log entry exists already with other content: fold what was missed and decide again."""


class LogBroken(TaskConflict):
    """A log does not chain. The task is stopped rather than continued on a history that may be wrong."""


class SignInFailed(SidecardError):
    """Nobody has signed in at an issuer; the words say why."""
