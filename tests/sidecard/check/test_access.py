"""components/access/ against agents/callers.yaml."""

import pytest

from tests.sidecard.check.conftest import put

FILE = "components/access/flights.yaml"
CONTROL = ("spec", "accessControl")


def policy(caller, **changes):
    """Changes what one caller may do."""
    return lambda d: next(p for p in d["spec"]["accessControl"]["policies"] if p["appId"] == caller).update(changes)


def allow(path, *verbs):
    return {"name": path, "httpVerb": list(verbs), "action": "allow"}


CARD = allow("/.well-known/agent-card.json", "GET")


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (put("spec", "mtls", "enabled", value=False), "mTLS is off, so callers can't be known"),
        (put(*CONTROL, "defaultAction", value="allow"), "does not deny by default"),
        (policy("registry", defaultAction="allow"), "does not deny 'registry' by default"),
        (
            policy("registry", namespace="elsewhere"),
            "knows 'registry' in another namespace or trust domain than the sidecars run in",
        ),
        (
            policy("registry", trustDomain="elsewhere"),
            "knows 'registry' in another namespace or trust domain than the sidecars run in",
        ),
        (policy("orchestrator", operations=[CARD]), "allows 'orchestrator' GET /.well-known/agent-card.json"),
        (
            policy("orchestrator", operations=[CARD, allow("/a2a", "POST", "GET")]),
            "allows 'orchestrator' GET /.well-known/agent-card.json, GET/POST /a2a",
        ),
        (
            policy("orchestrator", operations=[CARD, allow("/a2a", "POST"), allow("/rest", "POST")]),
            "allows 'orchestrator' GET /.well-known/agent-card.json, POST /a2a, POST /rest",
        ),
        (lambda d: d["spec"]["secrets"]["scopes"][0].update(defaultAccess="allow"), "shows 'flights' every secret"),
        (
            lambda d: d["spec"]["secrets"]["scopes"][0]["allowedSecrets"].remove("trust"),
            "hides the secret 'trust', which 'flights' needs",
        ),
    ],
)
def test_one_disagreement_is_one_finding(project, how, problem):
    """Default-deny, mTLS, exact paths, own secrets."""
    project.change(FILE, how)
    # What k8s/base lets the sidecar read follows the same scopes, and says so as well.
    assert [found for found in project.findings() if not found[0].startswith("k8s/")] == [(FILE, problem)]


def test_a_wildcard_is_found(project):
    """A path or a method that stands for others allows more than anybody listed."""
    project.change(FILE, policy("orchestrator", operations=[CARD, allow("/**", "POST")]))
    assert (FILE, "allows 'orchestrator' a wildcard: /** ['POST']") in project.findings()
    project.change(FILE, policy("orchestrator", operations=[CARD, allow("/a2a", "*")]))
    assert (FILE, "allows 'orchestrator' a wildcard: /a2a ['*']") in project.findings()


def test_somebody_elses_secret_is_found(project):
    """A sidecar shows an app its own secrets and the publishers it trusts."""
    project.change(FILE, lambda d: d["spec"]["secrets"]["scopes"][0]["allowedSecrets"].append("expenses"))
    assert (FILE, "shows 'flights' the secret 'expenses' of somebody else") in project.findings()


def test_a_caller_that_holds_no_scope_is_found(project):
    """The rules of the sidecars and those of the apps name the same callers."""
    extra = {
        "appId": "expenses",
        "namespace": "default",
        "trustDomain": "public",
        "defaultAction": "deny",
        "operations": [],
    }
    project.change(FILE, lambda d: d["spec"]["accessControl"]["policies"].append(extra))
    assert project.findings() == [(FILE, "lets 'expenses' call 'flights', which agents/callers.yaml does not imply")]


def test_a_caller_that_is_not_let_in_is_found(project):
    """Who holds a scope must get through."""
    project.change(FILE, put(*CONTROL, "policies", value=[]))
    assert project.findings() == [
        (FILE, "refuses 'orchestrator', which must reach 'flights'"),
        (FILE, "refuses 'registry', which must reach 'flights'"),
    ]


def test_an_app_that_may_not_enrol_is_found(project):
    """Every app enrols itself in the registry."""
    file = "components/access/registry.yaml"
    project.change(file, policy("vendors", operations=[allow("/agents", "GET")]))
    assert project.findings() == [(file, "allows 'vendors' GET /agents")]


def test_a_tool_server_serves_one_path(project):
    """Its rules name its callers; what they may do there is fixed."""
    file = "components/access/vendors.yaml"
    project.change(file, policy("expenses", operations=[allow("/mcp", "POST"), allow("/healthz", "GET")]))
    assert project.findings() == [(file, "allows 'expenses' GET /healthz, POST /mcp")]


def test_another_name_is_found(project):
    """On Kubernetes a Configuration is found by its name."""
    project.change(FILE, put("metadata", "name", value="flight"))
    assert (FILE, "is named 'flight'") in project.findings()


def test_missing_rules_are_found(project):
    """Without a Configuration a sidecar lets everybody in."""
    (project.root / FILE).unlink()
    assert (FILE, "is missing: without it anybody may call 'flights'") in project.findings()


