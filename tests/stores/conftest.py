"""Real state stores behind real sidecars: SQLite, PostgreSQL and Redis, started for the run and gone afterwards."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from sidecard.tasks.store import KINDS, DaprStateStore

ROOT = Path(__file__).parents[2]
TOKEN = "only for tests"
PACKAGES = {"redis-server": "redis-server", "postgres": "postgresql", "initdb": "postgresql"}


def program(name: str) -> str:
    """Where a server is. As root on Debian it is installed when missing; else the tests say what is."""
    package = PACKAGES[name]
    if _found(name) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "--no-install-recommends", package]):
            subprocess.run(command, env=environment, check=True, capture_output=True)
    return _found(name) or pytest.fail(f"{name} is missing: install the package {package} and run the tests again")


def _found(name: str) -> str | None:
    debian = map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or next(debian, None)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@dataclass
class Server:
    """A process under test, and how to start it again."""

    command: list[str]
    port: int
    user: str = ""
    process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it, and return when it listens."""
        self.process = subprocess.Popen(
            self.command, user=self.user or None, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self.process.poll() is None, f"{self.command[0]} ended"
            assert time.monotonic() < deadline, f"{self.command[0]} does not listen"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def redis(tmp_path_factory) -> Iterator[Server]:
    """Redis as it must be set for tasks: every write on disk before its answer, nothing evicted."""
    folder, [port] = tmp_path_factory.mktemp("redis"), free_ports(1)
    options = f"--port {port} --bind 127.0.0.1 --dir {folder} --save --appendonly yes --appendfsync always"
    server = Server([program("redis-server"), *options.split(), "--maxmemory-policy", "noeviction"], port)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory) -> Iterator[Server]:
    """PostgreSQL with a database of its own; as root it runs as its package's user, since it refuses root."""
    folder, [port] = tmp_path_factory.mktemp("postgresql"), free_ports(1)
    postgres = program("postgres")
    user = ""
    if os.geteuid() == 0:
        user = "postgres"
        owner = pwd.getpwnam(user)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        for parent in folder.parents[:2]:
            parent.chmod(0o755)
    initialise = [program("initdb"), "-D", str(folder), "-U", "sidecard", "--auth=trust", "--no-sync"]
    subprocess.run(initialise, user=user or None, check=True, capture_output=True, cwd="/")
    listen = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    server = Server([postgres, "-D", str(folder), "-p", str(port), *listen], port, user)
    server.start()
    yield server
    server.stop()


@dataclass
class Sidecar:
    """A daprd of its own, without mTLS, whose component `state` is one store."""

    kind: str
    grpc_port: int

    def store(self) -> DaprStateStore:
        """A new connection, as each replica has one. Not yet recognised."""
        return DaprStateStore(port=self.grpc_port, token=TOKEN)


@pytest.fixture(scope="session", params=KINDS)
def sidecar(request, tmp_path_factory) -> Iterator[Sidecar]:
    """A sidecar over each kind of store in turn."""
    with _sidecar(request.param, request, tmp_path_factory.mktemp("daprd")) as started:
        yield started


@pytest.fixture(scope="session", params=[kind for kind, (shared, _) in KINDS.items() if shared])
def shared_sidecar(request, tmp_path_factory) -> Iterator[Sidecar]:
    """A sidecar over each kind of store that replicas may share."""
    with _sidecar(request.param, request, tmp_path_factory.mktemp("daprd")) as started:
        yield started


@contextlib.contextmanager
def _sidecar(kind: str, request, folder: Path) -> Iterator[Sidecar]:
    metadata = {"connectionString": str(folder / "state.db"), "busyTimeout": "10s"}
    if kind == "state.postgresql":
        port = request.getfixturevalue("postgresql").port
        metadata = {"connectionString": f"host=127.0.0.1 port={port} user=sidecard database=postgres sslmode=disable"}
    if kind == "state.redis":
        metadata = {"redisHost": f"127.0.0.1:{request.getfixturevalue('redis').port}", "redisPassword": ""}
    component = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": "state"},
        "spec": {
            "type": kind,
            "version": "v2" if kind == "state.postgresql" else "v1",
            "metadata": [{"name": name, "value": value} for name, value in metadata.items()],
        },
    }
    (folder / "state.yaml").write_text(yaml.safe_dump(component))
    http, grpc, internal, metrics = free_ports(4)
    options = f"--app-id shop --resources-path {folder} --dapr-http-port {http} --dapr-grpc-port {grpc}"
    options += f" --dapr-internal-grpc-port {internal} --metrics-port {metrics} --log-level warn"
    addresses = ["--dapr-listen-addresses", "127.0.0.1", "--dapr-internal-grpc-listen-address", "127.0.0.1"]
    addresses += ["--metrics-listen-address", "127.0.0.1"]
    daprd = subprocess.Popen(
        [str(ROOT / "runtime/bin/daprd"), *options.split(), *addresses],
        env={**os.environ, "DAPR_API_TOKEN": TOKEN, "DAPR_HOST_IP": "127.0.0.1"},
        stdout=(folder / "log").open("w"),
        stderr=subprocess.STDOUT,
    )
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(httpx.HTTPError):
            headers = {"dapr-api-token": TOKEN}
            if httpx.get(f"http://127.0.0.1:{http}/v1.0/healthz/outbound", headers=headers).is_success:
                break
        assert daprd.poll() is None, (folder / "log").read_text()[-3000:]
        assert time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
        time.sleep(0.1)
    try:
        yield Sidecar(kind, grpc)
    finally:
        daprd.kill()
        daprd.wait()
