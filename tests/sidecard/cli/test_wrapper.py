"""runtime/.dapr/bin/daprd, the script that `dapr run` starts instead of daprd."""

import os
import subprocess

import pytest

from sidecard.cli import bootstrap
from sidecard.cli.project import Project

GIVEN = ["--app-id", "stub-agent", "--sentry-address", "localhost:50001", "--placement-host-address", "localhost:50005"]
GIVEN += ["--scheduler-host-address", "localhost", "--dapr-http-port", "3591", "--resources-path", "a folder"]


@pytest.fixture
def ready(project: Project) -> Project:
    """Bootstrapped, with a sentry that "runs" and a daprd that prints its arguments and environment."""
    bootstrap.ensure(project)
    (project.local / "sentry" / "ca.crt").write_text("-----BEGIN-----\nCA\n-----END-----\n")
    (project.local / "sentry" / "pid").write_text(str(os.getpid()))
    (project.root / "runtime" / "bin").unlink()
    project.programs.mkdir()
    (project.programs / "daprd").write_text('#!/bin/sh\nprintf "%s\\n" "$@" ENVIRONMENT; env\n')
    (project.programs / "daprd").chmod(0o755)
    return project


def _start(project: Project, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["runtime/.dapr/bin/daprd", *arguments]
    path = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        command, cwd=project.root, env=path | environment, capture_output=True, text=True, check=False,
        start_new_session=True,
    )  # fmt: skip


def test_arguments(ready: Project) -> None:
    """Every address is local, placement and scheduler are dropped, the rest is passed on word for word."""
    arguments = _start(ready, *GIVEN).stdout.split("ENVIRONMENT")[0].splitlines()
    assert arguments == [
        *("--app-id", "stub-agent", "--sentry-address", "127.0.0.1:50001", "--dapr-http-port", "3591"),
        *("--resources-path", "a folder", "--dapr-listen-addresses", "127.0.0.1"),
        *("--dapr-internal-grpc-listen-address", "127.0.0.1", "--metrics-listen-address", "127.0.0.1"),
    ]


def test_environment(ready: Project) -> None:
    """The sidecar gets its own app's tokens, Sentry's CA and the namespace of the access rules."""
    printed = _start(ready, *GIVEN).stdout
    for token in (ready.local / "tokens" / "stub-agent.env").read_text().splitlines():
        assert token in printed
    assert "DAPR_TRUST_ANCHORS=-----BEGIN-----\nCA\n-----END-----" in printed
    assert "NAMESPACE=default\n" in printed
    assert "DAPR_HOST_IP=127.0.0.1\n" in printed
    assert "OTEL" not in printed


def test_one_thread_unless_told_otherwise(ready: Project) -> None:
    """A sidecar takes no more of the machine than its app can use."""
    assert "GOMAXPROCS=1\n" in _start(ready, *GIVEN).stdout
    assert "GOMAXPROCS=4\n" in _start(ready, *GIVEN, GOMAXPROCS="4").stdout


def test_traces(ready: Project) -> None:
    """One endpoint serves apps and sidecars: daprd is told that a URL means HTTP, and http:// no TLS."""
    printed = _start(ready, *GIVEN, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318/").stdout
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318\n" in printed
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf\n" in printed
    assert "OTEL_EXPORTER_OTLP_INSECURE=true\n" in printed


@pytest.mark.parametrize(
    ("lost", "advice"),
    [
        ("runtime/bin/daprd", "make runtime"),
        (".sidecard/tokens/stub-agent.env", "make bootstrap"),
        (".sidecard/sentry/pid", "make sentry"),
        (".sidecard/sentry/ca.crt", "make sentry"),
    ],
)
def test_what_is_missing(ready: Project, lost: str, advice: str) -> None:
    """What is missing is one line that says which command makes it."""
    (ready.root / lost).unlink()
    ended = _start(ready, *GIVEN)
    assert ended.returncode == 1
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert line.startswith("sidecar of stub-agent: ")
    assert f"`{advice}`" in line


def test_dead_sentry(ready: Project) -> None:
    """A sentry that died leaves its pid behind; that does not count as running."""
    (ready.local / "sentry" / "pid").write_text("4194305")
    assert "sentry does not run" in _start(ready, *GIVEN).stderr


def test_version(ready: Project) -> None:
    """The Dapr CLI asks for the version, which needs neither keys nor sentry."""
    assert _start(ready, "--version").stdout.startswith("--version\n")