def test_rules_of_nobody_are_found(project):
    """A file that belongs to no app is a leftover."""
    (project.root / "components/access/old.yaml").write_text((project.root / FILE).read_text())
    assert ("components/access/old.yaml", "belongs to no app of dapr.yaml") in project.findings()


@pytest.mark.parametrize("path", ["/", "", "a2a", "/a", "/a2a/", "/A2A", "/rest", "/.well-known", "/a2a/x", "/./a2a"])
def test_a_path_that_lets_in_more_or_else_is_found(project, path):
    """Dapr takes each for a prefix, in any case: only what the callee serves to this caller may stand there."""
    project.change(FILE, policy("orchestrator", operations=[CARD, allow("/a2a", "POST"), allow(path, "POST")]))
    assert any(file == FILE and "allows 'orchestrator'" in problem for file, problem in project.findings())


@pytest.mark.parametrize("action", ["Allow", "ALLOW", "", "yes", None])
def test_an_action_in_another_spelling_is_found(project, action):
    """Dapr takes "ALLOW" for allow; a check that did not see it would see no path allowed there."""
    operations = [CARD, allow("/a2a", "POST"), {**allow("/rest", "POST"), "action": action}]
    project.change(FILE, policy("orchestrator", operations=operations))
    assert (FILE, f"has the action {action!r} for 'orchestrator' at /rest") in project.findings()


def test_a_second_policy_or_path_of_the_same_name_is_found(project):
    """The check would read one of them, and Dapr the other."""
    wide = {"appId": "orchestrator", "namespace": "default", "trustDomain": "public", "defaultAction": "deny"}
    wide["operations"] = [CARD, allow("/a2a", "POST")]
    project.change(FILE, lambda d: d["spec"]["accessControl"]["policies"].insert(0, wide))
    problem = "has several policies for 'orchestrator', of which Dapr follows one"
    assert project.findings() == [(FILE, problem)]
    project.change(FILE, lambda d: d["spec"]["accessControl"]["policies"].pop(0))
    project.change(FILE, policy("orchestrator", operations=[CARD, allow("/a2a", "POST", "PUT"), allow("/a2a", "POST")]))
    assert project.findings() == [(FILE, "names /a2a twice for 'orchestrator', of which Dapr follows one")]


@pytest.mark.parametrize("domain", ["elsewhere", "*", None])
def test_another_trust_domain_is_found(project, domain):
    """All sidecars are of one; in another the same app-id is somebody else."""

    def change(document):
        control = document["spec"]["accessControl"]
        for one in (control, *control["policies"]):
            one["trustDomain"] = domain

    project.change(FILE, change)
    assert (FILE, f"is in the trust domain {domain!r}, and most others in 'public'") in project.findings()


def test_a_second_secret_store_is_closed_too(project):
    """Every sidecar would read all of it: without a scope all secrets of a store are open."""
    store = "components/vault.yaml"
    kind = "{type: secretstores.hashicorp.vault, version: v1, metadata: []}"
    project.write(store, f"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: vault}}\nspec: {kind}\n")
    found = [problem for file, problem in project.findings() if file == FILE]
    assert found == ["shows 'flights' every secret of 'vault'"]
    scope = {"storeName": "vault", "defaultAccess": "deny", "allowedSecrets": ["flights"]}
    project.change(FILE, lambda d: d["spec"]["secrets"]["scopes"].append(scope))
    found = [problem for file, problem in project.findings() if file == FILE]
    assert found == ["shows 'flights' the secret 'flights' of somebody else"]
    project.change(FILE, lambda d: d["spec"]["secrets"]["scopes"][-1].update(allowedSecrets=[]))
    assert [problem for file, problem in project.findings() if file == FILE] == []
    again = {"storeName": "secrets", "defaultAccess": "allow"}
    project.change(FILE, lambda d: d["spec"]["secrets"]["scopes"].insert(0, again))
    assert (FILE, "scopes a secret store twice") in project.findings()


@pytest.mark.parametrize("scopes", [[], None])
def test_a_grant_that_is_withdrawn_in_one_place_is_found(project, scopes):
    """Who holds nothing at an agent any more is not let in there either."""
    where = ("callers", "orchestrator", "grants", "flights")
    project.change("agents/callers.yaml", put(*where, value=scopes))
    assert (FILE, "lets 'orchestrator' call 'flights', which agents/callers.yaml does not imply") in project.findings()


def test_a_key_lets_nobody_through_the_sidecars(project):
    """Who is known by a key only comes to the agents' own ports; a rule for its name would be somebody else's."""
    extra = {"appId": "manager", "namespace": "default", "trustDomain": "public", "defaultAction": "deny"}
    extra["operations"] = [CARD, allow("/a2a", "POST")]
    file = "components/access/expenses.yaml"
    project.change(file, lambda d: d["spec"]["accessControl"]["policies"].append(extra))
    assert project.findings() == [(file, "lets 'manager' call 'expenses', which agents/callers.yaml does not imply")]
