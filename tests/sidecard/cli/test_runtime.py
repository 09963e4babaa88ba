"""Which daprd, sentry and Dapr CLI are used."""

import os
from pathlib import Path

import pytest

from sidecard.cli import runtime
from sidecard.cli.console import Console
from sidecard.cli.project import Project
from sidecard.errors import ConfigurationError

TELLS = {
    "daprd": "{}",
    "sentry": "msg=Starting -- version {} -- commit",
    "dapr": "CLI version: {} \nRuntime version: n/a",
    "placement": "msg=Starting -- version {} -- commit",
    "scheduler": "msg=Starting -- version {} -- commit",
}


def _install(folder: Path, **versions: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, version in versions.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{TELLS[name].format(version)}"\n')
        (folder / name).chmod(0o755)


@pytest.fixture
def machine(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing of Dapr and no Go: its home folder. Programs in `bin` there are on PATH."""
    (project.root / "runtime" / "bin").unlink()
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{home}/bin:/usr/bin:/bin")
    monkeypatch.setattr(runtime, "GO_ELSEWHERE", Path("/nonexistent/go"))
    return home


def test_installed_programs_are_linked(project: Project, machine: Path) -> None:
    """What ~/.dapr/bin and PATH have is used as it is, the former first."""
    _install(machine / ".dapr/bin", daprd="1.18.2", sentry="1.18.4")
    _install(machine / "bin", daprd="1.18.3", dapr="1.17.0")
    programs = runtime.ensure(project, Console(quiet=True))
    assert {name: path.resolve() for name, path in programs.items()} == {
        "daprd": machine / ".dapr/bin/daprd",
        "sentry": machine / ".dapr/bin/sentry",
        "dapr": machine / "bin/dapr",
    }


def test_what_only_workflows_need_is_had_only_when_asked_for(project: Project, machine: Path) -> None:
    """Placement and scheduler, found as the others are; a running system does without."""
    _install(machine / "bin", placement="1.18.2", scheduler="1.18.2")
    programs = runtime.ensure(project, Console(quiet=True), runtime.WORKFLOWS)
    assert {name: path.resolve().name for name, path in programs.items()} == {
        "placement": "placement",
        "scheduler": "scheduler",
    }
    assert not set(programs) & {program.name for program in runtime.PROGRAMS}


@pytest.mark.parametrize(
    ("name", "version", "fits"),
    [
        ("daprd", "1.18.2", True),
        ("daprd", "1.18.10", True),
        ("daprd", "1.18.1", False),
        ("daprd", "1.19.0", False),
        ("daprd", "", False),
        ("dapr", "1.16.5", True),
        ("dapr", "1.18.0", True),
        ("dapr", "1.16.4", False),
        ("dapr", "2.0.0", False),
    ],
)
def test_which_versions_fit(name: str, version: str, fits: bool) -> None:
    """A later patch of the runtime fits, another minor does not; of the CLI any later 1.x does."""
    [program] = [program for program in runtime.PROGRAMS if program.name == name]
    assert program.fits(version) is fits


def test_nothing_and_no_go(project: Project, machine: Path) -> None:
    """Without Dapr and without Go the message names what is missing and where it comes from."""
    with pytest.raises(ConfigurationError, match=r"daprd 1\.18\.2 is missing, and so is Go.*https://go\.dev/dl"):
        runtime.ensure(project, Console(quiet=True))


def test_unfit_version_is_not_used(project: Project, machine: Path) -> None:
    """An old daprd is passed over, and the message is the same as without one."""
    _install(machine / "bin", daprd="1.15.0", sentry="1.18.2", dapr="1.16.5")
    with pytest.raises(ConfigurationError, match=r"daprd 1\.18\.2 is missing"):
        runtime.ensure(project, Console(quiet=True))


def test_built_by_go(project: Project, machine: Path) -> None:
    """What is missing is built by Go in the module that pins it, and taken from there the next time."""
    _install(machine / "bin", sentry="1.18.2", dapr="1.16.5")
    go = machine / "bin" / "go"
    go.write_text(
        '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n'
        'printf "#!/bin/sh\\necho 1.18.2\\n" > "$2" && chmod +x "$2" && pwd > "$2.where"\n'
    )
    go.chmod(0o755)
    built = runtime.ensure(project, Console(quiet=True))["daprd"]
    assert built == project.programs / "daprd"
    assert (project.programs / ".daprd.partial.where").read_text().strip() == str(project.root / "runtime")
    go.unlink()
    assert runtime.ensure(project, Console(quiet=True))["daprd"] == built


def test_failed_build(project: Project, machine: Path) -> None:
    """A build that fails shows Go's last words and leaves no half-made program."""
    _install(machine / "bin", sentry="1.18.2", dapr="1.16.5")
    go = machine / "bin" / "go"
    go.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    go.chmod(0o755)
    with pytest.raises(ConfigurationError, match=r"daprd could not be built(.|\n)*no network"):
        runtime.ensure(project, Console(quiet=True))
    assert not os.path.lexists(project.programs / "daprd")
