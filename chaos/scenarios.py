"""Faults that strike at one moment, and not by chance: at a write, at a lock, at an awakening."""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Coroutine, Sequence

import grpc.aio
import httpx
from a2a.types import SendMessageRequest
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from google.protobuf.json_format import ParseDict

from chaos.cluster import HEADERS, Cluster, Replica
from chaos.outcome import Outcome, judge
from chaos.receiver import receiving
from chaos.run import PATIENCE_SECONDS, SKILLS, judge_webhooks, wish_of
from chaos.shoppers import Shoppers, Wish, first_message
from chaos.trap import MOMENTS
from sidecard.tasks.replicas import FREE
from sidecard.tasks.slot_entry import beat_key

POINT_SKILLS = (*SKILLS, "cancel", "told")
"""What passes the write points: every skill, a task that is canceled, and one that tells a webhook."""
AFTERWARDS_SECONDS = 0.3
"""How long a replica may go on writing after its tasks have ended."""
LAST_WRITE_SECONDS = 0.2
"""How long a write that it is to die of may have been under way."""
COPIES = 100
SECOND_TASKS = "tasks beyond one per message"


async def write_points(cluster: Cluster, copies: int, seed: int, skills: Sequence[str] = POINT_SKILLS) -> Outcome:
    """Kill -9 at every write that tasks of each skill pass: before it, after it, and in the midst of it.

    At each point so many `copies` begin at once; the process is started again, and they must end well.
    """
    outcome = Outcome("kill at every write", cluster.kind, seed)
    began = time.monotonic()
    wishes: list[Wish] = []
    recoveries: list[float] = []
    moments = [moment for moment in MOMENTS if moment != "amid" or cluster.kind == "state.redis"]
    shoppers = Shoppers(cluster.urls, seed)
    async with receiving(cluster.webhook_port, 0.0, random.Random(seed)) as receiver:
        for skill in skills:
            for moment in moments:
                number, died = 0, True
                while died:
                    number += 1
                    some = [_pointed(skill, cluster) for _ in range(copies)]
                    wishes += some
                    died = await _die_at(cluster.replicas[0], (moment, number), shoppers, some, recoveries)
                    outcome.faults += died
        await shoppers.close()
        logs = await judge(cluster, outcome, wishes)
        await judge_webhooks(outcome, receiver, {f"/{w.message_id}": logs[w.task_id] for w in wishes if w.webhook})
    outcome.clients(shoppers)
    outcome.recovered(recoveries)
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _pointed(skill: str, cluster: Cluster) -> Wish:
    wish = wish_of({"cancel": "rest", "told": "talk"}.get(skill, skill))
    if skill == "cancel":
        wish.cancel_after = 0.0
    if skill == "told":
        wish.webhook = f"{cluster.webhooks}/{wish.message_id}"
    return wish


async def _die_at(
    replica: Replica, point: tuple[str, int], shoppers: Shoppers, wishes: Sequence[Wish], recoveries: list[float]
) -> bool:
    """Fulfil wishes of a replica that dies at this point and starts again; whether they got that far."""
    replica.arm(*point)
    shopping = asyncio.gather(*map(shoppers.fulfil, wishes), return_exceptions=True)
    died = 0.0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not died and not shopping.done():
                died = await _restart_if_dead(replica)
                await asyncio.sleep(0.01)
            await shopping
    died = died or await _dies_within(AFTERWARDS_SECONDS, replica)
    if not died:
        replica.arm("before", 0)  # never
        died = await _dies_within(LAST_WRITE_SECONDS, replica)
    if died:
        recoveries.append(max(wish.ended_at for wish in wishes) - died)
    return bool(died)


