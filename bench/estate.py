"""Our side as it really runs: sentry, daprd and mTLS, agents on a state store, in a project of its own."""

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.load import Order
from bench.ours import ERRANDS
from chaos.servers import free_ports
from sidecard.callers import KEY_HEADER, TOKEN_HEADER
from sidecard.cli.project import Project
from sidecard.cli.system import System

ROOT = Path(__file__).parents[1]
SQLITE = {"type": "state.sqlite", "version": "v1", "connectionString": "data/state-{appID}.db", "busyTimeout": "10s"}
BOUNDLESS = {"rate": None, "concurrent": None, "streams": None}
UNBOUNDED = {"each_caller": BOUNDLESS, "each_tenant": BOUNDLESS, "strangers": {"rate": None}}
LOADER = "loader"
"""The caller with a key."""
DESK = "desk"
"""A sidecar without an app, from which the mesh is called."""
RAW = "raw"
"""A trivial app, to know what the way through two sidecars costs."""
WORKFLOW = "workflow"
"""A sidecar on a control plane of its own, for Dapr Workflow (`bench.control_plane`)."""


@dataclass(frozen=True)
class Estate:
    """A running system of agents, each known by its name."""

    project: Project
    sentry_port: int

    def direct(self, agent: str, caller: str = LOADER) -> Order:
        """How to reach an agent without sidecars, with a caller's key."""
        key = (self.project.local / "keys" / f"{caller}.key").read_text().strip()
        return Order(port=self.project.app(agent).app_port or 0, headers={KEY_HEADER: key})

    def through_sidecars(self, app: str, path: str) -> Order:
        """How to reach an app from the desk, through both sidecars."""
        port = self.project.app(DESK).dapr_http_port
        return Order(port=port, path=f"/v1.0/invoke/{app}/method{path}", headers={TOKEN_HEADER: self._token(DESK)})

    def store(self, agent: str) -> tuple[int, int, str]:
        """The sidecar's HTTP and gRPC ports and token, for who wants to write to an agent's store."""
        app = self.project.app(agent)
        return app.dapr_http_port, app.dapr_grpc_port, self._token(agent)

    def _token(self, app: str) -> str:
        lines = (self.project.local / "tokens" / f"{app}.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)["DAPR_API_TOKEN"]


@contextlib.contextmanager
def estate(
    folder: Path,
    agents: Sequence[str],
    store: dict[str, str] = SQLITE,
    *,
    mesh: bool = False,
    program: str = "bench.ours",
    more_callers: Mapping[str, Any] | None = None,
    quotas: Mapping[str, Any] | None = None,
) -> Iterator[Estate]:
    """Agents of a `program` and the registry, up inside. With `mesh` also the desk and the raw app.

    Nobody has a quota, but for those in `quotas`: it is the agents that are measured.
    """
    project = Project(ROOT).copy_to(folder)
    shutil.rmtree(folder / "components" / "access")
    ports = iter(free_ports(6 * (len(agents) + 3) + 2))
    apps = [_app(ports, "registry", [sys.executable, "-m", "agents.registry"])]
    apps += [_app(ports, name, [sys.executable, "-m", program, name], agent=True) for name in agents]
    if mesh:
        apps += [_app(ports, RAW, [sys.executable, "-m", "bench.raw", RAW]), _app(ports, DESK)]
    run_file = yaml.safe_load((folder / "dapr.yaml").read_text())
    write(folder / "dapr.yaml", {**run_file, "name": "bench", "apps": apps})
    grants = {name: ["bench:say"] for name in agents}
    callers = {LOADER: {"api_key": True, "grants": grants}}
    callers |= {name: {"sidecar": True, "grants": grants} for name in (DESK, ERRANDS, WORKFLOW)}
    callers |= more_callers or {}
    write(folder / "agents" / "callers.yaml", {"callers": callers, "quotas": UNBOUNDED | dict(quotas or {})})
    for app in apps:
        write(folder / "components" / "access" / f"{app['appID']}.yaml", access_of(app["appID"]))
    write(folder / "components" / "state.yaml", state_of(store, ["registry", *agents]))
    sentry = next(ports)
    with System(project, sentry_ports=(sentry, next(ports))):
        yield Estate(project, sentry)


def _app(ports: Iterator[int], name: str, command: list[str] | None = None, *, agent: bool = False) -> dict[str, Any]:
    return {
        "appID": name,
        "appDirPath": ".",
        "configFilePath": f"components/access/{name}.yaml",
        "daprHTTPPort": next(ports),
        "daprGRPCPort": next(ports),
        "daprInternalGRPCPort": next(ports),
        "metricsPort": next(ports),
        **({"command": command, "appPort": next(ports)} if command else {}),
        **({"env": {"SIDECARD_GRPC_PORT": str(next(ports))}} if agent else {}),
    }


def access_of(name: str) -> dict[str, Any]:
    """An app's Configuration: mTLS, and everybody may call it."""
    allowed = {"storeName": "secrets", "defaultAccess": "deny", "allowedSecrets": [name, "trust"]}
    spec = {
        "mtls": {"enabled": True},
        "accessControl": {"defaultAction": "allow", "trustDomain": "public"},
        "secrets": {"scopes": [allowed]},
    }
    return {"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": name}, "spec": spec}


def state_of(store: dict[str, str], scopes: list[str]) -> dict[str, Any]:
    """The component `state`, for apps that keep something there."""
    metadata = [{"name": name, "value": value} for name, value in store.items() if name not in ("type", "version")]
    spec = {"type": store["type"], "version": store["version"], "metadata": metadata}
    component = {"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": "state"}}
    return {**component, "spec": spec, "scopes": scopes}


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a file of YAML."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
