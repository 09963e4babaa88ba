"""k8s/base: workloads and Dapr resources."""

import pytest

from tests.sidecard.check.conftest import put

FILE = "k8s/base/flights.yaml"
PATCH = "k8s/base/patches/app.yaml"
KUSTOMIZATION = "k8s/base/kustomization.yaml"
ANNOTATIONS = ("spec", "template", "metadata", "annotations")
POD = ("spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)
WHO = "the Deployment 'flights'"


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (put(*ANNOTATIONS, "dapr.io/app-id", value="flight"), f"{WHO} has dapr.io/app-id: flight"),
        (put(*ANNOTATIONS, "dapr.io/app-port", value="1"), f"{WHO} has dapr.io/app-port: 1"),
        (put(*ANNOTATIONS, "dapr.io/config", value="desk"), f"{WHO} has dapr.io/config: desk"),
        (put(*ANNOTATIONS, "dapr.io/app-token-secret"), f"{WHO} has dapr.io/app-token-secret: None"),
        (put(*ANNOTATIONS, "dapr.io/api-token-secret"), f"{WHO} has dapr.io/api-token-secret: None"),
        (put(*POD, "serviceAccountName", value="default"), f"{WHO} runs as another identity"),
        (
            put("spec", "template", "metadata", "labels", value={}),
            f"{WHO} has not the label that its Service and policies select",
        ),
        (put(*CONTAINER, "args", value=["-m", "agents.expenses"]), f"{WHO} does not run agents/flights"),
        (put(*CONTAINER, "ports", 0, "containerPort", value=1), f"{WHO} has http at another port than dapr.yaml"),
        (put(*CONTAINER, "ports", 1), f"{WHO} has grpc at another port than dapr.yaml"),
        (
            put(*CONTAINER, "image", value="travel-desk:latest"),
            "'flights' runs 'travel-desk:latest', which is another program each time",
        ),
    ],
)
def test_one_disagreement_of_a_deployment_is_one_finding(project, how, problem):
    """The Deployment is the app of dapr.yaml."""
    if problem.startswith("'flights' runs"):
        project.change(PATCH, put(*CONTAINER, "image"))
    project.change(FILE, how, "Deployment")
    found = [finding for finding in project.findings() if "'flights'" in finding[1]]
    assert found == [(FILE, problem)]


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (put(*ANNOTATIONS, "dapr.io/enabled"), "has dapr.io/enabled: None"),
        (put(*ANNOTATIONS, "dapr.io/sidecar-memory-limit"), "has no dapr.io/sidecar-memory-limit"),
        (put(*POD, "automountServiceAccountToken"), "gives its app a token of the Kubernetes API"),
        (put(*CONTAINER, "readinessProbe"), "has no readinessProbe"),
        (put(*CONTAINER, "livenessProbe", "httpGet", "path", value="/"), "has no livenessProbe"),
        (put(*CONTAINER, "resources", "limits"), "has no limits for cpu and memory"),
        (put(*CONTAINER, "resources", "requests"), "has no requests for cpu and memory"),
        (put(*POD, "securityContext", "runAsNonRoot"), "is not confined: no runAsNonRoot: true"),
        (put(*POD, "securityContext", "runAsUser"), "is not confined: no a numeric runAsUser that is not 0"),
        (put(*POD, "securityContext", "seccompProfile"), "is not confined: no seccompProfile: {type: RuntimeDefault}"),
        (
            put(*CONTAINER, "securityContext", "readOnlyRootFilesystem"),
            "is not confined: no readOnlyRootFilesystem: true",
        ),
        (
            put(*CONTAINER, "securityContext", "allowPrivilegeEscalation"),
            "is not confined: no allowPrivilegeEscalation: false",
        ),
        (put(*CONTAINER, "securityContext", "capabilities"), "is not confined: no capabilities: {drop: [ALL]}"),
    ],
)
def test_what_all_apps_share_is_found_missing_for_each(project, how, problem):
    """The shared patch is read as part of every Deployment."""
    project.change(PATCH, how)
    apps = ["compliance", "expenses", "flights", "orchestrator", "registry", "vendors"]
    assert project.findings() == [(f"k8s/base/{app}.yaml", f"the Deployment {app!r} {problem}") for app in apps]


