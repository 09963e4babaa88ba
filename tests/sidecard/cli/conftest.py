"""A project of two tiny apps and a user's sidecar, with app-ids and ports of its own: it runs beside any other."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sidecard.cli.project import Project

ROOT = Path(__file__).parents[3]

APP = """
import os
import uvicorn
from fastapi import FastAPI

app = FastAPI()

@app.get("/healthz")
@app.get("/readyz")
def healthy() -> dict[str, str]:
    return {"pid": str(os.getpid())}

@app.get("/open")
@app.get("/closed")
def environment() -> dict[str, str]:
    return dict(os.environ)

uvicorn.run(app, host="127.0.0.1", port=int(os.environ["APP_PORT"]), log_level="warning")
"""


def _app(app_id: str, number: int, **more: object) -> dict[str, object]:
    ports = {"daprHTTPPort": 3590, "daprGRPCPort": 4590, "daprInternalGRPCPort": 5590, "metricsPort": 9580}
    return {
        "appID": app_id,
        "appDirPath": ".",
        "configFilePath": f"components/access/{app_id}.yaml",
        **{name: port + number for name, port in ports.items()},
        **more,
    }


def _access(app_id: str, operations: list[dict[str, object]]) -> dict[str, object]:
    callee = yaml.safe_load((ROOT / "components" / "access" / "expenses.yaml").read_text())
    caller = {"appId": "stub-desk", "namespace": "default", "trustDomain": "public", "defaultAction": "deny"}
    callee["metadata"]["name"] = app_id
    callee["spec"]["accessControl"]["policies"] = [{**caller, "operations": operations}]
    callee["spec"]["secrets"]["scopes"][0]["allowedSecrets"] = [app_id, "trust"]
    return callee


def _make(root: Path) -> Project:
    """Writes the project, with the desk's own wrapper, components and resiliency."""
    for folder in ("components", "resiliency", "runtime/.dapr"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("access", "postgresql"))
    shutil.copy2(ROOT / ".gitignore", root)
    (root / "runtime" / "bin").symlink_to(ROOT / "runtime" / "bin")
    (root / ".venv").symlink_to(ROOT / ".venv")
    common = yaml.safe_load((ROOT / "dapr.yaml").read_text())["common"]
    command = [".venv/bin/python", "-m"]
    apps = [
        _app("stub-agent", 1, appPort=8191, command=[*command, "agents.agent"], env={"SIDECARD_GRPC_PORT": "8291"}),
        _app("stub-tool", 2, appPort=8192, command=[*command, "agents.tool"]),
        _app("stub-desk", 0),
    ]
    (root / "dapr.yaml").write_text(yaml.safe_dump({"version": 1, "name": "Stub Desk", "common": common, "apps": apps}))
    (root / "components" / "access").mkdir()
    open_path = {"name": "/open", "httpVerb": ["GET"], "action": "allow"}
    for app in apps:
        path = root / "components" / "access" / f"{app['appID']}.yaml"
        path.write_text(yaml.safe_dump(_access(str(app["appID"]), [open_path])))
    for name in ("agent", "tool"):
        (root / "agents" / name).mkdir(parents=True)
        (root / "agents" / name / "__main__.py").write_text(APP)
    (root / "agents" / "callers.yaml").write_text("callers: {boss: {api_key: true}, stub-desk: {sidecar: true}}\n")
    return Project(root)


@pytest.fixture(scope="session")
def new_project() -> Callable[[Path], Project]:
    """Makes such a project in a folder that does not exist yet."""
    return _make


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh project that nothing runs in."""
    return _make(tmp_path / "desk")