async def _dies_within(seconds: float, replica: Replica) -> float:
    """When it was found dead in that time, if it was; it is started again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if died := await _restart_if_dead(replica):
            return died
        await asyncio.sleep(0.01)
    return 0.0


async def _restart_if_dead(replica: Replica) -> float:
    """When it was found dead, if it was."""
    if not replica.app.dead:
        return 0.0
    died = time.monotonic()
    replica.trap.unlink(missing_ok=True)  # its start passes no write points
    await asyncio.to_thread(replica.start)
    return died


async def same_message(cluster: Cluster, messages: int, seed: int, *, until_bad: bool = False) -> Outcome:
    """Each message COPIES times at once, on all replicas and over all bindings: one task, one effect."""
    outcome = Outcome("same message at once", cluster.kind, seed)
    began = time.monotonic()
    shoppers = Shoppers(cluster.urls, seed)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(shoppers.close)
        http = await stack.enter_async_context(httpx.AsyncClient(headers=HEADERS, timeout=30))
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{replica.grpc_port}"))
            for replica in cluster.replicas
        ]
        outcome.count(SECOND_TASKS, 0)
        for number in range(messages):
            wish = wish_of(("buy", "look", "order", "talk")[number % 4])
            ids = await asyncio.gather(*(_send_copy(cluster, http, channels, wish, copy) for copy in range(COPIES)))
            outcome.faults += 1
            outcome.count(SECOND_TASKS, len(set(ids)) - 1)
            await shoppers.fulfil(wish)
            for task_id in set(ids) - {wish.task_id}:
                await shoppers.await_end(Wish(wish.skill, task_id=task_id, seen=["TASK_STATE_SUBMITTED"]))
            await judge(cluster, outcome, [wish])
            if until_bad and not outcome.good:
                break
    outcome.clients(shoppers)
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


async def _send_copy(
    cluster: Cluster, http: httpx.AsyncClient, channels: Sequence[grpc.aio.Channel], wish: Wish, copy: int
) -> str:
    """Send a wish's message on this replica and binding, again while it is refused for now; returns its task's id."""
    method, params = first_message(wish)
    binding, at = copy % 3, copy // 3 % len(channels)
    url = cluster.replicas[at].url
    while True:
        with contextlib.suppress(httpx.HTTPError, grpc.aio.AioRpcError, KeyError):
            if binding == 0:
                request = ParseDict(params, SendMessageRequest())
                stub = A2AServiceStub(channels[at])  # type: ignore[no-untyped-call]
                metadata = [(name.lower(), value) for name, value in HEADERS.items()]
                return str((await stub.SendMessage(request, metadata=metadata)).task.id)
            if binding == 1:
                body = {"jsonrpc": "2.0", "id": copy, "method": method, "params": params}
                return str((await http.post(f"{url}/a2a", json=body)).json()["result"]["task"]["id"])
            return str((await http.post(f"{url}/rest/message:send", json=params)).json()["task"]["id"])
        await asyncio.sleep(0.1)


async def freeze_the_owner(cluster: Cluster, wishes: int, seed: int, seconds: float) -> Outcome:
    """SIGSTOP of the replica that runs all these tasks, for so many seconds: others end them, and it finds that out."""
    outcome = Outcome(f"freeze the owner for {seconds:.0f} s", cluster.kind, seed)
    began = time.monotonic()
    owner, other = cluster.replicas[:2]
    at_owner, at_other = Shoppers([owner.url], seed), Shoppers([other.url], seed)
    wanted = [Wish("rest", count=20) for _ in range(wishes)]
    await asyncio.gather(*map(at_owner.send, wanted))
    owner.app.signal(signal.SIGSTOP)
    outcome.faults = 1
    frozen = time.monotonic()
    await _within(PATIENCE_SECONDS, *map(at_other.await_end, wanted))
    ended = time.monotonic()
    await asyncio.sleep(max(0.0, frozen + seconds - ended))
    owner.app.signal(signal.SIGCONT)
    again = [Wish("buy") for _ in range(wishes)]
    await _within(PATIENCE_SECONDS, *map(at_owner.fulfil, again))
    await judge(cluster, outcome, [*wanted, *again])
    for shoppers in (at_owner, at_other):
        outcome.clients(shoppers)
        await shoppers.close()
    outcome.recovered([ended - frozen])
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


async def thaw_in_a_taken_place(cluster: Cluster, wishes: int, seed: int, patience: float) -> Outcome:
    """A frozen replica's place is emptied, and taken by another; it thaws and works on; then the other is killed.

    Nothing that it still writes there may make the other's tasks forgotten. They have `patience` seconds to end.
    """
    outcome = Outcome("thaw in a place that was taken", cluster.kind, seed)
    began = time.monotonic()
    frozen, other = cluster.replicas[:2]
    at_frozen, at_other = Shoppers([frozen.url], seed), Shoppers([other.url], seed)
    frozen.app.signal(signal.SIGSTOP)
    outcome.faults = 1
    await _until_free(other, 0)
    other.app.kill()
    await asyncio.to_thread(other.start)  # in place 0
    wanted = [Wish("rest", count=40) for _ in range(wishes)]
    await asyncio.gather(*map(at_other.send, wanted))
    frozen.app.signal(signal.SIGCONT)
    again = [Wish("buy") for _ in range(wishes)]
    await _within(patience, *map(at_frozen.fulfil, again))
    other.app.kill()
    killed = time.monotonic()
    outcome.faults += 1
    await asyncio.to_thread(other.start)
    await _within(patience, *map(at_other.await_end, wanted))
    outcome.recovered([wish.ended_at - killed for wish in wanted if wish.ended_at > killed])
    await judge(cluster, outcome, [*wanted, *again])
    for shoppers in (at_frozen, at_other):
        outcome.clients(shoppers)
        await shoppers.close()
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


async def _until_free(replica: Replica, number: int) -> None:
    """Return once nobody is in this place any more, as that replica's sidecar says."""
    store = replica.sidecar.store()
    key = beat_key(number)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await store.read([key])).get(key) != FREE:  # noqa: ASYNC110 -- another's doing
            await asyncio.sleep(0.05)
    await store.close()


async def _within(seconds: float, *work: Coroutine[object, object, None]) -> None:
    """Do all of it, as far as it is done in that time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*work)
