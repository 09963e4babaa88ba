"""The programs of Dapr that a laptop needs: daprd, sentry and the Dapr CLI, found installed or built from runtime/."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecard.cli.console import Console
from sidecard.cli.project import Project
from sidecard.errors import ConfigurationError

RUNTIME = "1.18.2"
CLI = "1.16.5"
GO_ELSEWHERE = Path("/usr/local/go/bin/go")
"""Where Go's own instructions put it; often not on the PATH of a program."""


@dataclass(frozen=True)
class Program:
    """One program: which version fits, how it tells its own, and how it is built."""

    name: str
    module: str
    """Folder of the Go module that pins it."""
    package: str
    version: str
    """The one that is built; an installed one fits from this patch on."""
    newer_minor_fits: bool
    ask: tuple[str, ...]
    flags: tuple[str, ...]

    def fits(self, found: str) -> bool:
        """Whether an installed version may be used."""
        want = _numbers(self.version)
        have = _numbers(found)
        if not have:
            return False
        return have >= want and (have[0] == want[0] if self.newer_minor_fits else have[:2] == want[:2])


_DAPR = "github.com/dapr/dapr"
_STAMP = f"-X {_DAPR}/pkg/buildinfo.version={RUNTIME}"
PROGRAMS = (
    # Without a components tag daprd panics at start; the stable ones hold all that is used here.
    Program("daprd", "runtime", f"{_DAPR}/cmd/daprd", RUNTIME, False, ("--version",),
            ("-tags", "stablecomponents", "-ldflags", _STAMP)),
    # sentry has no --version, but names it before it refuses to start without a configuration.
    Program("sentry", "runtime", f"{_DAPR}/cmd/sentry", RUNTIME, False, ("--config", "/nonexistent"),
            ("-ldflags", _STAMP)),
    Program("dapr", "runtime/cli", "github.com/dapr/cli", CLI, True, ("--version",),
            ("-ldflags", f"-X main.version={CLI} -X main.apiVersion=1.0")),
)  # fmt: skip


CONVERSATION = Program(
    "daprd-conversation", "runtime", f"{_DAPR}/cmd/daprd", RUNTIME, False, ("--version",),
    ("-tags", "stablecomponents,conversation_echo", "-ldflags", _STAMP),
)  # fmt: skip
"""A daprd that has the component `conversation.echo` besides, for the tests of `SIDECARD_SCREEN=conversation:…`."""

KUSTOMIZE = Program(
    "kustomize", "runtime/kustomize", "sigs.k8s.io/kustomize/kustomize/v5", "5.7.1", True, ("version",),
    ("-ldflags", "-X sigs.k8s.io/kustomize/api/provenance.version=v5.7.1"),
)  # fmt: skip
"""Renders k8s/, for tests; a running system needs it not."""

# As sentry they name their version only on the way to something else: here to a port that there isn't.
_ASK = ("--healthz-port", "99999", "--enable-metrics=false", "--tls-enabled", "--trust-anchors-file", "/nonexistent")
WORKFLOWS = tuple(
    Program(name, "runtime", f"{_DAPR}/cmd/{name}", RUNTIME, False, _ASK, ("-ldflags", _STAMP))
    for name in ("placement", "scheduler")
)
"""What Dapr Workflow needs besides, for `make bench`; the desk has no workflows."""


def ensure(project: Project, console: Console, programs: Sequence[Program] = PROGRAMS) -> dict[str, Path]:
    """Puts fitting programs, by default daprd, sentry and dapr, into runtime/bin and returns their paths.

    Taken are, in this order, what is there, what is in ~/.dapr/bin, what is on PATH (linked, not copied); else Go
    builds it. Raises ConfigurationError, saying what is missing and how to install it, when Go is needed and absent.
    """
    _ = project.apps  # outside a project nothing is made
    project.programs.mkdir(parents=True, exist_ok=True)
    versions = _Versions(project.local / "versions.json")
    return {program.name: _ensure(program, project, console, versions) for program in programs}


def _ensure(program: Program, project: Project, console: Console, versions: "_Versions") -> Path:
    home = project.programs / program.name
    for candidate in _candidates(home):
        if program.fits(versions.of(program, candidate)):
            if candidate != home:
                home.unlink(missing_ok=True)
                home.symlink_to(candidate)
                console.line(f"  {program.name}: using {candidate}")
            return home
    _build(program, project, console, home)
    return home


def _candidates(home: Path) -> Iterator[Path]:
    on_path = shutil.which(home.name)
    for path in (home, Path.home() / ".dapr" / "bin" / home.name, Path(on_path) if on_path else None):
        if path and path.is_file() and os.access(path, os.X_OK):
            yield path


def _build(program: Program, project: Project, console: Console, home: Path) -> None:
    go = shutil.which("go") or (str(GO_ELSEWHERE) if GO_ELSEWHERE.exists() else None)
    module = project.root / program.module
    if go is None:
        raise ConfigurationError(
            f"{program.name} {program.version} is missing, and so is Go to build it: install Go 1.26 or later "
            "(https://go.dev/dl), or Dapr itself (https://docs.dapr.io/getting-started/install-dapr-cli), and try again"
        )
    # Built beside its place and moved there, so that an interrupted build leaves nothing that looks finished.
    partial = home.with_name(f".{home.name}.partial")
    command = [go, "build", "-mod=readonly", "-buildvcs=false", *program.flags, "-o", str(partial), program.package]
    console.line(f"  building {program.name} {program.version} from {program.module}/go.mod: some minutes, once")
    with console.phase(f"build {program.name} {program.version}"):
        built = subprocess.run(command, cwd=module, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        last = "\n".join(built.stderr.strip().splitlines()[-8:])
        raise ConfigurationError(
            f"{program.name} could not be built in {module} (Go 1.26 or later and its module proxy are needed):\n{last}"
        )
    home.unlink(missing_ok=True)
    partial.rename(home)


class _Versions:
    """What each program said its version is, remembered while its file is unchanged: asking takes half a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known: dict[str, str] = json.loads(path.read_text())
        except (OSError, ValueError):
            self._known = {}

    def of(self, program: Program, path: Path) -> str:
        stat = path.stat()
        key = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        if key not in self._known:
            self._known[key] = _ask(program, path)
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._known))
        return self._known[key]


def _ask(program: Program, path: Path) -> str:
    try:
        told = subprocess.run([path, *program.ask], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # daprd prints the bare number; the CLI and sentry a line with it.
    found = re.search(r"(?:^|version:? )v?(\d+\.\d+\.\d+)", told.stdout + told.stderr)
    return found[1] if found else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")) if version else ()
