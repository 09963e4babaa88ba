"""`sidecard revoke`, `restore`, `revoked`: who is meant, and what is said of it."""

import contextlib
import json

import pytest
from typer.testing import CliRunner

from sidecard.cli import app, way
from sidecard.errors import ConfigurationError
from sidecard.revocations import Revocation, RevocationList

CALLERS = "callers: {desk: {sidecar: true}, manager: {api_key: true}}"
RUN_FILE = """
name: Tests
apps:
- {appID: shop, daprHTTPPort: 1, daprGRPCPort: 2, daprInternalGRPCPort: 3, metricsPort: 4, configFilePath: x}
"""


class Registry:
    """Keeps the list, as the registry does."""

    def __init__(self):
        self.listed = {}

    async def all(self):
        return RevocationList(revoked=list(self.listed.values()))

    async def revoke(self, mark, reason):
        self.listed[mark] = Revocation(mark=mark, since="2026-11-21T12:00:00Z", by="desk", reason=reason)
        return await self.all()

    async def restore(self, mark):
        self.listed.pop(mark, None)
        return await self.all()


@pytest.fixture
def registry(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "callers.yaml").write_text(CALLERS)
    (tmp_path / "dapr.yaml").write_text(RUN_FILE)
    found = Registry()

    @contextlib.asynccontextmanager
    async def revocations(project):
        yield found

    monkeypatch.setattr(way, "revocations", revocations)
    return found


def run(*words):
    return CliRunner().invoke(app, words, catch_exceptions=False)


def test_a_caller_is_revoked_shown_and_restored(registry):
    """By its name alone; for people, and for programs."""
    said = run("revoke", "manager").output
    assert "caller:manager is revoked: within 5 s nobody lets it in; `sidecard restore manager`" in said
    assert json.loads(run("revoke", "app:shop", "--reason", "[b]gone[/b]", "--json").output) == {
        "ok": True,
        "mark": "app:shop",
        "revoked": ["caller:manager", "app:shop"],
    }
    shown = run("revoked").output
    assert "caller:manager  since 2026-11-21 12:00:00 UTC, by desk\n" in shown
    assert "by desk: [b]gone[/b]" in shown
    assert json.loads(run("revoked", "--json").output)["revoked"][1]["reason"] == "[b]gone[/b]"
    run("restore", "manager")
    assert "let in again" in run("restore", "app:shop").output
    assert run("revoked").output == "nobody is revoked\n"


@pytest.mark.parametrize(
    "who", [f"key:{'ab' * 32}", f"certificate:{'AB:' * 31}AB", "client:partner", "token:x", "work/ada@example.org"]
)
def test_what_the_project_does_not_list_can_be_revoked(registry, who):
    """Keys, certificates, clients and tokens, and people whom an issuer names."""
    assert run("revoke", who).exit_code == 0
    assert len(registry.listed) == 1


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("maneger", "There is no caller 'maneger'; there are: desk, manager"),
        ("app:shops", "There is no app 'shops'; there are: shop"),
        ("key:12", "'key:12' names nobody: name who is meant by a caller's name, app:<app-id>"),
    ],
)
def test_who_is_mistyped_is_not_taken_for_revoked(registry, who, words):
    """In a hurry that would be worse than an error."""
    with pytest.raises(ConfigurationError, match=words):
        run("revoke", who)
    assert not registry.listed
