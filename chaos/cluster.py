"""Replicas of the shop over one real store, each with a sidecar of its own."""

import contextlib
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from chaos import servers
from chaos.disk import Disk, small_disk
from chaos.mesh import Authority, sentry
from chaos.network import Link, network
from chaos.nursery import Nursed
from chaos.replica import KEY
from sidecard.callers import KEY_HEADER, TOKEN_HEADER
from sidecard.errors import ConfigurationError

HEADERS = {KEY_HEADER: KEY, TOKEN_HEADER: servers.TOKEN, "A2A-Version": "1.0"}
STORES = {"state.postgresql": servers.postgresql, "state.redis": servers.redis}


@dataclass
class Replica:
    """One replica: its process, its sidecar, where its gRPC binding is, and where it is told to die."""

    app: Nursed
    sidecar: servers.Sidecar
    grpc_port: int
    trap: Path
    link: Link | None = None

    @property
    def url(self) -> str:
        """Where it serves without a sidecar."""
        return f"http://127.0.0.1:{self.app.port}"

    def start(self) -> None:
        """Start the process anew, and return when it serves."""
        self.app.start()

    def arm(self, moment: str, number: int) -> None:
        """Let it die at a write, see trap.py."""
        partial = self.trap.with_suffix(".partial")
        partial.write_text(f"{moment} {number}")
        partial.replace(self.trap)


@dataclass
class Cluster:
    """Everything that runs.

    `urls` is where clients go: the replicas, or with an `authority` through two sidecars. `unharmed` counts faults that
    went unnoticed.
    """

    kind: str
    store: servers.Server | None
    replicas: list[Replica]
    ledger: Path
    urls: list[str]
    disk: Disk | None = None
    authority: Authority | None = None
    webhook_port: int = 0
    unharmed: int = 0
    sidecars: list[servers.Sidecar] = field(default_factory=list)

    @property
    def webhooks(self) -> str:
        """The origin that its replicas may tell webhooks at."""
        return f"http://127.0.0.1:{self.webhook_port}"

    def effects(self) -> Counter[str]:
        """How often each effect was had."""
        return Counter(self.ledger.read_text().splitlines())


@dataclass(frozen=True)
class Setting:
    """What is special about a cluster.

    `without` is a guard that is off, `checkpoint` the entries until one, `dead` the seconds until a silent replica is
    taken for dead, where that isn't the usual.
    """

    without: str = ""
    checkpoint: int = 0
    dead: float = 0.0
    partitioned: bool = False
    small_disk: bool = False
    mesh: bool = False


USUAL = Setting()


@contextlib.contextmanager
def cluster(kind: str, count: int, setting: Setting = USUAL) -> Iterator[Cluster]:
    """That many replicas on a store of this kind, for as long as the block lasts. Raises ConfigurationError."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        net = stack.enter_context(network(count)) if setting.partitioned else None
        place = net.place if net else servers.HERE
        store = stack.enter_context(STORES[kind](place)) if kind in STORES else None
        authority = stack.enter_context(sentry(folder)) if setting.mesh else None
        ledger = folder / "ledger"
        ledger.touch()
        [webhook_port] = servers.free_ports(1)
        started = Cluster(kind, store, [], ledger, [], authority=authority, webhook_port=webhook_port)
        app_id = f"shop-{secrets.token_hex(4)}" if setting.mesh else "shop"
        for number in range(count):
            own = folder / str(number)
            if setting.small_disk:
                started.disk = stack.enter_context(small_disk(own))
            else:
                own.mkdir()
            link = net.links[number] if net else None
            port, grpc_port = servers.free_ports(2)
            sidecar = stack.enter_context(
                servers.sidecar(
                    kind,
                    store,
                    own,
                    host=link.address if link else "127.0.0.1",
                    app_id=app_id,
                    options=[*authority.options, "--app-port", str(port)] if authority else [],
                    environment=authority.environment if authority else {},
                )
            )
            trap = folder / f"trap{number}"
            arguments = ["--port", str(port), "--grpc", str(grpc_port)]
            arguments += ["--dapr-http", str(sidecar.http_port), "--dapr-grpc", str(sidecar.grpc_port)]
            arguments += ["--webhooks", started.webhooks, "--ledger", str(ledger), "--trap", str(trap)]
            arguments += ["--without", setting.without] if setting.without else []
            arguments += ["--checkpoint", str(setting.checkpoint)] if setting.checkpoint else []
            arguments += ["--dead", str(setting.dead)] if setting.dead else []
            app = Nursed(arguments, port, log=folder / f"replica{number}.log")
            stack.enter_context(servers.running(app))
            replica = Replica(app, sidecar, grpc_port, trap, link)
            started.replicas.append(replica)
            started.urls.append(replica.url)
            started.sidecars.append(sidecar)
        if authority:
            desk = stack.enter_context(_desk(folder, authority))
            started.sidecars.append(desk)
            started.urls = [f"http://127.0.0.1:{desk.http_port}/v1.0/invoke/{app_id}/method"]
            _wait_reached(started.urls[0])
        yield started


@contextlib.contextmanager
def _desk(folder: Path, authority: Authority) -> Iterator[servers.Sidecar]:
    """The clients' own sidecar."""
    own = folder / "desk"
    own.mkdir()
    app_id = f"desk-{secrets.token_hex(4)}"
    with servers.sidecar(
        "state.sqlite", None, own, app_id=app_id, options=authority.options, environment=authority.environment
    ) as desk:
        yield desk


def _wait_reached(url: str) -> None:
    deadline = time.monotonic() + servers.START_SECONDS
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.post(f"{url}/a2a", headers=HEADERS, json={}).is_success:
                return
        if time.monotonic() > deadline:
            raise ConfigurationError(f"no replica is reached through {url}")
        time.sleep(0.1)
