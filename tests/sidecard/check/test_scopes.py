"""agents/callers.yaml against the agents' code."""

import re

import pytest

from sidecard.callers import CallersFile
from sidecard.check import check
from tests.sidecard.check.conftest import STUB, put

FILE = "agents/callers.yaml"


def test_a_scope_of_no_skill_is_found(project):
    """A misspelt scope grants nothing."""
    grants = ("callers", "orchestrator", "grants", "flights")
    project.change(FILE, put(*grants, value=["flights:search", "flights:book", "flights:buy"]))
    assert project.findings() == [(FILE, "'orchestrator' holds 'flights:buy', which means nothing at 'flights'")]


def test_a_skill_that_nobody_may_use_is_a_warning(project):
    """It may be on purpose, so it fails nothing."""
    scopes = ["flights:book", "flights:cancel", "flights:search"]
    project.stub("flights", scopes)
    assert [(f.level, f.problem) for f in check(project.root)] == [
        ("warning", "nobody holds 'flights:cancel' of 'flights'")
    ]


def test_scopes_at_no_agent_are_found(project):
    """An agent is a folder of agents/."""
    project.change(FILE, put("callers", "manager", "grants", "payroll", value=["pay"]))
    assert project.findings() == [(FILE, "'manager' holds scopes at 'payroll', which is no agent")]


def test_a_caller_that_cannot_be_known_is_found(project):
    """A caller comes by its sidecar or with a key."""
    project.change(FILE, put("callers", "manager", "api_key", value=False))
    assert project.findings() == [(FILE, "caller 'manager' can't be known")]


def test_a_sidecar_that_does_not_exist_is_found(project):
    """Its name is the app-id that Dapr vouches for."""
    project.change(FILE, put("callers", "manager", "sidecar", value=True))
    assert (FILE, "caller 'manager' has no sidecar in dapr.yaml") in project.findings()


def test_an_unknown_field_is_found(project):
    """A misspelt field would silently grant less."""
    project.change(FILE, put("callers", "manager", "tenant", value="a"))
    assert any(file == FILE and "callers.manager.tenant" in problem for file, problem in project.findings())


def test_an_agent_of_another_name_is_found(project):
    """Folder, app-id and agent have one name."""
    scopes = ["flights:book", "flights:search"]
    project.write("agents/flights/agent.py", STUB.format(name="flight", scopes=scopes))
    assert project.findings() == [("agents/flights/agent.py", "the agent calls itself 'flight'")]


def test_an_agent_that_cannot_be_imported_is_found(project):
    """The reason is the import's own, in one line."""
    project.write("agents/flights/agent.py", "import nothing_of_this_name")
    reason = "can't be imported: ModuleNotFoundError: No module named 'nothing_of_this_name'"
    assert project.findings() == [("agents/flights/agent.py", reason)]


def test_callers_by_token_and_what_everyone_holds_count(project):
    """A token is a way to be known; what an issuer's people hold must mean something too."""
    project.change(FILE, put("issuers", value={"company": {"url": "https://login.example.org"}}))
    project.change(FILE, put("callers", "manager", "api_key", value=False))
    project.change(FILE, put("callers", "manager", "token", value={"issuer": "company", "subject": "7"}))
    assert project.findings() == []
    project.change(FILE, put("issuers", "company", "everyone", value={"grants": {"flights": ["flights:buy"]}}))
    assert project.findings() == [(FILE, "'everyone of company' holds 'flights:buy', which means nothing at 'flights'")]


@pytest.mark.parametrize("caller", ["desk", "manager"])
def test_who_speaks_for_others_without_need_is_a_warning(project, caller):
    """Agents that call others do; whoever else is believed names any subject it likes."""
    project.change(FILE, put("callers", caller, "speaks_for_others", value=True))
    problem = f"{caller!r} is believed whomever it says it acts for, and is no agent that calls others"
    assert [(f.level, f.problem) for f in check(project.root)] == [("warning", problem)]


def test_a_key_to_an_agents_name_is_a_warning(project):
    """Its sidecar proves who it is already."""
    project.change(FILE, put("callers", "expenses", "api_key", value=True))
    problem = "whoever holds the key of 'expenses' is taken for that agent"
    assert [(f.level, f.problem) for f in check(project.root)] == [("warning", problem)]


def test_a_right_to_whom_an_end_is_escalated_must_be_held(project):
    """By somebody at the agent that delegates, who asks there; else such a task would wait for ever."""
    scopes = ["flights:book", "flights:search"]
    source = STUB.format(name="flights", scopes=scopes).replace(
        'rejected="surface"', 'rejected="escalate:trips:rescue"'
    )
    project.write("agents/flights/agent.py", source)
    problem = "nobody holds 'trips:rescue' of 'orchestrator', to whom {!r} of 'flights' escalates"
    escalations = [found for found in project.findings() if "escalates" in found[1]]
    assert escalations == [(FILE, problem.format(scope)) for scope in scopes]
    project.change(FILE, put("callers", "manager", "grants", "orchestrator", value=["spend:approve", "trips:rescue"]))
    assert not [found for found in project.findings() if "escalates" in found[1]]


def test_the_example_of_an_issuer_is_right(project):
    """What stands in the file's comments can be had by taking the signs away."""
    text = (project.root / FILE).read_text()
    example = text[text.index("# issuers:") : text.index("callers:\n  desk:")]
    project.write(FILE, text.replace(example, re.sub(r"^# ", "", example, flags=re.MULTILINE)))
    assert CallersFile.read(project.root / FILE).issuers["company"].types == ["JWT"]
    assert project.findings() == []
