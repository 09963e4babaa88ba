"""Real servers on this machine, gone afterwards: PostgreSQL, Redis, and a sidecar over a state store."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import yaml

from sidecard.errors import ConfigurationError

ROOT = Path(__file__).parents[1]
TOKEN = "only for tests"  # noqa: S105 -- of a sidecar that lives for a test
PACKAGES = {"redis-server": "redis-server", "postgres": "postgresql", "initdb": "postgresql"}
START_SECONDS = 30.0


def program(name: str) -> str:
    """Where a server is. As root on Debian its package is installed when missing.

    Raises ConfigurationError naming the package where that can't be done.
    """
    package = PACKAGES[name]
    if _found(name) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "--no-install-recommends", package]):
            subprocess.run(command, env=environment, check=True, capture_output=True)
    found = _found(name)
    if found is None:
        raise ConfigurationError(f"{name} is missing: install the package {package} and try again")
    return found


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
    """A process that listens on a port of 127.0.0.1."""

    command: list[str]
    port: int
    user: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    log: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it listens. Raises ConfigurationError when it doesn't."""
        log = self.log.open("ab") if self.log else subprocess.DEVNULL
        self.process = subprocess.Popen(
            self.command, user=self.user, stdout=log, stderr=log, cwd="/" if self.user else ROOT,
            env={**os.environ, **self.environment},
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                told = self.log.read_text()[-2_000:] if self.log else ""
                raise ConfigurationError(f"{self.command[0]} does not listen on port {self.port}\n{told}")
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill -9, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """A server that is started here and gone afterwards."""
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def redis() -> Iterator[Server]:
    """Redis as it must be set for tasks: every write on disk before its answer, nothing evicted."""
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        options = f"--port {port} --bind 127.0.0.1 --dir {folder} --save --appendonly yes --appendfsync always"
        command = [program("redis-server"), *options.split(), "--maxmemory-policy", "noeviction"]
        with running(Server(command, port)) as server:
            yield server


@contextlib.contextmanager
def postgresql() -> Iterator[Server]:
    """PostgreSQL with a database of its own; as root it runs as its package's user, since it refuses root."""
    postgres, initdb = program("postgres"), program("initdb")
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        user = None
        if os.geteuid() == 0:
            user = "postgres"
            owner = pwd.getpwnam(user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        initialise = [initdb, "-D", folder, "-U", "sidecard", "--auth=trust", "--no-sync"]
        subprocess.run(initialise, user=user, check=True, capture_output=True, cwd="/")
        listen = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
        with running(Server([postgres, "-D", folder, "-p", str(port), *listen], port, user)) as server:
            yield server


@dataclass
class Sidecar:
    """A daprd without mTLS, whose component `state` is one store. Its API takes TOKEN."""

    kind: str
    grpc_port: int
    http_port: int
    server: Server


@contextlib.contextmanager
def sidecar(kind: str, store: Server | None, folder: Path, broker: Server | None = None) -> Iterator[Sidecar]:
    """A sidecar of app-id `shop` over a store of this kind; its files, and SQLite's, are in `folder`.

    With a Redis as `broker` it has a component `pubsub` too.
    """
    metadata = {"connectionString": str(folder / "state.db"), "busyTimeout": "10s"}
    if kind == "state.postgresql" and store is not None:
        where = f"host=127.0.0.1 port={store.port} user=sidecard database=postgres sslmode=disable"
        metadata = {"connectionString": where}
    if kind == "state.redis" and store is not None:
        metadata = {"redisHost": f"127.0.0.1:{store.port}", "redisPassword": ""}
    (folder / "components").mkdir(exist_ok=True)
    _write_component(folder, "state", kind, metadata)
    if broker is not None:
        redis_host = {"redisHost": f"127.0.0.1:{broker.port}", "redisPassword": ""}
        _write_component(folder, "pubsub", "pubsub.redis", redis_host)
    http, grpc, internal, metrics = free_ports(4)
    options = f"--app-id shop --resources-path {folder}/components --dapr-http-port {http} --dapr-grpc-port {grpc}"
    options += f" --dapr-internal-grpc-port {internal} --metrics-port {metrics} --log-level warn"
    options += " --dapr-listen-addresses 127.0.0.1 --dapr-internal-grpc-listen-address 127.0.0.1"
    options += " --metrics-listen-address 127.0.0.1"
    command = [str(ROOT / "runtime/bin/daprd"), *options.split()]
    environment = {"DAPR_API_TOKEN": TOKEN, "DAPR_HOST_IP": "127.0.0.1"}
    with running(Server(command, grpc, environment=environment, log=folder / "daprd.log")) as server:
        started = Sidecar(kind, grpc, http, server)
        wait_ready(started)
        yield started


def _write_component(folder: Path, name: str, kind: str, metadata: dict[str, str]) -> None:
    component = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": name},
        "spec": {
            "type": kind,
            "version": "v2" if kind == "state.postgresql" else "v1",
            "metadata": [{"name": key, "value": value} for key, value in metadata.items()],
        },
    }
    (folder / "components" / f"{name}.yaml").write_text(yaml.safe_dump(component))


def wait_ready(started: Sidecar) -> None:
    """Return once a sidecar serves its components. Raises ConfigurationError."""
    deadline = time.monotonic() + START_SECONDS
    url = f"http://127.0.0.1:{started.http_port}/v1.0/healthz/outbound"
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, headers={"dapr-api-token": TOKEN}).is_success:
                return
        if time.monotonic() > deadline:
            raise ConfigurationError(f"daprd over {started.kind} is not ready: {started.server.log}")
        time.sleep(0.05)
