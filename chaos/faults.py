"""What is done to a cluster while shoppers use it: each fault is repeated until they have what they want."""

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from chaos import servers
from chaos.cluster import HEADERS, Cluster
from chaos.mesh import certificate
from chaos.shoppers import Wish, first_message

REFUSED_SECONDS = 30.0
"""What is not stored within 20 s is refused, and what comes when the store has not answered for 5 s."""


@dataclass(frozen=True)
class Fault:
    """What is done, again and again, with a rest of between so many seconds; whether clients may fail meanwhile."""

    do: Callable[[Cluster, random.Random], Awaitable[None]]
    rest: tuple[float, float] = (0.2, 2.0)
    may_fail: bool = True


async def kill_a_replica(cluster: Cluster, chance: random.Random) -> None:
    """Kill -9 of a replica, which starts again after a while."""
    victim = chance.choice(cluster.replicas)
    victim.app.kill()
    await asyncio.sleep(chance.uniform(0, 2))
    await asyncio.to_thread(victim.start)


async def kill_a_sidecar(cluster: Cluster, chance: random.Random) -> None:
    """Kill -9 of a daprd, an agent's or (in a mesh) its clients', which starts again."""
    victim = chance.choice(cluster.sidecars)
    victim.server.kill()
    await asyncio.sleep(chance.uniform(0, 1))
    await asyncio.to_thread(victim.server.start)
    await asyncio.to_thread(servers.wait_ready, victim)


async def kill_the_store(cluster: Cluster, chance: random.Random) -> None:
    """Kill -9 of the state store, back after up to five seconds."""
    if cluster.store is not None:
        cluster.store.kill()
        await asyncio.sleep(chance.uniform(0, 5))
        await asyncio.to_thread(cluster.store.start)


async def freeze_a_replica(cluster: Cluster, chance: random.Random) -> None:
    """SIGSTOP of a replica for longer than the others believe that it lives, then SIGCONT."""
    victim = chance.choice(cluster.replicas)
    victim.app.signal(signal.SIGSTOP)
    await asyncio.sleep(chance.uniform(4, 8))
    victim.app.signal(signal.SIGCONT)


async def roll(cluster: Cluster, chance: random.Random) -> None:
    """SIGTERM of one replica after the other, each started again."""
    for replica in cluster.replicas:
        replica.app.signal(signal.SIGTERM)
        await asyncio.to_thread(replica.app.wait)
        await asyncio.to_thread(replica.start)
        await asyncio.sleep(chance.uniform(0, 1))


async def cut_the_network(cluster: Cluster, chance: random.Random) -> None:
    """A partition between the store and one of the replicas, or all, for up to six seconds; healed afterwards.

    Either both sides see it, or what is sent to the store still arrives and no answer comes back.
    """
    links = [replica.link for replica in cluster.replicas if replica.link is not None]
    victims = links if chance.random() < 0.5 else [chance.choice(links)]  # noqa: PLR2004 -- a coin
    silently = chance.random() < 0.5  # noqa: PLR2004 -- a coin
    for link in victims:
        await asyncio.to_thread(link.cut, silently=silently)
    await asyncio.sleep(chance.uniform(1, 6))
    for link in victims:
        await asyncio.to_thread(link.heal)


async def fill_the_disk(cluster: Cluster, chance: random.Random) -> None:
    """No byte is left on the disk of SQLite until the replica has said that it can't take work, and a little longer."""
    if cluster.disk is not None:
        await asyncio.to_thread(cluster.disk.fill)
        try:
            async with asyncio.timeout(REFUSED_SECONDS), httpx.AsyncClient(headers=HEADERS, timeout=1.0) as http:
                while not await _is_refused(http, cluster.urls[0]):
                    pass
        except TimeoutError:
            cluster.unharmed += 1
        await asyncio.sleep(chance.uniform(0, 2))
        cluster.disk.empty()


async def _is_refused(http: httpx.AsyncClient, url: str) -> bool:
    """Whether a new task is refused for now; no answer is no refusal."""
    method, params = first_message(Wish("look"))
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    with contextlib.suppress(httpx.TimeoutException):
        return "error" in (await http.post(f"{url}/a2a", json=request)).json()
    return False


async def kill_sentry(cluster: Cluster, chance: random.Random) -> None:
    """Kill -9 of sentry, back after up to six seconds, and gone again only when each sidecar has a new certificate."""
    if cluster.authority is not None:
        ports = [sidecar.internal_port for sidecar in cluster.sidecars]
        before = [await asyncio.to_thread(certificate, port) for port in ports]
        cluster.authority.server.kill()
        await asyncio.sleep(chance.uniform(0, 6))
        await asyncio.to_thread(cluster.authority.server.start)
        async with asyncio.timeout(servers.START_SECONDS):
            for port, old in zip(ports, before, strict=True):
                while await asyncio.to_thread(certificate, port) in ("", old):  # noqa: ASYNC110 -- another's doing
                    await asyncio.sleep(0.5)


async def nothing(cluster: Cluster, chance: random.Random) -> None:
    """Nothing is broken: what clients do to each other is enough."""


FAULTS = {
    "kill a replica": Fault(kill_a_replica),
    "kill a sidecar": Fault(kill_a_sidecar),
    "stop the store": Fault(kill_the_store, rest=(5, 20)),
    "freeze a replica": Fault(freeze_a_replica),
    "rolling restart": Fault(roll, may_fail=False),
    "partition": Fault(cut_the_network, rest=(2, 6)),
    "disk full": Fault(fill_the_disk, rest=(1, 4)),
    "kill sentry": Fault(kill_sentry, rest=(1, 5)),
    "cancel against end and answer": Fault(nothing, rest=(60, 60), may_fail=False),
    "webhook receiver fails": Fault(kill_a_replica, rest=(2, 6)),
}
"""Each by its name; what else its clients do is said in `run`."""