@pytest.mark.parametrize("kind", ["ServiceAccount", "Role", "RoleBinding", "PodDisruptionBudget"])
def test_a_missing_object_is_found(project, kind):
    """Every app has its own identity, its own rights and a disruption budget."""
    project.change(FILE, put("metadata", "name", value="other"), kind)
    assert project.findings() == [(FILE, f"'flights' has no {kind}")]


def test_an_app_without_manifests_is_found(project):
    """A file that the kustomization does not list is applied by nobody."""
    project.change(KUSTOMIZATION, lambda d: d["resources"].remove("flights.yaml"))
    found = project.findings()
    assert (FILE, "'flights' has no Deployment") in found
    assert (KUSTOMIZATION, "leaves out flights.yaml, so Kubernetes has no such object") in found


def test_another_port_of_the_service_is_found(project):
    """The Service has the app's ports."""
    project.change(FILE, put("spec", "ports", 0, "port", value=80), "Service")
    assert project.findings() == [(FILE, "the Service 'flights' has http at 80, dapr.yaml 8102")]


def test_a_service_of_other_pods_is_found(project):
    """A Service leads to its own app."""
    project.change(FILE, put("spec", "selector", value={"app": "flights"}), "Service")
    assert project.findings() == [(FILE, "the Service 'flights' selects other pods")]


def test_a_role_that_reads_more_secrets_is_found(project):
    """The Kubernetes API shows a sidecar what its access rules show its app, and the database."""
    project.change(FILE, put("rules", 0, "resourceNames"), "Role")
    assert project.findings() == [(FILE, "the sidecar of 'flights' may ['get'] ['*']")]


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (put("components"), "the component 'state' is still state.sqlite, a file in the container"),
        (
            lambda d: d["patches"].pop(1),
            "the component 'secrets' is still secretstores.local.file, a file in the container",
        ),
        (put("replacements"), "the access rules still say the namespace `default`"),
        (lambda d: d["resources"].remove("../../resiliency"), "has no Resiliency"),
        (lambda d: d["resources"].remove("../../components"), "has no component 'secrets'"),
        (lambda d: d["resources"].remove("../../components"), "has no Configuration 'flights'"),
        (lambda d: d["patches"].pop(2), "the Configuration 'desk' keeps spec.mtls, which the cluster refuses"),
    ],
)
def test_a_laptops_file_unfit_for_a_cluster_is_found(project, how, problem):
    """Components and Configurations are the laptop's files, patched where a cluster differs."""
    project.change(KUSTOMIZATION, how)
    assert (KUSTOMIZATION, problem) in project.findings()


def test_a_written_connection_string_is_found(project):
    """The database's password comes from a secret store."""
    file = "components/postgresql/state.yaml"
    project.change(file, put("spec", "metadata", 0, value={"name": "connectionString", "value": "host=db"}))
    assert project.findings() == [(KUSTOMIZATION, "'state' has its connection string written out")]


def test_a_component_that_kubernetes_would_not_get_is_found(project):
    """A new file in components/ is listed for Kubernetes too."""
    project.write("components/pubsub.yaml", "kind: Component\nmetadata: {name: pubsub}\n")
    leaves_out = "leaves out pubsub.yaml, so Kubernetes has no such object"
    assert project.findings() == [("components/kustomization.yaml", leaves_out)]


def test_a_route_to_nowhere_is_found(project):
    """Routes end at a Service's port."""
    file = "k8s/base/routes.yaml"
    project.change(file, put("spec", "rules", 0, "backendRefs", 0, "port", value=80), "HTTPRoute")
    assert project.findings() == [(file, "the HTTPRoute 'orchestrator' leads to orchestrator:80, which no Service has")]


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_a_missing_route_is_found(project, kind):
    """The orchestrator is reached over HTTP and over gRPC."""
    project.change("k8s/base/routes.yaml", put("kind", value="TCPRoute"), kind)
    assert project.findings() == [("k8s/base/routes.yaml", f"there is no {kind}")]
