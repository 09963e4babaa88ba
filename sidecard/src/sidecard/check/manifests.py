"""k8s/base against dapr.yaml: each app's workload, and the Dapr resources that it stands on."""

from collections.abc import Iterator
from typing import Any

from sidecard.check import images, kustomize, workload
from sidecard.check.access import FOLDER, STORE
from sidecard.check.estate import App, Estate, dig
from sidecard.check.finding import Finding
from sidecard.check.kustomize import Resource

BASE = "k8s/base"
KUSTOMIZATION = f"{BASE}/kustomization.yaml"
DATABASE = "database"
_NAMESPACES = "spec.accessControl.policies.*.namespace"
_KINDS = ("Deployment", "Service", "ServiceAccount", "Role", "RoleBinding", "PodDisruptionBudget")

Resources = dict[tuple[str, str], Resource]


def read(estate: Estate) -> Resources:
    """What k8s/base applies, by kind and name."""
    return {(resource.kind, resource.name): resource for resource in kustomize.build(estate, BASE)}


def check(estate: Estate) -> Iterator[Finding]:
    """The same app-ids, ports and rules as on the laptop, with probes, limits, confinement and least privilege."""
    resources = read(estate)
    tags = kustomize.images(estate.document(KUSTOMIZATION))
    for app in estate.apps.values():
        file = f"{BASE}/{app.name}.yaml"
        missing = [kind for kind in _KINDS if (kind, app.name) not in resources]
        for kind in missing:
            yield Finding(file, f"{app.name!r} has no {kind}", f"add a {kind} of that name, listed in {KUSTOMIZATION}")
        if "Deployment" not in missing:
            deployment = resources["Deployment", app.name]
            yield from workload.check(deployment, app)
            for container in workload.containers(deployment):
                image = str(container.get("image"))
                yield from images.check(deployment.file, f"{app.name!r}", tags.get(image, image))
        if "Service" not in missing:
            yield from _service(resources["Service", app.name], app)
        if "Role" not in missing:
            yield from _role(estate, resources, app)
    yield from _listed(estate)
    yield from _dapr(estate, resources)
    yield from _routes(resources)


def _service(service: Resource, app: App) -> Iterator[Finding]:
    ports = {port.get("name"): port.get("port") for port in dig(service.object, "spec", "ports") or []}
    for name, port in (("http", app.port), ("grpc", app.grpc_port)):
        if ports.get(name) != port:
            yield Finding(service.file, f"the Service {app.name!r} has {name} at {ports.get(name)}, dapr.yaml {port}",
                          "write the same port")  # fmt: skip
    if dig(service.object, "spec", "selector") != {"app.kubernetes.io/name": app.name}:
        yield Finding(service.file, f"the Service {app.name!r} selects other pods", "select app.kubernetes.io/name")


def _role(estate: Estate, resources: Resources, app: App) -> Iterator[Finding]:
    role = resources["Role", app.name]
    rules = role.object.get("rules") or []
    scopes = {
        s.get("storeName"): s.get("allowedSecrets") or []
        for s in dig(estate.access(app.name), "secrets", "scopes") or []
    }
    state = resources.get(("Component", "state"))
    keeps_state = state is not None and app.name in (state.object.get("scopes") or [app.name])
    expected = {*scopes.get(STORE, []), *([DATABASE] if keeps_state else [])}
    for rule in rules:
        names = set(rule.get("resourceNames") or ["*"])
        if names != expected or rule.get("verbs") != ["get"] or rule.get("resources") != ["secrets"]:
            yield Finding(role.file, f"the sidecar of {app.name!r} may {rule.get('verbs')} {sorted(names)}",
                          f"let it get the secrets {sorted(expected)}, as its access rules say")  # fmt: skip


def _listed(estate: Estate) -> Iterator[Finding]:
    for folder in ("components", FOLDER, "resiliency", BASE):
        for name in sorted(kustomize.files(estate, folder)):
            yield Finding(
                f"{folder}/kustomization.yaml", f"leaves out {name}, so Kubernetes has no such object", "list it"
            )


def _dapr(estate: Estate, resources: Resources) -> Iterator[Finding]:
    yield from _component(resources, "state", "state.sqlite")
    yield from _component(resources, "secrets", "secretstores.local.file")
    for app_id in estate.run_file:
        configuration = resources.get(("Configuration", app_id))
        if configuration is None:
            yield Finding(KUSTOMIZATION, f"has no Configuration {app_id!r}", "list ../../components as a resource")
        elif dig(configuration.object, "spec", "mtls"):
            problem = f"the Configuration {app_id!r} keeps spec.mtls, which the cluster refuses"
            yield Finding(KUSTOMIZATION, problem, "remove it by a patch: mTLS is the control plane's setting there")
    if not any(_NAMESPACES in _field_paths(r) for r in estate.document(KUSTOMIZATION).get("replacements") or []):
        yield Finding(KUSTOMIZATION, "the access rules still say the namespace `default`", f"replace {_NAMESPACES}")
    if not any(kind == "Resiliency" for kind, _ in resources):
        yield Finding(KUSTOMIZATION, "has no Resiliency", "list ../../resiliency as a resource")


def _component(resources: Resources, name: str, local: str) -> Iterator[Finding]:
    component = resources.get(("Component", name))
    if component is None:
        yield Finding(KUSTOMIZATION, f"has no component {name!r}", "list ../../components as a resource")
        return
    if dig(component.object, "spec", "type") == local:
        yield Finding(KUSTOMIZATION, f"the component {name!r} is still {local}, a file in the container", "patch it")
    for item in dig(component.object, "spec", "metadata") or []:
        if item.get("name") == "connectionString" and not item.get("secretKeyRef"):
            yield Finding(KUSTOMIZATION, f"{name!r} has its connection string written out", "use secretKeyRef")


def _field_paths(replacement: dict[str, Any]) -> list[str]:
    targets = replacement.get("targets") or []
    return [path for t in targets if dig(t, "select", "kind") == "Configuration" for path in t.get("fieldPaths") or []]


def _routes(resources: Resources) -> Iterator[Finding]:
    for (kind, name), route in resources.items():
        if kind not in {"HTTPRoute", "GRPCRoute"}:
            continue
        for rule in dig(route.object, "spec", "rules") or []:
            for backend in rule.get("backendRefs") or []:
                service = resources.get(("Service", str(backend.get("name"))))
                ports = [p.get("port") for p in dig(service.object if service else None, "spec", "ports") or []]
                if backend.get("port") not in ports:
                    where = f"{backend.get('name')}:{backend.get('port')}"
                    problem = f"the {kind} {name!r} leads to {where}, which no Service has"
                    yield Finding(route.file, problem, "name a Service and its port")
    for kind in ("HTTPRoute", "GRPCRoute"):
        if not any(found == kind for found, _ in resources):
            yield Finding(f"{BASE}/routes.yaml", f"there is no {kind}", "add the public way to the orchestrator")
