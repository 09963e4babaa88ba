"""One run: shoppers, a fault again and again, and what became of every wish."""

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from chaos.cluster import Cluster
from chaos.faults import FAULTS, Fault
from chaos.history import History
from chaos.outcome import Outcome, judge
from chaos.receiver import Receiver, receiving
from chaos.shoppers import Shoppers, Wish

SKILLS = ("look", "buy", "order", "walk", "ask", "talk")
AT_ONCE = 20
PATIENCE_SECONDS = 60.0
"""How long after the last fault a task may take to end before it counts as stuck."""
MISBEHAVES = 0.2
"""Share of the requests in which a webhook receiver that is the fault itself does wrong."""
RACES, WEBHOOKS = "cancel against end and answer", "webhook receiver fails"
MISSED, DISORDERED = "events that a webhook missed", "webhooks told out of order"
UNHARMED = "faults that did nothing"


def wish_of(skill: str) -> Wish:
    """A wish of usual size."""
    return Wish(skill, count=30 if skill == "talk" else 3)


def wishes_of(count: int, fault: str, chance: random.Random) -> list[Wish]:
    """What is wanted: all skills in turn; in races those that last, cancelled at any moment, or not."""
    if fault != RACES:
        return [wish_of(SKILLS[n % len(SKILLS)]) for n in range(count)]
    wanted = [wish_of(chance.choice(("ask", "walk", "buy", "talk", "rest"))) for _ in range(count)]
    for wish in wanted:
        wish.cancel_after = chance.uniform(0, 0.5)
    return wanted


async def run(
    cluster: Cluster, name: str, wishes: int, seed: int, *, rest: tuple[float, float] | None = None
) -> Outcome:
    """Have that many wishes fulfilled, `AT_ONCE` at a time, under a fault of FAULTS.

    Between two faults is a `rest` of between so many seconds, its usual one unless given.
    """
    fault, chance = FAULTS[name], random.Random(seed)
    outcome = Outcome(name, cluster.kind, seed)
    began = time.monotonic()
    wanted = wishes_of(wishes, name, chance)
    shoppers = Shoppers(cluster.urls, seed)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(shoppers.close)
        receiver = None
        if name == WEBHOOKS:
            receiver = await stack.enter_async_context(receiving(cluster.webhook_port, MISBEHAVES, chance))
            for wish in wanted:
                wish.webhook = f"{cluster.webhooks}/{wish.message_id}"
        struck = replace(fault, rest=rest) if rest else fault
        moments = await _shop(cluster, struck, shoppers, wanted, chance)
        outcome.faults = len(moments)
        logs = await judge(cluster, outcome, wanted)
        if receiver is not None:
            await judge_webhooks(outcome, receiver, {f"/{w.message_id}": logs[w.task_id] for w in wanted if w.task_id})
    outcome.clients(shoppers, may_fail=fault.may_fail)
    if name == "disk full":
        outcome.count(UNHARMED, cluster.unharmed)
    outcome.recovered(_recoveries(wanted, moments))
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


async def _shop(
    cluster: Cluster,
    fault: Fault,
    shoppers: Shoppers,
    wanted: Sequence[Wish],
    chance: random.Random,
) -> list[float]:
    """Fulfil all wishes under the fault; returns when it struck."""
    moments: list[float] = []
    places = asyncio.Semaphore(AT_ONCE)
    over = asyncio.Event()

    async def shop(wish: Wish) -> None:
        async with places:
            await shoppers.fulfil(wish)

    async def disturb() -> None:
        pause = min(0.1, *fault.rest)  # the first fault comes before anybody can be done
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), pause)
                return
            pause = chance.uniform(*fault.rest)
            moments.append(time.monotonic())
            await fault.do(cluster, chance)

    disturbing = asyncio.create_task(disturb())
    shopping = [asyncio.create_task(shop(wish)) for wish in wanted]
    _, late = await asyncio.wait(shopping, timeout=PATIENCE_SECONDS + len(wanted) * 0.5)
    over.set()
    await disturbing  # what it broke it mends first
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in set(shopping) - late:
        task.result()
    return moments


async def judge_webhooks(outcome: Outcome, receiver: Receiver, logs: Mapping[str, History]) -> None:
    """Wait until webhooks, by path, are told of these tasks' events, and count what they weren't, or in no order."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not receiver.told(logs):  # noqa: ASYNC110 -- others' doing
                await asyncio.sleep(0.1)
    outcome.count(MISSED, sum(receiver.missed(path, log) for path, log in logs.items()))
    outcome.count(DISORDERED, sum(receiver.disordered(path) for path in logs))


def _recoveries(wanted: Sequence[Wish], moments: Sequence[float]) -> list[float]:
    """For each moment, how long until all had ended that was acknowledged before."""
    recoveries = []
    for moment in moments:
        ends = [wish.ended_at - moment for wish in wanted if 0 < wish.acknowledged_at < moment < wish.ended_at]
        if ends:
            recoveries.append(max(ends))
    return recoveries
