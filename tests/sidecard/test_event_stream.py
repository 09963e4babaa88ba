"""Server-sent events to one client: in order, kept alive, and over when either side is."""

import asyncio

import pytest

from sidecard import event_stream
from sidecard.event_stream import PING, EventStream, event


class Client:
    """The other side of one response: what it got, and when it leaves."""

    def __init__(self):
        self.got = []
        self.news = asyncio.Event()
        self.leaves = asyncio.Event()

    async def receive(self):
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.got.append(message)
        self.news.set()

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.got)

    async def until(self, wanted):
        while wanted not in self.body:
            self.news.clear()
            await self.news.wait()


@pytest.fixture
def client():
    return Client()


async def test_events_come_in_order_and_the_stream_ends(client):
    """As one complete response of the right type."""

    async def events():
        yield event(b"1", place="1.0")
        yield event(b"2", kind="error")

    await EventStream(client.receive, client.send).give(events())
    assert (b"content-type", b"text/event-stream; charset=utf-8") in client.got[0]["headers"]
    assert client.body == b"id: 1.0\r\ndata: 1\r\n\r\nevent: error\r\ndata: 2\r\n\r\n"
    assert not client.got[-1].get("more_body", False)


async def test_a_client_that_leaves_ends_the_events(client):
    """Nothing more is asked for, and whoever serves the stream goes on undisturbed."""
    closed = asyncio.Event()

    async def events():
        try:
            yield event(b"1")
            await asyncio.Event().wait()
        finally:
            closed.set()

    giving = asyncio.create_task(EventStream(client.receive, client.send).give(events()))
    await client.until(b"data: 1")
    client.leaves.set()
    await giving
    assert closed.is_set()
    assert not giving.cancelling()


async def test_a_server_that_stops_is_not_taken_for_a_client_that_leaves(client):
    """Its cancellation goes on."""

    async def events():
        yield event(b"1")
        await asyncio.Event().wait()

    giving = asyncio.create_task(EventStream(client.receive, client.send).give(events()))
    await client.until(b"data: 1")
    giving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving


async def test_a_silent_stream_is_kept_alive(client, monkeypatch):
    """By comments, which are no events, for as long as it is silent."""
    monkeypatch.setattr(event_stream, "PING_SECONDS", 0.01)

    async def events():
        yield event(b"1")
        await client.until(PING + PING)
        yield event(b"2")

    await EventStream(client.receive, client.send).give(events())
    assert client.body.startswith(b"data: 1\r\n\r\n" + PING)
    assert client.body.endswith(b"data: 2\r\n\r\n")


async def test_a_stream_leaves_nothing_behind(client):
    """Neither a task nor a timer that would write into an ended response."""

    async def events():
        yield event(b"1")

    before = asyncio.all_tasks()
    await EventStream(client.receive, client.send).give(events())
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
