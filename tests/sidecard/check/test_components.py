"""Components and resiliency."""

import json

import pytest

from sidecard.check import check
from tests.sidecard.check.conftest import put

STATE = "components/state.yaml"
FILE = "resiliency/resiliency.yaml"
TARGETS = ("spec", "targets")
POLICIES = ("spec", "policies")


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (
            put(*TARGETS, "components", value={"state": {"outbound": {"retry": "agent"}}}),
            "the task log's component has a policy, which takes a conflict for a failure",
        ),
        (
            put(*POLICIES, "retries", "DefaultRetryPolicy", value={"policy": "constant"}),
            "DefaultRetryPolicy applies to the task log or to streams too",
        ),
        (
            put(*POLICIES, "timeouts", value={"DefaultAppTimeoutPolicy": "5s"}),
            "DefaultAppTimeoutPolicy applies to the task log or to streams too",
        ),
        (
            put(*TARGETS, "apps", "flights", "timeout", value="short"),
            "a time-out cuts the streams of 'flights' and repeats POSTs that still run",
        ),
        (put(*TARGETS, "apps", "flights"), None),
        (
            put(*TARGETS, "apps", "flights", "retry", value="other"),
            "'flights' names the retry 'other', which is not there",
        ),
        (put(*TARGETS, "apps", "flight", value={}), "'flight' is no app"),
    ],
)
def test_one_disagreement_is_one_finding(project, how, problem):
    """Agents have retries and breakers and no time-outs; the task log has no policy at all."""
    project.change(FILE, how)
    both = [f"calls of 'flights' have no {policy}" for policy in ("circuitBreaker", "retry")]
    assert project.findings() == [(FILE, text) for text in ([problem] if problem else both)]


def test_a_shared_sqlite_file_is_found(project):
    """Several sidecars on one file lock each other out."""
    project.change(STATE, lambda d: d["spec"]["metadata"][0].update(value="data/state.db"))
    assert project.findings() == [(STATE, "agents share one SQLite file and would lock each other out")]


SHARED = "components/postgresql/state.yaml"


def set_metadata(name, value):
    return lambda document: document["spec"]["metadata"].append({"name": name, "value": value})


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (put("spec", "type", value="state.mongodb"), "which is not known to keep what it has acknowledged"),
        (put("spec", "type", value="state.in-memory"), "which is not known to keep what it has acknowledged"),
        (set_metadata("ttlInSeconds", "3600"), "lets tasks expire while they still run"),
        (set_metadata("keyPrefix", "none"), "agents would write into each other's tasks under the key prefix 'none'"),
        (set_metadata("keyPrefix", "name"), "agents would write into each other's tasks under the key prefix 'name'"),
        (put("spec", "type", value="state.redis"), "Redis keeps what it has acknowledged only as it is told to"),
    ],
)
def test_a_store_that_does_not_keep_tasks_is_found(project, how, problem):
    """Of a kind that loses or evicts, that lets keys expire, or in which one agent's keys are another's."""
    project.change(SHARED, how)
    assert [(file, problem in found) for file, found in project.findings()] == [(SHARED, True)]


@pytest.mark.parametrize("prefix", ["appid", "namespace", "{appID}-v2"])
def test_a_prefix_that_holds_the_app_id_is_fine(project, prefix):
    """Each agent's keys are its own."""
    project.change(SHARED, set_metadata("keyPrefix", prefix))
    assert project.findings() == []


def test_what_redis_must_be_told_is_a_warning(project):
    """No component shows how the server was started."""
    project.change(SHARED, put("spec", "type", value="state.redis"))
    assert [(finding.level, "appendfsync always" in finding.fix) for finding in check(project.root)] == [
        ("warning", True)
    ]


def test_a_state_store_hidden_from_an_agent_is_found(project):
    """Scopes of the store name every app that keeps something there."""
    file = "components/postgresql/state.yaml"
    project.change(file, lambda d: d["scopes"].remove("registry"))
    assert (file, "is hidden from 'registry', which keeps its state there") in project.findings()


@pytest.mark.parametrize("name", ["state", "secrets"])
def test_a_missing_component_is_found(project, name):
    """Every agent uses both stores."""
    project.change(f"components/{name}.yaml", put("metadata", "name", value="other"))
    assert (f"components/{name}.yaml", f"there is no component {name!r}") in project.findings()


def screening(kind="conversation.echo", scopes=None):
    """A component that a sidecar scrubs for."""
    component = {"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": "scrubber"}}
    return json.dumps(component | {"spec": {"type": kind, "version": "v1"}} | ({"scopes": scopes} if scopes else {}))


@pytest.mark.parametrize(
    ("component", "problem"),
    [
        ("", "there is no component 'scrubber', by which 'flights' screens messages"),
        (
            screening("conversation.openai"),
            "is conversation.openai, which does not repeat what 'flights' wants scrubbed",
        ),
        (screening(scopes=["expenses"]), "is hidden from 'flights', which screens messages by it"),
        (screening(scopes=["flights"]), None),
        (screening(), None),
    ],
)
def test_a_screen_has_its_component(project, component, problem):
    """Which is there, repeats what it is told, and is shown to the agent."""
    if component:
        project.write("components/scrubber.yaml", component)

    def screens(run_file):
        [flights] = [app for app in run_file["apps"] if app["appID"] == "flights"]
        flights["env"]["SIDECARD_SCREEN"] = "conversation:scrubber"

    project.change("dapr.yaml", screens)
    found = [one for one in project.findings() if one[0] == "components/scrubber.yaml"]
    assert found == ([("components/scrubber.yaml", problem)] if problem else [])
