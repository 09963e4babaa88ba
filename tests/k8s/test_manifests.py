"""What k8s/base applies. That it agrees with the rest of the project is `sidecard check`'s business, tested there."""

import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml

from sidecard.check import kustomize
from sidecard.check.estate import Estate
from sidecard.cli import runtime
from sidecard.cli.console import Console
from sidecard.cli.project import Project
from sidecard.grpc_03 import SERVICE as SERVICE_03
from sidecard.grpc_server import SERVICE

ROOT = Path(__file__).parents[2]
APPS = ["compliance", "expenses", "flights", "orchestrator", "registry", "vendors"]


@pytest.fixture(scope="module")
def objects():
    """Every object by kind and name."""
    built = kustomize.build(Estate(ROOT), "k8s/base")
    found = {(resource.kind, resource.name): resource.object for resource in built}
    assert len(found) == len(built), "two objects have one kind and name"
    return found


def test_every_app_has_its_workload(objects):
    """Identity, rights, address, pods, disruption budget and network policy, all of the app's name."""
    kinds = ["ServiceAccount", "Role", "RoleBinding", "Service", "Deployment", "PodDisruptionBudget", "NetworkPolicy"]
    assert [(kind, app) for app in APPS for kind in kinds if (kind, app) not in objects] == []


def test_dapr_resources_are_the_laptops_files(objects):
    """Rules and resiliency come from where the laptop has them; only what differs is patched."""
    for app in [*APPS, "desk"]:
        local = yaml.safe_load((ROOT / f"components/access/{app}.yaml").read_text())["spec"]
        local.pop("mtls")
        assert objects["Configuration", app]["spec"] == local
    local = yaml.safe_load((ROOT / "resiliency/resiliency.yaml").read_text())
    assert objects["Resiliency", "resiliency"] == local


def test_state_and_secrets_are_the_clusters(objects):
    """PostgreSQL with its password from a Secret; Secrets from Kubernetes."""
    state, secrets = objects["Component", "state"], objects["Component", "secrets"]
    assert (state["spec"]["type"], state["spec"]["version"]) == ("state.postgresql", "v2")
    key = {"name": "database", "key": "connection-string"}
    assert state["spec"]["metadata"] == [{"name": "connectionString", "secretKeyRef": key}]
    assert state["auth"] == {"secretStore": "secrets"}
    assert secrets["spec"]["type"] == "secretstores.kubernetes"


def test_no_secret_is_committed(objects):
    """They are created in the cluster."""
    assert not [name for kind, name in objects if kind == "Secret"]


def test_only_the_sidecar_has_a_token_of_the_kubernetes_api(objects):
    """The volume is mounted by Dapr's annotation, and by no container of ours."""
    for app in APPS:
        template = objects["Deployment", app]["spec"]["template"]
        mounts = [mount["name"] for container in template["spec"]["containers"] for mount in container["volumeMounts"]]
        assert "kubernetes-api" not in mounts
        assert template["metadata"]["annotations"]["dapr.io/volume-mounts"].startswith("kubernetes-api:")
        assert "kubernetes-api" in [volume["name"] for volume in template["spec"]["volumes"]]


def test_the_way_outside_is_closed_until_a_pod_is_labelled(objects):
    """Then public addresses alone, by https: not the cluster, not a cloud's metadata."""
    spec = objects["NetworkPolicy", "outside"]["spec"]
    label = spec["podSelector"]["matchLabels"]
    for app in APPS:
        labels = objects["Deployment", app]["spec"]["template"]["metadata"]["labels"]
        assert not label.items() <= labels.items()
    [rule] = spec["egress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 443}]
    [block] = [peer["ipBlock"] for peer in rule["to"]]
    for inside in ("10.1.2.3", "172.20.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200"):
        assert any(ip_address(inside) in ip_network(network) for network in block["except"])
    assert not any(ip_address("93.184.216.34") in ip_network(network) for network in block["except"])


def test_the_gateway_offers_what_direct_callers_use(objects):
    """The card, JSON-RPC, HTTP+JSON; gRPC by the services' own names, under a host of its own."""
    http, grpc = objects["HTTPRoute", "orchestrator"]["spec"], objects["GRPCRoute", "orchestrator"]["spec"]
    paths = [match["path"]["value"] for match in http["rules"][0]["matches"]]
    assert paths == ["/.well-known/agent-card.json", "/a2a", "/rest", "/v03"]
    assert [match["method"]["service"] for match in grpc["rules"][0]["matches"]] == [SERVICE, SERVICE_03]
    assert not set(http["hostnames"]) & set(grpc["hostnames"])


def test_only_the_gateway_comes_in_from_another_namespace(objects):
    """And only to the orchestrator."""
    outside = [
        name
        for (kind, name), policy in objects.items()
        if kind == "NetworkPolicy"
        for rule in policy["spec"].get("ingress") or []
        for peer in rule["from"]
        if "namespaceSelector" in peer or "ipBlock" in peer
    ]
    assert outside == ["gateway"]
    selected = objects["NetworkPolicy", "gateway"]["spec"]["podSelector"]["matchLabels"]
    assert selected == {"app.kubernetes.io/name": "orchestrator"}


def test_the_image_runs_as_the_manifests_say(objects):
    """A numeric user, packages compared with their hashes, and nothing of .sidecard/ in reach of the build."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    user = objects["Deployment", "flights"]["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
    assert f"\nUSER {user}:{user}\n" in dockerfile
    assert "--require-hashes" in dockerfile
    context = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert context[0] == "*"
    assert "!.sidecard" not in context


@pytest.mark.timeout(600)  # kustomize may have to be built first
def test_kustomize_builds_what_is_checked(objects):
    """What `sidecard check` reads is what is applied, but for the namespace, labels and generated names."""
    kustomize = runtime.ensure(Project(ROOT), Console(), [runtime.KUSTOMIZE])["kustomize"]
    built = subprocess.run([kustomize, "build", ROOT / "k8s/base"], capture_output=True, text=True, check=True)
    applied = {
        (document["kind"], document["metadata"]["name"]): document for document in yaml.safe_load_all(built.stdout)
    }
    generated = {key for key in applied if key[0] == "ConfigMap"}
    assert applied.keys() - generated == objects.keys()
    for app in APPS:
        template = applied["Deployment", app]["spec"]["template"]["spec"]
        callers = next(volume for volume in template["volumes"] if volume["name"] == "callers")
        assert ("ConfigMap", callers["configMap"]["name"]) in generated
        callers["configMap"]["name"] = "callers"
        template["containers"][0]["image"] = "travel-desk"
        assert _sorted(applied["Deployment", app]["spec"]) == _sorted(objects["Deployment", app]["spec"])
        for policy in applied["Configuration", app]["spec"]["accessControl"]["policies"]:
            assert policy["namespace"] == "travel-desk"
    for kind, name in objects:
        if kind in {"Component", "NetworkPolicy", "Service", "Role", "HTTPRoute", "GRPCRoute", "Resiliency"}:
            assert applied[kind, name].get("spec") == objects[kind, name].get("spec")
    assert {document["metadata"].get("namespace", "travel-desk") for document in applied.values()} == {"travel-desk"}


def _sorted(value):
    """Lists that Kubernetes merges by name have no order of their own."""
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in value.items()}
    if isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value):
        return sorted((_sorted(item) for item in value), key=lambda item: item["name"])
    return [_sorted(item) for item in value] if isinstance(value, list) else value
