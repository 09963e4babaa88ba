"""Task events through a real sidecar to a real broker: every one, in order per task, over a broker that goes away."""

import asyncio
import json
import subprocess

import pytest

from chaos import servers
from sidecard.tasks.cursor import Backoff
from sidecard.tasks.engine import Engine
from sidecard.testing import KEY, FakeAgents
from sidecard.topic import Topic, TopicName
from tests.sidecard.tasks.shop import Shop, answer, send, settled, until
from tests.sidecard.tasks.test_outbox import short

EVENTS = ["SUBMITTED", "WORKING", "+", "COMPLETED"]


@pytest.fixture
def broker():
    with servers.redis() as started:
        yield started


@pytest.fixture
def sidecar(broker, tmp_path):
    with servers.sidecar("state.sqlite", None, tmp_path, broker=broker) as started:
        yield started


def stream(broker):
    """The CloudEvents on the topic, in the broker's order."""
    command = ["redis-cli", "-p", str(broker.port), "--raw", "XRANGE", "tasks", "-", "+"]
    read = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in read.stdout.splitlines() if line.startswith("{") and "specversion" in line]


def of(events, task_id):
    """What a consumer sees of one task that knows what it has seen."""
    seen = {event["id"]: event for event in events if event["subject"] == task_id}
    assert [event["sequence"] for event in seen.values()] == sorted(event["sequence"] for event in seen.values())
    return [short(event["data"]) for event in seen.values()]


async def test_every_event_reaches_the_broker_though_it_goes_away(sidecar, broker):
    """As the CloudEvents that were published, and not wrapped in others."""
    shop = Shop()
    store = sidecar.store()
    topic = Topic("shop", TopicName("pubsub", "tasks"), port=sidecar.grpc_port, token=servers.TOKEN)
    await store.recognise()
    await topic.recognise()
    backoff = Backoff(first=0.05, most=0.2)
    engine = Engine(
        shop.agent,
        store,
        task_id_key=KEY,
        delegator=FakeAgents(),
        scopes_of=lambda _: shop.agent.scopes,
        topic=topic,
        backoff=backoff,
    )
    await engine.start()
    first = [await send(engine, shop, "look", f"first {n}") for n in range(20)]
    asking = await send(engine, shop, "choose", "asking")
    await settled(engine, asking)
    await asyncio.to_thread(broker.kill)
    meanwhile = [await send(engine, shop, "look", f"meanwhile {n}") for n in range(20)]
    await answer(engine, shop, asking, "red")
    await settled(engine, asking)
    assert set(meanwhile) <= engine.journal.slot.outbox.all
    await asyncio.to_thread(broker.start)
    async with asyncio.timeout(60):
        while engine.journal.slot.outbox.all:  # noqa: ASYNC110 -- another process takes it
            await asyncio.sleep(0.05)
    await until(lambda: not engine.outbox)
    events = stream(broker)
    for task_id in (*first, *meanwhile):
        assert of(events, task_id) == EVENTS
    assert of(events, asking)[-4:] == ["INPUT_REQUIRED", "WORKING", "+", "COMPLETED"]
    event = events[0]
    assert (event["type"], event["source"]) == ("a2a.task.status-update", "shop")
    assert (event["topic"], event["pubsubname"]) == ("tasks", "pubsub")
    assert "statusUpdate" in event["data"]
    await engine.stop()
    await topic.close()
    await store.close()
