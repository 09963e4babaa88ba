"""Components and resiliency: what the task engine and its streams cannot bear, and what every agent needs."""

from collections.abc import Iterator
from typing import Any

from sidecard.check.estate import Estate, dig
from sidecard.check.finding import Finding
from sidecard.tasks.store import KINDS

STATE, SECRETS = "state", "secrets"
ECHO = "conversation.echo"
"""The component whose answer is what Dapr has scrubbed."""
PREFIXES = ("appid", "namespace")
"""What Dapr's `keyPrefix` may be where agents share a store: each of these holds the app-id."""


def check(estate: Estate) -> Iterator[Finding]:
    """One state store and one secret store for all; retries and breakers for agents, none for the task log; screens."""
    yield from _components(estate)
    yield from _resiliency(estate)


def _components(estate: Estate) -> Iterator[Finding]:
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in sorted((estate.root / "components").glob("*.yaml")):
        file = f"components/{path.name}"
        for document in estate.documents(file):
            if document.get("kind") == "Component":
                found[str(dig(document, "metadata", "name"))] = (file, document)
    for name in (STATE, SECRETS):
        if name not in found:
            yield Finding(f"components/{name}.yaml", f"there is no component {name!r}", "add it: every agent uses it")
    if STATE in found:
        yield from _state(estate, *found[STATE])
    production = "components/postgresql/state.yaml"
    for document in estate.documents(production):
        yield from _state(estate, production, document)
    yield from _screens(estate, found)


def _state(estate: Estate, file: str, document: dict[str, Any]) -> Iterator[Finding]:
    metadata = {item.get("name"): item for item in dig(document, "spec", "metadata") or []}
    connection = metadata.get("connectionString", {})
    kind = dig(document, "spec", "type")
    if kind not in KINDS:
        yield Finding(file, f"is {kind}, which is not known to keep what it has acknowledged",
                      f"use one of {', '.join(KINDS)}")  # fmt: skip
    if kind == "state.sqlite" and "{appID}" not in str(connection.get("value")):
        yield Finding(file, "agents share one SQLite file and would lock each other out", "put {appID} in its name")
    if kind == "state.redis":
        yield Finding(file, "Redis keeps what it has acknowledged only as it is told to, which can't be seen from here",
                      "run it with appendfsync always and noeviction (docs/durability.md), or use state.postgresql",
                      "warning")  # fmt: skip
    if "ttlInSeconds" in metadata:
        yield Finding(
            file, "lets tasks expire while they still run", "remove ttlInSeconds: see SIDECARD_RETENTION_DAYS"
        )
    prefix = str(metadata.get("keyPrefix", {}).get("value", "appid"))
    if kind != "state.sqlite" and prefix not in PREFIXES and "{appID}" not in prefix:
        yield Finding(file, f"agents would write into each other's tasks under the key prefix {prefix!r}",
                      "remove keyPrefix: Dapr then puts the app-id before each key")  # fmt: skip
    scopes: list[str] = document.get("scopes") or []
    for app in estate.of_kind("agent", "registry") if scopes else ():
        if app.name not in scopes:
            yield Finding(file, f"is hidden from {app.name!r}, which keeps its state there", "add it to scopes")


def _screens(estate: Estate, found: dict[str, tuple[str, dict[str, Any]]]) -> Iterator[Finding]:
    """An app that screens by a component that it has not takes no message."""
    for app in estate.of_kind("agent"):
        prefix, _, name = str(dig(app.run, "env", "SIDECARD_SCREEN") or "").partition(":")
        if prefix != "conversation":
            continue
        file, document = found.get(name, (f"components/{name}.yaml", {}))
        kind, scopes = dig(document, "spec", "type"), document.get("scopes") or [app.name]
        if not document:
            yield Finding(file, f"there is no component {name!r}, by which {app.name!r} screens messages",
                          f"add it, of type {ECHO} and with scopes: [{app.name}]")  # fmt: skip
        elif kind != ECHO:
            yield Finding(file, f"is {kind}, which does not repeat what {app.name!r} wants scrubbed", f"use {ECHO}")
        elif app.name not in scopes:
            yield Finding(file, f"is hidden from {app.name!r}, which screens messages by it", "add it to scopes")


def _resiliency(estate: Estate) -> Iterator[Finding]:
    for path in sorted((estate.root / "resiliency").glob("*.yaml")):
        file = f"resiliency/{path.name}"
        for document in estate.documents(file):
            if document.get("kind") == "Resiliency":
                yield from _policies(file, document)
    targets = _targets(estate)
    for app in estate.apps.values():
        for policy in ("retry", "circuitBreaker"):
            if not dig(targets, app.name, policy):
                yield Finding("resiliency/resiliency.yaml", f"calls of {app.name!r} have no {policy}",
                              f"add it to targets.apps: {{{app.name}: {{retry: …, circuitBreaker: …}}}}")  # fmt: skip
    for name in sorted(targets.keys() - estate.apps.keys()):
        yield Finding("resiliency/resiliency.yaml", f"{name!r} is no app", "name a folder of agents/")


def _targets(estate: Estate) -> dict[str, Any]:
    targets: dict[str, Any] = {}
    for path in sorted((estate.root / "resiliency").glob("*.yaml")):
        for document in estate.documents(f"resiliency/{path.name}"):
            targets |= dig(document, "spec", "targets", "apps") or {}
    return targets


def _policies(file: str, document: dict[str, Any]) -> Iterator[Finding]:
    policies = dig(document, "spec", "policies") or {}
    targets = dig(document, "spec", "targets") or {}
    if STATE in (targets.get("components") or {}):
        yield Finding(file, "the task log's component has a policy, which takes a conflict for a failure",
                      f"remove {STATE!r} from targets.components; the journal owns its retries")  # fmt: skip
    for kind in ("retries", "circuitBreakers", "timeouts"):
        for name in policies.get(kind) or {}:
            # Dapr applies these to every target that names none: to the task log, or, as time-outs, to streams.
            if name.startswith("Default") and (kind == "timeouts" or not name.startswith("DefaultApp")):
                yield Finding(
                    file, f"{name} applies to the task log or to streams too", "give it another name and target"
                )
    for app, target in (targets.get("apps") or {}).items():
        if "timeout" in target:
            yield Finding(file, f"a time-out cuts the streams of {app!r} and repeats POSTs that still run",
                          "remove it: callers have deadlines")  # fmt: skip
        for key, kind in (("retry", "retries"), ("circuitBreaker", "circuitBreakers")):
            if target.get(key) and target[key] not in (policies.get(kind) or {}):
                yield Finding(file, f"{app!r} names the {key} {target[key]!r}, which is not there", f"add it to {kind}")
