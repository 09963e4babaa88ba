"""One real system for all tests that want one: sentry, daprd, every app, from a copy of this project with its own keys.

Its fixtures are everybody's (tests/conftest.py), so that it starts once.
"""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sidecard.cli.project import Project
from sidecard.cli.system import System

HERE = Path(__file__).resolve().parents[1]
PUBSUB = {
    "apiVersion": "dapr.io/v1alpha1",
    "kind": "Component",
    "metadata": {"name": "pubsub"},
    "spec": {"type": "pubsub.in-memory", "version": "v1"},
    "scopes": ["expenses"],
}


@pytest.fixture(scope="session")
def webhook_port() -> int:
    """A free port: the orchestrator and expenses may send push notifications to http://127.0.0.1 there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory, webhook_port: int) -> Iterator[System]:
    """The running system. Its callers include `tester`, who holds a key and every scope.

    The events of expenses' tasks are published; what it can't deliver it gives up after two seconds.
    """
    project = Project(HERE).copy_to(tmp_path_factory.mktemp("desk"))
    callers_file = project.root / "agents" / "callers.yaml"
    callers = yaml.safe_load(callers_file.read_text())
    scopes = {
        "orchestrator": ["trips:plan"],
        "flights": ["flights:search", "flights:book"],
        "expenses": ["expenses:validate"],
        "compliance": ["spend:review"],
    }
    callers["callers"]["tester"] = {"api_key": True, "grants": scopes}
    callers["callers"]["stranger"] = {"api_key": True, "grants": scopes}
    callers_file.write_text(yaml.safe_dump(callers))
    run_file = project.root / "dapr.yaml"
    run = yaml.safe_load(run_file.read_text())
    apps = {app["appID"]: app for app in run["apps"]}
    apps["orchestrator"]["env"]["SIDECARD_WEBHOOKS"] = f"http://127.0.0.1:{webhook_port}"
    apps["expenses"]["env"] |= {
        "SIDECARD_WEBHOOKS": f"http://127.0.0.1:{webhook_port}",
        "SIDECARD_DELIVERY_DAYS": "0.00002",
        "SIDECARD_TOPIC": "pubsub/tasks",
    }
    (project.root / "components" / "pubsub.yaml").write_text(yaml.safe_dump(PUBSUB))
    run_file.write_text(yaml.safe_dump(run, sort_keys=False))
    resiliency = project.root / "resiliency" / "resiliency.yaml"
    resiliency.write_text(resiliency.read_text().replace("timeout: 3s", "timeout: 300ms"))  # after many refusals
    with System(project) as running:
        yield running


@pytest.fixture(scope="session")
def project(system: System) -> Project:
    """The running system's project."""
    return system.project


@pytest.fixture(scope="session")
def key(project: Project):
    """The API key of a caller."""
    return lambda name: (project.local / "keys" / f"{name}.key").read_text().strip()


@pytest.fixture(scope="session")
def tokens(project: Project):
    """The tokens of an app: {"APP_API_TOKEN": …, "DAPR_API_TOKEN": …}."""

    def read(app_id: str) -> dict[str, str]:
        lines = (project.local / "tokens" / f"{app_id}.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    return read


def rpc(method: str, params: dict[str, object]) -> bytes:
    """A JSON-RPC request's body."""
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
