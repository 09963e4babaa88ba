"""Every event bears its place in the log, and a stream that was cut goes on behind it."""

import json

import grpc
import pytest
from a2a.types import SubscribeToTaskRequest, TaskState, a2a_pb2_grpc
from google.protobuf.json_format import MessageToDict

from sidecard.callers import KEY_HEADER
from sidecard.extension import URI
from sidecard.tasks.events import read_place
from sidecard.testing import MemoryStore, key_of, served, started
from tests.sidecard.tasks.shop import Shop, send, settled

S = TaskState
CALLERS = {"ada": {"api_key": True, "grants": {"shop": ["talk"]}}}
ASK = {"message": {"messageId": "m1", "role": "ROLE_USER", "parts": [{"data": {"what": "x", "count": 50}}]}}


def place(event):
    return MessageToDict(event.metadata)[URI]["event"]


@pytest.mark.parametrize("seen", [1, 2, 25, 51, 52])
async def test_a_stream_goes_on_behind_the_event_that_was_seen_last(seen, monkeypatch):
    """Wherever it was cut, also when the task has ended since: nothing is missed, nothing comes twice."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "talk", data={"what": "x", "count": 50})
        async with engine.borrow(task_id) as live:
            everything = [event async for event in live.follow(after=(0, 0))]
        await settled(engine, task_id)
        places = [read_place(place(event)) for event in everything]
        assert places == sorted(set(places))
        assert len(everything) == 54, "submitted, working, fifty chunks, the result, completed"
        async with engine.borrow(task_id) as live:
            rest = [event async for event in live.follow(after=places[seen - 1])]
        assert rest == everything[seen:]


async def test_a_stream_begins_with_the_task_and_the_place_it_shows():
    """What follows that place is what the task does not show yet."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "talk", data={"what": "x", "count": 20})
        async with engine.borrow(task_id) as live:
            first, *rest = [event async for event in live.follow()]
        assert all(read_place(place(event)) > read_place(place(first)) for event in rest)
        async with engine.borrow(task_id) as live:
            assert [event async for event in live.follow(after=read_place(place(first)))] == rest


@pytest.mark.parametrize("over", ["JSON-RPC", "HTTP+JSON"])
async def test_server_sent_events_have_ids_and_last_event_id_is_heeded(over):
    """On JSON-RPC and HTTP+JSON alike, as browsers do it; an id that is none of ours is refused."""
    shop = Shop()
    async with served(shop.agent, MemoryStore(), CALLERS) as desk, desk.http("ada") as http:
        sent = await http.post("/a2a", json=_rpc("SendStreamingMessage", ASK))
        events = _events(sent.text)
        task_id = events[0][1]["result"]["task"]["id"]
        ids = [number for number, _ in events]
        assert all(ids)
        assert len(set(ids)) == len(ids)

        async def subscribe(last):
            headers = {"Last-Event-ID": last}
            if over == "HTTP+JSON":
                return await http.get(f"/rest/tasks/{task_id}:subscribe", headers=headers)
            return await http.post("/a2a", json=_rpc("SubscribeToTask", {"id": task_id}), headers=headers)

        for cut in (0, len(ids) // 2, len(ids) - 2):
            assert [number for number, _ in _events((await subscribe(ids[cut])).text)] == ids[cut + 1 :]
        refused = await subscribe("yesterday")
        assert "Last-Event-ID" in refused.json()["error"]["message"]


async def test_grpc_takes_the_last_event_as_metadata():
    """The same, where there are no headers."""
    shop = Shop()
    async with served(shop.agent, MemoryStore(), CALLERS) as desk, desk.http("ada") as http:
        events = _events((await http.post("/a2a", json=_rpc("SendStreamingMessage", ASK))).text)
        task_id = events[0][1]["result"]["task"]["id"]
        ids = [number for number, _ in events]
        async with grpc.aio.insecure_channel(desk.grpc_target) as channel:
            stub = a2a_pb2_grpc.A2AServiceStub(channel)
            metadata = ((KEY_HEADER, key_of("ada")), ("a2a-version", "1.0"), ("last-event-id", ids[3]))
            stream = stub.SubscribeToTask(SubscribeToTaskRequest(id=task_id), metadata=metadata)
            got = [place(getattr(event, event.WhichOneof("payload"))) async for event in stream]
    assert got == ids[4:]


def _rpc(method, params):
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def _events(text):
    """(id, data) of each server-sent event."""
    found = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append((fields.get("id", ""), json.loads(fields["data"])))
    return found
