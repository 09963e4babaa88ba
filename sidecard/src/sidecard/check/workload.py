"""One app's Deployment: its sidecar's annotations, its ports, probes, limits and confinement."""

from collections.abc import Iterator
from typing import Any

from sidecard.check.estate import App, dig
from sidecard.check.finding import Finding
from sidecard.check.kustomize import Resource

_LIMITS = ("dapr.io/sidecar-cpu-limit", "dapr.io/sidecar-memory-limit")


def check(deployment: Resource, app: App) -> Iterator[Finding]:
    """Everything in it that must agree with dapr.yaml, or that a security review asks for."""
    template = dig(deployment.object, "spec", "template") or {}
    who = f"the Deployment {app.name!r}"
    yield from _annotations(deployment.file, who, app, template)
    if dig(template, "metadata", "labels", "app.kubernetes.io/name") != app.name:
        yield Finding(deployment.file, f"{who} has not the label that its Service and policies select",
                      f"label its pods app.kubernetes.io/name: {app.name}")  # fmt: skip
    if dig(template, "spec", "serviceAccountName") != app.name:
        yield Finding(deployment.file, f"{who} runs as another identity", f"set serviceAccountName: {app.name}")
    if dig(template, "spec", "automountServiceAccountToken") is not False:
        yield Finding(deployment.file, f"{who} gives its app a token of the Kubernetes API",
                      "set automountServiceAccountToken: false; only the sidecar needs one")  # fmt: skip
    for container in containers(deployment):
        yield from _container(deployment.file, who, app, container)
        yield from _confinement(deployment.file, who, dig(template, "spec", "securityContext") or {}, container)


def containers(deployment: Resource) -> list[dict[str, Any]]:
    """The containers of its pods."""
    return list(dig(deployment.object, "spec", "template", "spec", "containers") or [])


def _annotations(file: str, who: str, app: App, template: dict[str, Any]) -> Iterator[Finding]:
    annotations = dig(template, "metadata", "annotations") or {}
    expected = {
        "dapr.io/enabled": "true",
        "dapr.io/app-id": app.name,
        "dapr.io/app-port": str(app.port),
        "dapr.io/config": app.name,
        "dapr.io/app-token-secret": f"{app.name}-tokens-app",
        "dapr.io/api-token-secret": f"{app.name}-tokens-dapr",
    }
    for name, value in expected.items():
        if annotations.get(name) != value:
            yield Finding(file, f"{who} has {name}: {annotations.get(name)}", f'write {name}: "{value}"')
    for name in _LIMITS:
        if not annotations.get(name):
            yield Finding(file, f"{who} has no {name}", "limit the sidecar too")


def _container(file: str, who: str, app: App, container: dict[str, Any]) -> Iterator[Finding]:
    words = [str(word) for word in [*(container.get("command") or []), *(container.get("args") or [])]]
    if words[-2:] != ["-m", f"agents.{app.name}"]:
        yield Finding(file, f"{who} does not run agents/{app.name}", f"end its args with -m, agents.{app.name}")
    ports = {port.get("name"): port.get("containerPort") for port in container.get("ports") or []}
    environment = {item.get("name"): item for item in container.get("env") or []}
    for name, variable, port in (("http", "APP_PORT", app.port), ("grpc", "SIDECARD_GRPC_PORT", app.grpc_port)):
        if ports.get(name) != port or (dig(environment, variable, "value") or "") != str(port or ""):
            yield Finding(
                file, f"{who} has {name} at another port than dapr.yaml", f"use {port} in ports and {variable}"
            )
    for variable, secret in (
        ("APP_API_TOKEN", f"{app.name}-tokens-app"),
        ("DAPR_API_TOKEN", f"{app.name}-tokens-dapr"),
    ):
        if dig(environment, variable, "valueFrom", "secretKeyRef") != {"name": secret, "key": "token"}:
            yield Finding(
                file, f"{who} has not its sidecar's {variable}", f"take it from the Secret {secret}, key token"
            )
    for probe, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        asked = dig(container, probe, "httpGet") or {}
        if asked.get("path") != path or asked.get("port") not in {"http", app.port}:
            yield Finding(file, f"{who} has no {probe}", f"ask {path} at the port http")
    for kind in ("requests", "limits"):
        if not {"cpu", "memory"} <= set(dig(container, "resources", kind) or {}):
            yield Finding(file, f"{who} has no {kind} for cpu and memory", f"set resources.{kind}")


def _confinement(file: str, who: str, pod: dict[str, Any], container: dict[str, Any]) -> Iterator[Finding]:
    own = container.get("securityContext") or {}
    both = {**pod, **own}
    wanted = {
        "runAsNonRoot: true": both.get("runAsNonRoot") is True,
        "a numeric runAsUser that is not 0": isinstance(both.get("runAsUser"), int) and both["runAsUser"] > 0,
        "readOnlyRootFilesystem: true": own.get("readOnlyRootFilesystem") is True,
        "allowPrivilegeEscalation: false": own.get("allowPrivilegeEscalation") is False,
        "capabilities: {drop: [ALL]}": dig(own, "capabilities", "drop") == ["ALL"],
        "seccompProfile: {type: RuntimeDefault}": dig(both, "seccompProfile", "type") == "RuntimeDefault",
    }
    for setting, holds in wanted.items():
        if not holds:
            yield Finding(file, f"{who} is not confined: no {setting}", f"set {setting}")
