"""The desk in a copy of the project made for the tour, so that the user's own checkout and its keys are not touched."""

import json
from pathlib import Path
from typing import Any

import yaml
from jwcrypto.jwk import JWK

from foreign.parties import Railways, secret_of
from sidecard.cli import bootstrap
from sidecard.cli.keyring import Keyring
from sidecard.cli.project import Project

PUBLISHER = "Railways of Europe"
PARTNER = "partner"
GUIDE = "guide"
EXTRA = {GUIDE: 7, "charter": 8}
"""The tour's own agents, and the last digit of their ports."""
_ENROL: list[dict[str, object]] = [
    {"name": "/agents", "httpVerb": ["GET", "PUT"], "action": "allow"},
    {"name": "/revoked", "httpVerb": ["GET"], "action": "allow"},
]
_CARD: dict[str, object] = {"name": "/.well-known/agent-card.json", "httpVerb": ["GET"], "action": "allow"}
_WORK: list[dict[str, object]] = [_CARD, {"name": "/a2a", "httpVerb": ["POST"], "action": "allow"}]


def made(project: Project, target: Path, issuer: str, railways: Railways, impostor: str) -> Project:
    """A copy with two agents more, who may call whom, an OpenID issuer, and the railways' key pinned.

    `impostor` is the address of a false agent: the registry may connect to there, so that nothing but its card keeps
    it out.
    """
    copy = project.copy_to(target)
    _extend_callers(copy.root / "agents" / "callers.yaml", issuer)
    _extend_components(copy.root / "components")
    foreign = {"registry": [railways.url, impostor], GUIDE: [railways.url, issuer]}
    _extend_run_file(copy.root / "dapr.yaml", foreign)
    copy = Project(copy.root)
    bootstrap.ensure(copy)
    key = JWK(**railways.key).export_public(as_dict=True)
    Keyring(copy).pin(PUBLISHER, [{**key, "agents": ["railways"]}])
    secrets = bootstrap.read_json(copy.local / "secrets.json")
    secrets[GUIDE]["clients"] = json.dumps({issuer: {"client_id": GUIDE, "client_secret": secret_of(GUIDE)}})
    bootstrap.write(copy.local / "secrets.json", json.dumps(secrets, indent=2))
    return copy


def _extend_callers(path: Path, issuer: str) -> None:
    content = _read(path)
    content["issuers"] = {"company": {"url": issuer}}
    callers = content["callers"]
    callers[PARTNER] = {"token": {"issuer": "company", "client": PARTNER}, "grants": {"flights": ["flights:search"]}}
    charter = ["seats:see", "seats:hold", "flights:search"]
    callers[GUIDE] = {
        "sidecar": True,
        "speaks_for_others": True,
        "grants": {"charter": charter, "flights": ["flights:search"]},
    }
    callers["desk"]["grants"][GUIDE] = ["tour:travel"]
    callers["manager"]["grants"][GUIDE] = ["seats:approve"]
    _write(path, content)


def _extend_components(folder: Path) -> None:
    state = _read(folder / "state.yaml")
    state["scopes"] += EXTRA
    _write(folder / "state.yaml", state)
    _extend_access(folder / "access")


def _extend_access(folder: Path) -> None:
    registry = _read(folder / "registry.yaml")
    for name in EXTRA:
        own = _read(folder / "flights.yaml")
        own["metadata"]["name"] = name
        own["spec"]["secrets"]["scopes"][0]["allowedSecrets"] = [name, "trust"]
        own["spec"]["accessControl"]["policies"] = [
            _policy("registry", [_CARD]),
            _policy("desk" if name == GUIDE else GUIDE, _WORK),
        ]
        _write(folder / f"{name}.yaml", own)
        registry["spec"]["accessControl"]["policies"].append(_policy(name, _ENROL))
    _write(folder / "registry.yaml", registry)
    flights = _read(folder / "flights.yaml")
    flights["spec"]["accessControl"]["policies"].append(_policy(GUIDE, _WORK))
    _write(folder / "flights.yaml", flights)


def _extend_run_file(path: Path, foreign: dict[str, list[str]]) -> None:
    run = _read(path)
    for name, digit in EXTRA.items():
        app: dict[str, Any] = {
            "appID": name,
            "appDirPath": ".",
            "configFilePath": f"components/access/{name}.yaml",
            "command": [".venv/bin/python", "-m", f"tour.{name}"],
            "appPort": 8100 + digit,
            "daprHTTPPort": 3500 + digit,
            "daprGRPCPort": 4500 + digit,
            "daprInternalGRPCPort": 5500 + digit,
            "metricsPort": 9500 + digit,
            "env": {"SIDECARD_GRPC_PORT": str(8200 + digit)},
        }
        run["apps"].insert(1, app)  # the desk stays last: the CLI waits for it alone
    for app in run["apps"]:
        if app["appID"] in foreign:
            app["env"] = app.get("env", {}) | {"SIDECARD_FOREIGN": ",".join(foreign[app["appID"]])}
    _write(path, run)


def _policy(app_id: str, operations: list[dict[str, object]]) -> dict[str, object]:
    return {
        "appId": app_id,
        "namespace": "default",
        "trustDomain": "public",
        "defaultAction": "deny",
        "operations": operations,
    }


def _read(path: Path) -> Any:  # noqa: ANN401 -- YAML
    return yaml.safe_load(path.read_text())


def _write(path: Path, content: object) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
