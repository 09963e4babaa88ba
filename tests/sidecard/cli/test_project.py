"""dapr.yaml as the command line reads it."""

from pathlib import Path

import pytest

from sidecard.cli.project import Project
from sidecard.errors import ConfigurationError

ROOT = Path(__file__).parents[3]


def test_desk_apps() -> None:
    """The desk's dapr.yaml names each app once and no port twice."""
    apps = Project(ROOT).apps
    ports = [port for app in apps for port in app.ports]
    assert len({app.app_id for app in apps}) == len(apps)
    assert len(set(ports)) == len(ports) == 6 * 4 + 5 * 2 + 4


def test_files_named_exist() -> None:
    """Every Configuration that dapr.yaml names is there and carries its app-id's name."""
    for app in Project(ROOT).apps:
        assert f"name: {app.app_id}\n" in (ROOT / app.config_file).read_text()


def test_health(project: Project) -> None:
    """An agent is ready by its own word and its sidecar's; a tool by its health; the user's sidecar by itself."""
    assert project.app("stub-agent").health_urls == [
        "http://127.0.0.1:8191/readyz",
        "http://127.0.0.1:3591/v1.0/healthz/outbound",
    ]
    assert project.app("stub-tool").health_urls[0] == "http://127.0.0.1:8192/healthz"
    assert project.app("stub-desk").health_urls == ["http://127.0.0.1:3590/v1.0/healthz/outbound"]


def test_no_run_file(tmp_path: Path) -> None:
    """Outside a project the message says where to go."""
    with pytest.raises(ConfigurationError, match="run this in the project's folder"):
        _ = Project(tmp_path).apps


@pytest.mark.parametrize("content", ["apps: [", "apps: []\nname: x", "name: x\napps: [{appID: a}]", "just text"])
def test_broken_run_file(tmp_path: Path, content: str) -> None:
    """A dapr.yaml that can't be read is named."""
    (tmp_path / "dapr.yaml").write_text(content)
    with pytest.raises(ConfigurationError, match=r"dapr\.yaml can't be read"):
        _ = Project(tmp_path).apps


def test_unknown_app(project: Project) -> None:
    """An unknown app-id is answered with the known ones."""
    with pytest.raises(ConfigurationError, match="it has stub-agent, stub-tool, stub-desk"):
        project.app("nobody")


def test_copy(project: Project, tmp_path: Path) -> None:
    """A copy shares the environment and the programs, and has its own mark and no secrets."""
    (project.root / ".sidecard").mkdir()
    (project.root / "data").mkdir()
    copy = project.copy_to(tmp_path / "copy")
    assert copy.mark != project.mark
    assert [app.app_id for app in copy.apps] == [app.app_id for app in project.apps]
    assert (copy.root / "runtime/.dapr/bin/daprd").exists()
    assert copy.programs.resolve() == (ROOT / "runtime/bin").resolve()
    assert not (copy.root / ".sidecard").exists()
    assert not (copy.root / "data").exists()
