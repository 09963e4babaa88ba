"""Dapr's half of access control (components/access/) against agents/callers.yaml: these callers, these paths."""

from collections.abc import Iterator
from typing import Any

from sidecard.check.estate import Estate, dig
from sidecard.check.finding import Finding

FOLDER = "components/access"
TRUST = "trust"
STORE = "secrets"


def check(estate: Estate) -> Iterator[Finding]:
    """Every sidecar denies by default, allows what is implied and no more, and sees its own secrets only."""
    for app_id in estate.run_file:
        file = f"{FOLDER}/{app_id}.yaml"
        if not (estate.root / file).exists():
            yield Finding(file, f"is missing: without it anybody may call {app_id!r}", "write its Configuration")
            continue
        named = dig(estate.document(file), "metadata", "name")
        if named != app_id:
            yield Finding(file, f"is named {named!r}", f"set metadata.name: {app_id}, which Kubernetes looks for")
        spec = estate.access(app_id)
        yield from _denies(file, spec)
        yield from _allows(estate, file, app_id, spec)
        yield from _secrets(estate, file, app_id, spec)
    yield from _one_trust_domain(estate)
    files = (estate.root / FOLDER).glob("*.yaml")
    for name in sorted({path.stem for path in files} - set(estate.run_file) - {"kustomization"}):
        yield Finding(f"{FOLDER}/{name}.yaml", "belongs to no app of dapr.yaml", "delete it, or add the app")


def _denies(file: str, spec: dict[str, Any]) -> Iterator[Finding]:
    if dig(spec, "mtls", "enabled") is not True:
        yield Finding(file, "mTLS is off, so callers can't be known", "set spec.mtls.enabled: true")
    control = spec.get("accessControl") or {}
    if control.get("defaultAction") != "deny":
        yield Finding(file, "does not deny by default", "set spec.accessControl.defaultAction: deny")
    policies = control.get("policies") or []
    named = [policy.get("appId") for policy in policies]
    for who in sorted({str(who) for who in named if named.count(who) > 1}):
        yield Finding(file, f"has several policies for {who!r}, of which Dapr follows one", "make them one")
    for policy in policies:
        who = policy.get("appId")
        yield from _operations(file, str(who), policy.get("operations") or [])
        if policy.get("defaultAction") != "deny":
            yield Finding(file, f"does not deny {who!r} by default", "set defaultAction: deny in its policy")
        if policy.get("namespace") != "default" or policy.get("trustDomain") != control.get("trustDomain"):
            yield Finding(
                file, f"knows {who!r} in another namespace or trust domain than the sidecars run in",
                "write namespace: default (Kubernetes replaces it) and the trustDomain of spec.accessControl",
            )  # fmt: skip


def _operations(file: str, who: str, operations: list[dict[str, Any]]) -> Iterator[Finding]:
    """What Dapr (1.18) reads otherwise than it looks: "Allow" is allow, and of a path named twice one counts."""
    named = [str(operation.get("name")) for operation in operations]
    for name in sorted({name for name in named if named.count(name) > 1}):
        yield Finding(file, f"names {name} twice for {who!r}, of which Dapr follows one", "name each path once")
    for operation in operations:
        if operation.get("action") not in {"allow", "deny"}:
            problem = f"has the action {operation.get('action')!r} for {who!r} at {operation.get('name')}"
            yield Finding(file, problem, "write action: allow; what is not listed is denied")


def _one_trust_domain(estate: Estate) -> Iterator[Finding]:
    """All sidecars are of one trust domain; in another one the same app-id is somebody else."""
    domains = {
        f"{FOLDER}/{app_id}.yaml": dig(estate.access(app_id), "accessControl", "trustDomain")
        for app_id in estate.run_file
        if (estate.root / FOLDER / f"{app_id}.yaml").exists()
    }
    common = max(domains.values(), key=list(domains.values()).count, default=None)
    for file, domain in domains.items():
        if domain != common or not isinstance(domain, str) or "*" in domain:
            yield Finding(file, f"is in the trust domain {domain!r}, and most others in {common!r}",
                          "write the same spec.accessControl.trustDomain everywhere, without wildcards")  # fmt: skip


def _allows(estate: Estate, file: str, app_id: str, spec: dict[str, Any]) -> Iterator[Finding]:
    allowed: dict[str, dict[str, frozenset[str]]] = {}
    for policy in dig(spec, "accessControl", "policies") or []:
        operations = [o for o in policy.get("operations") or [] if o.get("action") == "allow"]
        for operation in operations:
            path, verbs = str(operation.get("name")), [str(verb) for verb in operation.get("httpVerb") or ["*"]]
            if "*" in path or "*" in verbs:
                yield Finding(
                    file, f"allows {policy.get('appId')!r} a wildcard: {path} {verbs}", "list paths and methods"
                )
        paths = {str(o.get("name")): frozenset(map(str, o.get("httpVerb") or ["*"])) for o in operations}
        allowed[str(policy.get("appId"))] = paths
    expected = estate.calls.get(app_id, {})
    for caller in sorted(allowed.keys() - expected.keys()):
        yield Finding(file, f"lets {caller!r} call {app_id!r}, which agents/callers.yaml does not imply",
                      "remove the policy, or grant the caller a scope")  # fmt: skip
    for caller in sorted(expected.keys() - allowed.keys()):
        yield Finding(file, f"refuses {caller!r}, which must reach {app_id!r}", f"allow it {_words(expected[caller])}")
    for caller in sorted(allowed.keys() & expected.keys()):
        if allowed[caller] != expected[caller]:
            yield Finding(file, f"allows {caller!r} {_words(allowed[caller])}", f"allow it {_words(expected[caller])}")


def _words(paths: dict[str, frozenset[str]]) -> str:
    return ", ".join(f"{'/'.join(sorted(verbs))} {path}" for path, verbs in sorted(paths.items())) or "nothing"


def _secrets(estate: Estate, file: str, app_id: str, spec: dict[str, Any]) -> Iterator[Finding]:
    listed = dig(spec, "secrets", "scopes") or []
    scopes = {scope.get("storeName"): scope for scope in listed}
    if len(scopes) < len(listed):
        yield Finding(file, "scopes a secret store twice", "make them one: Dapr follows one of them")
    for store in sorted({STORE, *_other_stores(estate)}):
        if (scopes.get(store) or {}).get("defaultAccess") != "deny":
            yield Finding(file, f"shows {app_id!r} every secret" + ("" if store == STORE else f" of {store!r}"),
                          f"scope the store {store!r}: defaultAccess: deny")  # fmt: skip
    allowed = {(store, name) for store, scope in scopes.items() for name in scope.get("allowedSecrets") or []}
    for store, name in sorted(allowed, key=str):
        if store != STORE or name not in {app_id, TRUST}:
            yield Finding(
                file, f"shows {app_id!r} the secret {name!r} of somebody else", "remove it from allowedSecrets"
            )
    is_agent = app_id in estate.apps and estate.apps[app_id].kind == "agent"
    for name in sorted({app_id, TRUST} - {name for store, name in allowed if store == STORE} if is_agent else ()):
        yield Finding(file, f"hides the secret {name!r}, which {app_id!r} needs", "add it to allowedSecrets")


def _other_stores(estate: Estate) -> Iterator[str]:
    """Secret stores that every sidecar loads besides the one that is ours."""
    for path in sorted((estate.root / "components").glob("*.yaml")):
        for document in estate.documents(f"components/{path.name}"):
            kind, name = str(dig(document, "spec", "type")), dig(document, "metadata", "name")
            if kind.startswith("secretstores.") and name != STORE:
                yield str(name)
