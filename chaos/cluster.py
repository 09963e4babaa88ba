"""Replicas of the shop over one real store, each with a sidecar of its own."""

import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from chaos import servers
from sidecard.tasks.entry import Entry, log_key
from sidecard.tasks.states import TERMINAL
from sidecard.tasks.store import DaprStateStore

READ = 16


@dataclass
class Replica:
    """One replica: its process, and its sidecar."""

    app: servers.Server
    sidecar: servers.Sidecar

    def start(self) -> None:
        """Start the process anew, and return when it serves."""
        self.app.start()


@dataclass
class Cluster:
    """Everything that runs, and what can be read of it afterwards."""

    kind: str
    store: servers.Server | None
    replicas: list[Replica]
    ledger: Path

    @property
    def ports(self) -> list[int]:
        """Where the replicas serve."""
        return [replica.app.port for replica in self.replicas]

    def effects(self) -> Counter[str]:
        """How often each effect was had."""
        return Counter(self.ledger.read_text().splitlines())

    async def terminals(self, task_id: str) -> int:
        """How many terminal statuses a task's log holds."""
        store = DaprStateStore(port=self.replicas[0].sidecar.grpc_port, token=servers.TOKEN)
        found, first = 0, 1
        try:
            while True:
                keys = [log_key(task_id, n) for n in range(first, first + READ)]
                stored = await store.read(keys)
                for key in keys:
                    if key not in stored:
                        return found
                    records = Entry.unpack(stored[key]).records
                    found += sum(record[0] == "status" and record[2] in TERMINAL for record in records)
                first += READ
        finally:
            await store.close()


@contextlib.contextmanager
def cluster(kind: str, count: int) -> Iterator[Cluster]:
    """That many replicas on a store of this kind, for as long as the block lasts."""
    stores = {"state.postgresql": servers.postgresql, "state.redis": servers.redis}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = stack.enter_context(stores[kind]()) if kind in stores else None
        ledger = folder / "ledger"
        ledger.touch()
        replicas = []
        for number in range(count):
            own = folder / str(number)
            own.mkdir()
            sidecar = stack.enter_context(servers.sidecar(kind, store, own))
            [port] = servers.free_ports(1)
            command = [sys.executable, "-m", "chaos.replica", str(port), str(sidecar.grpc_port), str(ledger)]
            app = servers.Server(command, port, log=own / "replica.log")
            replicas.append(Replica(stack.enter_context(servers.running(app)), sidecar))
        with contextlib.suppress(httpx.HTTPError):
            yield Cluster(kind, store, replicas, ledger)
