"""The secrets of a project on a laptop: made once, git-ignored, never overwritten. In Kubernetes the platform's."""

import hashlib
import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jwcrypto import jwk

from sidecard.callers import CallersFile
from sidecard.cli.project import App, Project
from sidecard.errors import ConfigurationError
from sidecard.signature import signing_keys

_SENTRY = """\
# Sentry's own configuration. Workload certificates are renewed by the sidecars themselves.
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: sentry
spec:
  mtls:
    enabled: true
    workloadCertTTL: 24h
    allowedClockSkew: 15m
"""


def ensure(project: Project) -> list[str]:
    """Fills in what `.sidecard/` lacks and returns the names of what it made; empty when everything was there.

    Made are: Sentry's configuration (its CA it makes itself at first start), each app's pair of tokens, each agent's
    signing key and task-id key, the API keys of agents/callers.yaml, and the trust file with every publisher's public
    keys. Folders are 0700, files 0600. Raises ConfigurationError when a file in the way can't be read.
    """
    apps, local = project.apps, project.local
    for folder in (local, local / "sentry", local / "tokens", local / "keys"):
        folder.mkdir(mode=0o700, exist_ok=True)
    (project.root / "data").mkdir(mode=0o700, exist_ok=True)
    made: list[str] = []
    _write_if_missing(local / "sentry" / "config.yaml", _SENTRY, made)
    for app in apps:
        tokens = f"APP_API_TOKEN={secrets.token_urlsafe(32)}\nDAPR_API_TOKEN={secrets.token_urlsafe(32)}\n"
        _write_if_missing(local / "tokens" / f"{app.app_id}.env", tokens, made)
    agents = [app for app in apps if app.is_agent]
    _ensure_secrets(project, agents, _ensure_api_keys(project, made), made)
    return made


def write_compose_env(project: Project) -> None:
    """Writes `.sidecard/compose.env`, all that docker-compose.yml needs, once Sentry has made its CA."""
    authority = project.local / "sentry" / "ca.crt"
    password = read_json(project.local / "secrets.json")["database"]["password"]
    anchors = authority.read_text().strip().replace("\n", "\\n")
    lines = (
        f'DAPR_TRUST_ANCHORS="{anchors}"',
        f"SIDECARD_USER={os.getuid()}:{os.getgid()}",
        f"DATABASE_PASSWORD={password}",
    )
    write(project.local / "compose.env", "\n".join(lines) + "\n")


def _ensure_api_keys(project: Project, made: list[str]) -> dict[str, str]:
    """The hash of each caller's key with the caller's name: agents hold hashes, only the caller holds the key."""
    hashes = {}
    for caller in _callers_with_keys(project.root / "agents" / "callers.yaml"):
        path = project.local / "keys" / f"{caller}.key"
        _write_if_missing(path, secrets.token_urlsafe(32), made)
        hashes[hashlib.sha256(path.read_text().strip().encode()).hexdigest()] = caller
    return hashes


def _callers_with_keys(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [name for name, grant in CallersFile.read(path).callers.items() if grant.api_key]


def _ensure_secrets(project: Project, agents: list[App], api_keys: dict[str, str], made: list[str]) -> None:
    path = project.local / "secrets.json"
    store: dict[str, dict[str, str]] = read_json(path)
    before = json.dumps(store, sort_keys=True)
    # trust.json is the one to edit, for instance to pin another publisher; the secret is its copy for the agents.
    trust = read_json(project.local / "trust.json")
    trust_before = json.dumps(trust)
    pinned = trust.setdefault("publishers", {}).setdefault(project.run_file.name, {}).setdefault("keys", [])
    for app in agents:
        own = store.setdefault(app.app_id, {})
        own.setdefault("task-id-key", secrets.token_hex(32))
        own.setdefault("signing-key", new_signing_key(app.app_id).export_private())
        own.setdefault("clients", "{}")  # what issuers of tokens for foreign agents call it; see `credentials`
        own["api-keys"] = json.dumps(api_keys, sort_keys=True)
        for key in signing_keys(own["signing-key"]):
            pin(pinned, key, app.app_id)
    store["trust"] = {"publishers": json.dumps(trust)}
    if "database" not in store:  # for docker-compose.yml; on a laptop nothing reads it
        password = secrets.token_urlsafe(24)
        connection = f"host=postgresql user=sidecard password={password} dbname=state sslmode=disable"
        store["database"] = {"connection-string": connection, "password": password}
    if json.dumps(store, sort_keys=True) != before:
        write(path, json.dumps(store, indent=2))
        made.append(path.name)
    if json.dumps(trust) != trust_before:
        write(project.local / "trust.json", json.dumps(trust, indent=2))
        made.append("trust.json")


def new_signing_key(agent: str) -> jwk.JWK:
    """A key for an agent's card. Its id says when it was made: `<agent>-<year, month, day>-<random>`."""
    kid = f"{agent}-{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(4)}"
    return jwk.JWK.generate(kty="EC", crv="P-256", kid=kid, alg="ES256", use="sig")


def pin(pinned: list[dict[str, Any]], key: jwk.JWK, agent: str) -> None:
    """Add a key's public half to its publisher's in the trust file for this agent's cards alone."""
    if not any(other["kid"] == key["kid"] for other in pinned):
        pinned.append({**key.export_public(as_dict=True), "agents": [agent]})


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty when there is no file. Raises ConfigurationError for anything else."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON ({error}): mend it, or delete it to have new keys made") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} is not a JSON object: delete it to have new keys made")
    return content


def _write_if_missing(path: Path, content: str, made: list[str]) -> None:
    if not path.exists():
        write(path, content)
        made.append(path.name)


def write(path: Path, content: str) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    partial = path.with_name(f".{path.name}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
    partial.replace(path)
