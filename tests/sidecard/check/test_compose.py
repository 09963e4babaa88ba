"""docker-compose.yml."""

import pytest

from tests.sidecard.check.conftest import put

FILE = "docker-compose.yml"
APP, SIDECAR = ("services", "flights"), ("services", "flights-sidecar")


def flag(name, value):
    """Changes a flag of the sidecar's command."""

    def how(document):
        words = document["services"]["flights-sidecar"]["command"]
        words[words.index(name) + 1] = value

    return how


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (put(*APP), "there is no service 'flights'"),
        (put(*SIDECAR), "there is no service 'flights-sidecar'"),
        (put("services", "desk-sidecar"), "there is no service 'desk-sidecar'"),
        (
            put(*APP, "command", value=["python", "-m", "agents.expenses"]),
            "service 'flights' does not run agents/flights",
        ),
        (put(*APP, "environment", "APP_PORT", value="1"), "service 'flights' has APP_PORT=1, dapr.yaml has 8102"),
        (
            put(*APP, "environment", "SIDECARD_GRPC_PORT"),
            "service 'flights' has SIDECARD_GRPC_PORT=None, dapr.yaml has 8202",
        ),
        (
            put(*APP, "environment", "SIDECARD_HOST", value="0.0.0.0"),
            "other containers reach service 'flights' past its sidecar",
        ),
        (put(*APP, "healthcheck"), "service 'flights' has no healthcheck of its own port"),
        (
            put(*APP, "env_file", value=".sidecard/tokens/expenses.env"),
            "service 'flights' has not its own tokens and only them",
        ),
        (
            put(*APP, "image", value="travel-desk:latest"),
            "service 'flights' runs 'travel-desk:latest', which is another program each time",
        ),
        (
            put("services", "traces", "image", value="jaegertracing/jaeger"),
            "service 'traces' runs 'jaegertracing/jaeger', which is another program each time",
        ),
        (put("services", "traces", "image"), "service 'traces' has neither image nor build"),
        (
            put("services", "traces", "ports", value=["16686:16686"]),
            "service 'traces' publishes 16686:16686 to the network",
        ),
        (
            put("services", "sentry", "image", value="daprio/sentry:1.17.0"),
            "sidecars and sentry are of several versions: 1.17.0, 1.18.2",
        ),
        (put(*SIDECAR, "network_mode"), "service 'flights-sidecar' is not in its app's network namespace"),
        (flag("--app-id", "expenses"), "service 'flights-sidecar' has --app-id expenses"),
        (flag("--app-port", "1"), "service 'flights-sidecar' has --app-port 1"),
        (
            flag("--config", "/components/access/desk.yaml"),
            "service 'flights-sidecar' has --config /components/access/desk.yaml",
        ),
        (flag("--resources-path", "/resiliency"), "service 'flights-sidecar' does not load /components"),
        (
            lambda d: d["services"]["flights-sidecar"]["command"].remove("--enable-mtls"),
            "service 'flights-sidecar' runs without mTLS",
        ),
        (put(*SIDECAR, "healthcheck"), "service 'flights-sidecar' has no healthcheck"),
        (
            put("services", "postgresql", "environment", "POSTGRES_PASSWORD", value="postgres"),
            "POSTGRES_PASSWORD is written out",
        ),
    ],
)
def test_one_disagreement_is_one_finding(project, how, problem):
    """The containers are the laptop's system: same ids, ports, rules, tokens; pinned, probed, local."""
    project.change(FILE, how)
    assert project.findings() == [(FILE, problem)]


def test_a_project_without_compose_is_told_once(project):
    """The file is part of the template."""
    (project.root / FILE).unlink()
    assert project.findings() == [(FILE, "is missing")]
