"""Network policies against the access rules: sidecars reach those that they may call, nothing reaches an app."""

from collections.abc import Iterator
from typing import Any, Literal

from sidecard.check import manifests
from sidecard.check.estate import Estate, dig
from sidecard.check.finding import Finding
from sidecard.check.kustomize import Resource

SIDECAR_PORT = 50002
MESH = "k8s/base/mesh.yaml"
NETWORK = "k8s/base/network.yaml"
_LABEL = "app.kubernetes.io/name"

Direction = Literal["ingress", "egress"]
_PEERS: dict[Direction, str] = {"ingress": "from", "egress": "to"}


def check(estate: Estate) -> Iterator[Finding]:
    """Default-deny, then exactly the pairs that call each other, DNS, the control plane, and the database."""
    resources = manifests.read(estate)
    policies = [resource for (kind, _), resource in resources.items() if kind == "NetworkPolicy"]
    if not any(_denies_all(policy.object) for policy in policies):
        yield Finding(NETWORK, "nothing is denied by default", "add a policy with podSelector: {} and no rules")
    apps = [name for name in estate.apps if ("Deployment", name) in resources]
    callers = {name: {c for c in estate.calls.get(name, {}) if c in apps} for name in apps}
    for name in apps:
        callees = {callee for callee in apps if name in callers[callee]}
        wanted: tuple[tuple[Direction, set[str]], ...] = (("ingress", callers[name]), ("egress", callees))
        for direction, expected in wanted:
            found = _peers(policies, name, direction, SIDECAR_PORT, apps)
            if found != expected:
                yield Finding(MESH, f"{name!r} has {direction} {_PEERS[direction]} {_words(found)} at {SIDECAR_PORT}",
                              f"allow exactly {_words(expected)}, as components/access/ does")  # fmt: skip
        yield from _app_ports(estate, policies, name, apps)
        yield from _needs(resources, policies, name)


def _app_ports(estate: Estate, policies: list[Resource], name: str, apps: list[str]) -> Iterator[Finding]:
    app = estate.apps[name]
    for port in (app.port, app.grpc_port):
        reached = _peers(policies, name, "ingress", port, apps) if port else set()
        if reached:
            yield Finding(NETWORK, f"{_words(reached)} can reach {name!r} at {port}, past its sidecar",
                          f"leave {port} to the gateway's namespace")  # fmt: skip


def _needs(resources: manifests.Resources, policies: list[Resource], name: str) -> Iterator[Finding]:
    egress = [rule for policy in policies if _selects(policy.object, name) for rule in _rules(policy.object, "egress")]
    state = resources.get(("Component", "state"))
    needs = {53: "DNS", 50001: "sentry", 6500: "Dapr's operator", 443: "the Kubernetes API (secrets)"}
    if state is None or name in (state.object.get("scopes") or [name]):
        needs[5432] = "the database"
    elif any(5432 in _ports(rule) for rule in egress):  # noqa: PLR2004 -- PostgreSQL's port
        yield Finding(NETWORK, f"{name!r} reaches the database, but keeps no state", "leave it out of that policy")
    for port, what in needs.items():
        if not any(port in _ports(rule) for rule in egress):
            yield Finding(NETWORK, f"{name!r} can't reach {what}", f"allow it egress to port {port}")


def _denies_all(policy: dict[str, Any]) -> bool:
    spec = policy.get("spec") or {}
    empty = spec.get("podSelector") == {} and not spec.get("ingress") and not spec.get("egress")
    return empty and set(spec.get("policyTypes") or []) == {"Ingress", "Egress"}


def _rules(policy: dict[str, Any], direction: Direction) -> list[dict[str, Any]]:
    return list(dig(policy, "spec", direction) or [])


def _ports(rule: dict[str, Any]) -> set[int]:
    return {port["port"] for port in rule.get("ports") or [] if isinstance(port.get("port"), int)}


def _selects(policy: dict[str, Any], app: str) -> bool:
    return _matches(dig(policy, "spec", "podSelector") or {}, app)


def _matches(selector: dict[str, Any], app: str) -> bool:
    """Whether a label selector takes an app's pods, which are told apart by their name label."""
    labels = selector.get("matchLabels") or {}
    if any(key == _LABEL and value != app for key, value in labels.items()):
        return False
    if any(key not in {_LABEL, "app.kubernetes.io/part-of"} for key in labels):
        return False
    for expression in selector.get("matchExpressions") or []:
        inside = app in (expression.get("values") or [])
        if expression.get("key") != _LABEL or inside != (expression.get("operator") == "In"):
            return False
    return True


def _peers(policies: list[Resource], app: str, direction: Direction, port: int, apps: list[str]) -> set[str]:
    """The apps on the other side of this port that the policies let through. "anybody" stands for an open rule."""
    found: set[str] = set()
    for policy in policies:
        if not _selects(policy.object, app):
            continue
        for rule in _rules(policy.object, direction):
            if rule.get("ports") and port not in _ports(rule):
                continue
            if not rule.get(_PEERS[direction]):
                found.add("anybody")
            for peer in rule.get(_PEERS[direction]) or []:
                if "namespaceSelector" not in peer and "podSelector" in peer:
                    found |= {other for other in apps if other != app and _matches(peer["podSelector"], other)}
                elif peer.get("namespaceSelector") == {} and "podSelector" not in peer:
                    found.add("anybody")
    return found


def _words(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nobody"
