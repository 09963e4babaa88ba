"""Keys and tokens on a laptop."""

import hashlib
import json
from pathlib import Path

import pytest
from jwcrypto import jwk

from sidecard.cli import bootstrap
from sidecard.cli.project import Project
from sidecard.errors import ConfigurationError


def _everything(project: Project) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in project.local.rglob("*") if path.is_file()}


def test_second_run_changes_nothing(project: Project) -> None:
    """What was made once is never touched again."""
    assert bootstrap.ensure(project)
    before = _everything(project)
    assert bootstrap.ensure(project) == []
    assert _everything(project) == before


def test_only_the_owner_reads(project: Project) -> None:
    """Folders are 0700 and files 0600."""
    bootstrap.ensure(project)
    for path in [project.local, *project.local.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_tokens_differ(project: Project) -> None:
    """Each app has a pair of its own: a shared one would let an app forge its neighbour's callers."""
    bootstrap.ensure(project)
    lines = [line for path in (project.local / "tokens").iterdir() for line in path.read_text().splitlines()]
    assert sorted(line.split("=")[0] for line in lines) == ["APP_API_TOKEN"] * 3 + ["DAPR_API_TOKEN"] * 3
    assert len({line.split("=")[1] for line in lines}) == 6


def test_secrets(project: Project) -> None:
    """An agent gets its signing key, its HMAC key and the callers' hashed keys; what is no agent gets nothing."""
    bootstrap.ensure(project)
    store = json.loads((project.local / "secrets.json").read_text())
    assert sorted(store) == ["database", "stub-agent", "trust"]
    own = store["stub-agent"]
    key = json.loads(own["signing-key"])
    assert (key["kty"], key["crv"], key["alg"]) == ("EC", "P-256", "ES256")
    assert key["kid"].startswith("stub-agent-")
    assert len(bytes.fromhex(own["task-id-key"])) == 32
    boss = (project.local / "keys" / "boss.key").read_text()
    assert json.loads(own["api-keys"]) == {hashlib.sha256(boss.encode()).hexdigest(): "boss"}


def test_trust(project: Project) -> None:
    """The trust file pins the public half only, for the publisher that dapr.yaml names; the agents see the same."""
    bootstrap.ensure(project)
    store = json.loads((project.local / "secrets.json").read_text())
    trust = json.loads((project.local / "trust.json").read_text())
    [pinned] = trust["publishers"]["Stub Desk"]["keys"]
    assert pinned.pop("agents") == ["stub-agent"]
    assert "d" not in pinned
    private = jwk.JWK.from_json(store["stub-agent"]["signing-key"])
    assert jwk.JWK(**pinned).thumbprint() == private.thumbprint()
    assert json.loads(store["trust"]["publishers"]) == json.loads((project.local / "trust.json").read_text())


def test_pinned_by_hand(project: Project) -> None:
    """A publisher that the user pinned stays, and reaches the agents."""
    bootstrap.ensure(project)
    path = project.local / "trust.json"
    trust = json.loads(path.read_text())
    trust["publishers"]["Another"] = {"keys": []}
    path.write_text(json.dumps(trust))
    assert bootstrap.ensure(project) == ["secrets.json"]
    assert json.loads(path.read_text()) == trust
    assert json.loads(json.loads((project.local / "secrets.json").read_text())["trust"]["publishers"]) == trust


def test_missing_parts_are_filled_in(project: Project) -> None:
    """A lost token file and a new agent are made without touching the rest."""
    bootstrap.ensure(project)
    before = _everything(project)
    (project.local / "tokens" / "stub-tool.env").unlink()
    run_file = project.root / "dapr.yaml"
    run_file.write_text(run_file.read_text().replace("agents.tool", "agents.tool\n  env: {SIDECARD_GRPC_PORT: '8292'}"))
    made = bootstrap.ensure(Project(project.root))
    assert made == ["stub-tool.env", "secrets.json", "trust.json"]
    after = _everything(project)
    kept = {path for path in before if path.name not in made}
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}
    old, new = (json.loads(files[project.local / "secrets.json"]) for files in (before, after))
    assert new["stub-agent"] == old["stub-agent"]
    assert "signing-key" in new["stub-tool"]


@pytest.mark.parametrize("name", ["secrets.json", "trust.json"])
@pytest.mark.parametrize("content", ["{", "[]"])
def test_broken_file(project: Project, name: str, content: str) -> None:
    """A file that can't be read is named and left alone: overwriting it would lose keys."""
    bootstrap.ensure(project)
    (project.local / name).write_text(content)
    with pytest.raises(ConfigurationError, match=name.replace(".", r"\.")):
        bootstrap.ensure(project)
    assert (project.local / name).read_text() == content
