"""Real servers on this machine, gone afterwards: PostgreSQL, Redis, and a sidecar over a state store."""

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import yaml

from sidecard.errors import ConfigurationError
from sidecard.tasks.store import DaprStateStore

ROOT = Path(__file__).parents[1]
TOKEN = "only for tests"  # noqa: S105 -- of a sidecar that lives for a test
PACKAGES = {"redis-server": "redis-server", "postgres": "postgresql", "initdb": "postgresql"}
START_SECONDS = 30.0
PORTS = range(15_000, 32_768)
"""Below those that Linux gives to outgoing connections."""
_untried = random.SystemRandom().sample(PORTS, len(PORTS))


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
    """Ports that nobody listens on now, and that no outgoing connection will take before they are used.

    Each is given once in the life of this process: whoever was given one may start to listen much later.
    """
    found: list[int] = []
    while len(found) < count:
        port = _untried.pop()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


@dataclass
class Server:
    """A process that listens on a port, of 127.0.0.1 unless `host` says otherwise."""

    command: list[str]
    port: int
    folder: Path | str = ROOT
    environment: dict[str, str] = field(default_factory=dict)
    log: Path | None = None
    host: str = "127.0.0.1"
    process: psutil.Process | None = None

    def start(self) -> None:
        """Start it, and return when it listens. Raises ConfigurationError when it doesn't."""
        self.process = self._spawn()
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
                return
            if self.dead or time.monotonic() > deadline:
                self.kill()
                raise ConfigurationError(f"{self.command[0]} does not listen on port {self.port}\n{self.told}")
            time.sleep(0.02)

    def _spawn(self) -> psutil.Process:
        log = self.log.open("ab") if self.log else subprocess.DEVNULL
        try:
            return psutil.Popen(
                self.command, stdout=log, stderr=log, cwd=self.folder, env={**os.environ, **self.environment}
            )  # fmt: skip
        finally:
            if not isinstance(log, int):
                log.close()

    @property
    def told(self) -> str:
        """The end of its log."""
        return self.log.read_text()[-2_000:] if self.log else ""

    @property
    def dead(self) -> bool:
        """Whether it runs no more."""
        try:
            if self.process is not None:
                self.process.wait(0)
        except psutil.TimeoutExpired:
            return False
        return True

    def signal(self, number: int) -> None:
        """Send it a signal, unless it is gone."""
        if self.process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.process.send_signal(number)

    def wait(self) -> None:
        """Return once it has ended."""
        if self.process is not None:
            self.process.wait()

    def kill(self) -> None:
        """Kill -9, as a crash would."""
        self.signal(signal.SIGKILL)
        self.wait()


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """A server that is started here and gone afterwards."""
    server.start()
    try:
        yield server
    finally:
        server.kill()


@dataclass(frozen=True)
class Place:
    """Where a store runs: a command that its own is put behind, and an address of that place."""

    command: tuple[str, ...] = ()
    host: str = "127.0.0.1"


HERE = Place()


@contextlib.contextmanager
def redis(place: Place = HERE) -> Iterator[Server]:
    """Redis as it must be set for tasks: every write on disk before its answer, nothing evicted."""
    [port] = free_ports(1)
    everywhere = "" if place is HERE else "--protected-mode no"
    listen = "127.0.0.1" if place is HERE else "*"
    with tempfile.TemporaryDirectory() as folder:
        options = f"--bind {listen} --port {port} --dir {folder} {everywhere} --appendonly yes --appendfsync always"
        command = [*place.command, program("redis-server"), *options.split(), "--maxmemory-policy", "noeviction"]
        with running(Server(command, port, host=place.host)) as server:
            yield server


@contextlib.contextmanager
def postgresql(place: Place = HERE) -> Iterator[Server]:
    """PostgreSQL with a database of its own; as root it runs as its package's user, since it refuses root."""
    postgres, initdb = program("postgres"), program("initdb")
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        user, become = None, []
        if os.geteuid() == 0:
            user = "postgres"
            owner = pwd.getpwnam(user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            become = ["setpriv", f"--reuid={user}", f"--regid={owner.pw_gid}", "--init-groups"]
        initialise = [initdb, "-D", folder, "-U", "sidecard", "--auth=trust", "--no-sync"]
        subprocess.run(initialise, user=user, check=True, capture_output=True, cwd="/")
        listen = "127.0.0.1"
        if place is not HERE:
            listen = "*"
            with (Path(folder) / "pg_hba.conf").open("a") as access:
                access.write("host all all 10.0.0.0/8 trust\n")
        settings = ["-c", f"listen_addresses={listen}", "-c", f"unix_socket_directories={folder}"]
        command = [*place.command, *become, postgres, "-D", folder, "-p", str(port), *settings]
        with running(Server(command, port, folder="/", host=place.host)) as server:
            yield server


@dataclass
class Sidecar:
    """A daprd whose component `state` is one store. Its API takes TOKEN."""

    kind: str
    grpc_port: int
    http_port: int
    internal_port: int
    server: Server

    def store(self) -> DaprStateStore:
        """A connection of its own to that store, as each replica has one; not yet recognised."""
        return DaprStateStore(http_port=self.http_port, grpc_port=self.grpc_port, token=TOKEN)


@contextlib.contextmanager
def sidecar(
    kind: str,
    store: Server | None,
    folder: Path,
    *,
    host: str = "127.0.0.1",
    broker: Server | None = None,
    app_id: str = "shop",
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    daprd: Path = ROOT / "runtime/bin/daprd",
) -> Iterator[Sidecar]:
    """A sidecar over a store of this kind, which it reaches at `host`; its files, and SQLite's, are in `folder`.

    With a Redis as `broker` it has a component `pubsub` too. Without further `options` of daprd's, and variables of
    its environment, it has no mTLS.
    """
    metadata = {"connectionString": str(folder / "state.db"), "busyTimeout": "10s"}
    if kind == "state.postgresql" and store is not None:
        where = f"host={host} port={store.port} user=sidecard database=postgres sslmode=disable"
        metadata = {"connectionString": where}
    if kind == "state.redis" and store is not None:
        metadata = {"redisHost": f"{host}:{store.port}", "redisPassword": ""}
    (folder / "components").mkdir(exist_ok=True)
    _write_component(folder, "state", kind, metadata)
    if broker is not None:
        redis_host = {"redisHost": f"127.0.0.1:{broker.port}", "redisPassword": ""}
        _write_component(folder, "pubsub", "pubsub.redis", redis_host)
    http, grpc, internal, metrics = free_ports(4)
    ports = f"--dapr-http-port {http} --dapr-grpc-port {grpc} --dapr-internal-grpc-port {internal}"
    ports += f" --metrics-port {metrics} --log-level warn --dapr-listen-addresses 127.0.0.1"
    ports += " --dapr-internal-grpc-listen-address 127.0.0.1 --metrics-listen-address 127.0.0.1"
    known = ["--app-id", app_id, "--resources-path", str(folder / "components"), *ports.split()]
    command = [str(daprd), *known, *options]
    variables = {"DAPR_API_TOKEN": TOKEN, "DAPR_HOST_IP": "127.0.0.1", **(environment or {})}
    with running(Server(command, grpc, environment=variables, log=folder / f"{app_id}.log")) as server:
        started = Sidecar(kind, grpc, http, internal, server)
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
        if started.server.dead or time.monotonic() > deadline:
            raise ConfigurationError(f"daprd over {started.kind} is not ready:\n{started.server.told}")
        time.sleep(0.05)
