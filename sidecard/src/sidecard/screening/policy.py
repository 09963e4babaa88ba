"""What a skill does about findings."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sidecard.errors import ConfigurationError
from sidecard.screening.finding import Action, Direction, Finding, Kind

CALLER = "caller"
"""Whoever a task is for, as a receiver: of its artifacts, questions and last words."""
ANYONE = "*"


@dataclass(frozen=True, slots=True)
class Policy:
    """The actions for what is found in the messages of a skill; each default has its reason.

    - `injection`: None means that it is blocked for a skill that hands text to a model (`prompts_model`), which may
      obey it, and flagged for any other: code does not follow instructions that it reads.
    - `secrets`: redacted both ways. Nobody is asked to send one, and what is stored or sent on is hard to take back.
    - `personal_in`: flagged. The sender has chosen to tell it, and a travel agent must know whom to call; the log says
      that the task holds some.
    - `personal_out`: redacted, whoever receives it, but for what `needs` lists: who must know what to do its work.
      `{"airline": {"EMAIL_ADDRESS"}}` lets an agent have e-mail addresses, `"caller"` is whom the task is for, `"*"` is
      everyone.
    - `unread`: files that are no text are flagged as not inspected.

    Of an artifact that is given out in chunks, its last word and numbers are held back until something follows, so that
    nothing is cut in two; see pieces.

    Instructions can't be cut out of a text so that the rest is safe: they are not redacted. Raises ConfigurationError.
    """

    injection: Action | None = None
    secrets: Action = Action.REDACT
    personal_in: Action = Action.FLAG
    personal_out: Action = Action.REDACT
    unread: Action = Action.FLAG
    needs: Mapping[str, frozenset[str] | set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, action in (("injection", self.injection), ("unread", self.unread)):
            if action is Action.REDACT:
                raise ConfigurationError(f"{name} can't be redacted, only blocked, flagged or allowed: choose one")

    def action(self, finding: Finding, direction: Direction, receiver: str, *, prompts_model: bool) -> Action:
        """What to do about a finding in what goes to, or comes from, `receiver`: an agent, or CALLER."""
        match finding.kind:
            case Kind.INJECTION:
                if self.injection is not None:
                    return self.injection
                return Action.BLOCK if prompts_model and direction is Direction.IN else Action.FLAG
            case Kind.SECRET:
                return self.secrets
            case Kind.UNREAD:
                return self.unread
            case Kind.PERSONAL:
                if direction is Direction.IN:
                    return self.personal_in
                wanted = (*self.needs.get(receiver, ()), *self.needs.get(ANYONE, ()))
                return Action.ALLOW if finding.entity in wanted else self.personal_out


DEFAULT = Policy()
