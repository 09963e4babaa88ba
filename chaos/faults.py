"""What is done to a cluster while shoppers use it: each fault is repeated until they have what they want."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable

from chaos import servers
from chaos.cluster import Cluster

Fault = Callable[[Cluster, random.Random], Awaitable[None]]


async def kill_a_replica(cluster: Cluster, chance: random.Random) -> None:
    """Kill -9 of a replica, which starts again after a while."""
    victim = chance.choice(cluster.replicas)
    victim.app.kill()
    await asyncio.sleep(chance.uniform(0, 2))
    await asyncio.to_thread(victim.start)


async def kill_a_sidecar(cluster: Cluster, chance: random.Random) -> None:
    """Kill -9 of a daprd, which starts again."""
    victim = chance.choice(cluster.replicas).sidecar
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
        if replica.app.process is not None:
            await asyncio.to_thread(replica.app.process.wait)
        await asyncio.to_thread(replica.start)
        await asyncio.sleep(chance.uniform(0, 1))


FAULTS: dict[str, Fault] = {
    "kill a replica": kill_a_replica,
    "kill a sidecar": kill_a_sidecar,
    "kill the store": kill_the_store,
    "freeze a replica": freeze_a_replica,
    "rolling restart": roll,
}
