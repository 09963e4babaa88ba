"""What a skill does about findings, by its policy and by default."""

import pytest

from sidecard import ConfigurationError
from sidecard.screening import Action, Direction, Finding, Kind, Policy

IN, OUT = Direction


def action(policy, kind, direction, receiver="caller", *, prompts_model=False, entity="EMAIL_ADDRESS"):
    return policy.action(Finding(kind, entity, "rule", 0, 1), direction, receiver, prompts_model=prompts_model)


def test_the_defaults():
    """Injection is blocked only where a model would read it; secrets never pass; personal data does not leave."""
    default = Policy()
    assert action(default, Kind.INJECTION, IN) is Action.FLAG
    assert action(default, Kind.INJECTION, IN, prompts_model=True) is Action.BLOCK
    assert action(default, Kind.INJECTION, OUT, prompts_model=True) is Action.FLAG
    assert [action(default, Kind.SECRET, way) for way in (IN, OUT)] == [Action.REDACT, Action.REDACT]
    assert [action(default, Kind.PERSONAL, way) for way in (IN, OUT)] == [Action.FLAG, Action.REDACT]
    assert action(default, Kind.UNREAD, IN) is Action.FLAG


def test_a_receiver_gets_the_kinds_of_personal_data_that_it_needs():
    """And no others; what everybody may have is listed for `*`. A secret is nobody's need."""
    policy = Policy(needs={"airline": {"EMAIL_ADDRESS"}, "*": {"IP_ADDRESS"}})
    assert action(policy, Kind.PERSONAL, OUT, "airline") is Action.ALLOW
    assert action(policy, Kind.PERSONAL, OUT, "airline", entity="PHONE_NUMBER") is Action.REDACT
    assert action(policy, Kind.PERSONAL, OUT, "hotel") is Action.REDACT
    assert action(policy, Kind.PERSONAL, OUT, "hotel", entity="IP_ADDRESS") is Action.ALLOW
    assert action(policy, Kind.SECRET, OUT, "airline") is Action.REDACT


def test_instructions_are_not_redacted():
    """What is left of such a text is no safer: it is blocked, flagged or allowed."""
    with pytest.raises(ConfigurationError, match="can't be redacted"):
        Policy(injection=Action.REDACT)
