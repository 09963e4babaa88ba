"""k8s/base: network policies."""

import pytest

from tests.sidecard.check.conftest import put

MESH, NETWORK = "k8s/base/mesh.yaml", "k8s/base/network.yaml"


def callers(direction, *apps):
    """Who may come in to, or be reached from, a sidecar."""
    word = {"ingress": "from", "egress": "to"}[direction]
    selector = {"key": "app.kubernetes.io/name", "operator": "In", "values": list(apps)}
    return put("spec", direction, 0, word, value=[{"podSelector": {"matchExpressions": [selector]}}])


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (callers("ingress", "registry"), "'flights' has ingress from registry at 50002"),
        (
            callers("ingress", "orchestrator", "registry", "vendors"),
            "'flights' has ingress from orchestrator, registry, vendors at 50002",
        ),
        (callers("egress", "registry", "expenses"), "'flights' has egress to expenses, registry at 50002"),
        (put("spec", "ingress", 0, "from"), "'flights' has ingress from anybody at 50002"),
    ],
)
def test_other_pairs_than_the_access_rules_are_found(project, how, problem):
    """Sidecars reach each other exactly where a call is allowed."""
    project.change(MESH, how, "NetworkPolicy", "flights")
    assert project.findings() == [(MESH, problem)]


def test_a_missing_default_deny_is_found(project):
    """What is not listed is refused."""
    project.change(NETWORK, put("spec", "policyTypes", value=["Ingress"]), "NetworkPolicy", "default-deny")
    assert project.findings() == [(NETWORK, "nothing is denied by default")]


def test_an_app_reached_past_its_sidecar_is_found(project):
    """Access rules hold only for what comes through the sidecar."""
    open_port = put("spec", "ingress", 0, "ports", value=[{"port": 50002}, {"port": 8102}])
    project.change(MESH, open_port, "NetworkPolicy", "flights")
    assert project.findings() == [(NETWORK, "orchestrator, registry can reach 'flights' at 8102, past its sidecar")]


@pytest.mark.parametrize(
    ("policy", "what"),
    [("dns", "DNS"), ("kubernetes-api", "the Kubernetes API (secrets)"), ("database", "the database")],
)
def test_what_a_sidecar_needs_and_cannot_reach_is_found(project, policy, what):
    """Without it a sidecar never gets ready."""
    project.change(NETWORK, put("spec", "podSelector", value={"matchLabels": {"no": "pod"}}), "NetworkPolicy", policy)
    found = project.findings()
    assert (NETWORK, f"'flights' can't reach {what}") in found
    assert {problem.partition(" can't reach ")[2] for _, problem in found} == {what}


def test_the_control_plane_out_of_reach_is_found(project):
    """Sentry and the operator are in another namespace."""
    project.change(NETWORK, put("spec", "egress", value=[]), "NetworkPolicy", "dapr-control-plane")
    found = project.findings()
    assert (NETWORK, "'flights' can't reach sentry") in found
    assert (NETWORK, "'flights' can't reach Dapr's operator") in found


def test_a_database_open_to_who_keeps_nothing_is_found(project):
    """The tool server has no state."""
    project.change(NETWORK, put("spec", "podSelector", value={}), "NetworkPolicy", "database")
    assert project.findings() == [(NETWORK, "'vendors' reaches the database, but keeps no state")]
