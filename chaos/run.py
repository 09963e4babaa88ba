"""One run: shoppers, a fault again and again, and what became of every wish."""

import asyncio
import contextlib
import random
import statistics
import time
from dataclasses import asdict, dataclass, field

from chaos.cluster import Cluster
from chaos.faults import FAULTS
from chaos.shoppers import Shoppers, Wish

SKILLS = ("look", "buy", "order", "walk", "ask", "talk")
AT_ONCE = 20
PATIENCE_SECONDS = 60.0
"""How long after the last fault a task may take to end before it counts as stuck."""


@dataclass
class Outcome:
    """What a run has shown. Recovery: from a fault to the end of every task that was acknowledged before it."""

    fault: str
    store: str
    seed: int
    runs: int = 0
    faults: int = 0
    lost: int = 0
    stuck: int = 0
    double_effects: int = 0
    second_terminals: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    recovery_p50_s: float = 0.0
    recovery_p99_s: float = 0.0

    @property
    def good(self) -> bool:
        """Whether every promise held."""
        return not (self.lost or self.stuck or self.double_effects or self.second_terminals)

    def as_dict(self) -> dict[str, object]:
        """As it is written to results.json."""
        return asdict(self)


async def run(cluster: Cluster, fault: str, wishes: int, seed: int, pause: float = 1.0) -> Outcome:
    """Have that many wishes fulfilled, `AT_ONCE` at a time, with a fault about every `pause` seconds."""
    chance = random.Random(seed)
    outcome = Outcome(fault, cluster.kind, seed)
    wanted = [
        Wish(SKILLS[n % len(SKILLS)], count=30 if SKILLS[n % len(SKILLS)] == "talk" else 3) for n in range(wishes)
    ]
    shoppers = Shoppers(cluster.ports, seed)
    moments: list[float] = []
    places = asyncio.Semaphore(AT_ONCE)

    async def shop(wish: Wish) -> None:
        async with places:
            await shoppers.fulfil(wish)

    over = asyncio.Event()

    async def disturb() -> None:
        rest = 0.1  # the first fault comes before anybody can be done
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), rest)
                return
            rest = chance.uniform(0.2, 2 * pause)
            moments.append(time.monotonic())
            await FAULTS[fault](cluster, chance)

    disturbing = asyncio.create_task(disturb())
    shopping = [asyncio.create_task(shop(wish)) for wish in wanted]
    limit = PATIENCE_SECONDS + wishes * 0.5
    _, late = await asyncio.wait(shopping, timeout=limit)
    over.set()
    await disturbing  # what it broke it mends first
    for task in late:
        task.cancel()
    await asyncio.gather(*shopping, return_exceptions=True)
    await shoppers.close()
    await _judge(cluster, outcome, wanted, moments)
    return outcome


async def _judge(cluster: Cluster, outcome: Outcome, wanted: list[Wish], moments: list[float]) -> None:
    outcome.runs, outcome.faults = len(wanted), len(moments)
    effects = cluster.effects()
    for wish in wanted:
        outcome.stuck += not wish.state
        outcome.ends[wish.state or "stuck"] = outcome.ends.get(wish.state or "stuck", 0) + 1
        if not wish.task_id:
            continue
        terminals = await cluster.terminals(wish.task_id)
        outcome.second_terminals += terminals > 1
        outcome.lost += bool(wish.state) and terminals == 0
        had = effects[f"once {wish.task_id}"]
        outcome.double_effects += had > 1
        expected = wish.skill in {"buy", "ask"} and wish.state == "TASK_STATE_COMPLETED"
        outcome.lost += expected and had == 0
    recoveries = []
    for moment in moments:
        ends = [wish.ended_at - moment for wish in wanted if 0 < wish.acknowledged_at < moment < wish.ended_at]
        if ends:
            recoveries.append(max(ends))
    if recoveries:
        outcome.recovery_p50_s = round(statistics.median(recoveries), 2)
        outcome.recovery_p99_s = round(sorted(recoveries)[int(len(recoveries) * 0.99)], 2)
