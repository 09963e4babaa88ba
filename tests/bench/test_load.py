"""The load tool against a small server."""

import asyncio
import json

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from bench.load import Order, Wrong, run


@pytest.fixture
async def server(listen):
    """Answers finished tasks, or to "stream" three events; keeps messages' ids and how many came at once."""
    seen = {"ids": [], "now": 0, "most": 0}

    async def answer(request):
        message = json.loads(await request.body())["params"]["message"]
        seen["ids"].append(message["messageId"])
        seen["now"] += 1
        seen["most"] = max(seen["most"], seen["now"])
        await asyncio.sleep(0)
        seen["now"] -= 1
        if message["parts"][0]["text"] == "fail":
            return JSONResponse({"error": {"code": -32603}})
        if message["parts"][0]["text"] == "stream":
            events = (f"data: chunk {n} {'TASK_STATE_COMPLETED' * (n == 2)}\r\n\r\n" for n in range(3))
            return StreamingResponse(events, media_type="text/event-stream")
        return JSONResponse({"result": {"task": {"status": {"state": "TASK_STATE_COMPLETED"}}}})

    seen["port"] = await listen(Starlette(routes=[Route("/a2a", answer, methods=["POST"])]))
    return seen


@pytest.fixture
async def sidecar():
    """The port of a sidecar that can't reach the app."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"errorCode": "ERR_DIRECT_INVOKE"}'
        writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_each_message_has_an_id_of_its_own(server):
    """Or deduplication would be measured."""
    seen = await run(Order(port=server["port"], callers=4, count=40, warm_up=3))
    assert seen.done == 40
    assert len(set(server["ids"])) == len(server["ids"]) == 43
    assert seen.per_second > 0
    assert seen.p50_ms > 0


async def test_callers_work_at_once(server):
    """Each has a connection of its own, and one request at a time."""
    await run(Order(port=server["port"], callers=4, count=200, warm_up=0))
    assert 1 < server["most"] <= 4


async def test_an_answer_of_daprd_itself_is_complete_too(sidecar):
    """It writes the names of its headers in capitals; waiting for more would be waiting for ever."""
    with pytest.raises(Wrong, match="ERR_DIRECT_INVOKE"):
        await asyncio.wait_for(run(Order(port=sidecar)), 10)


async def test_events_of_a_stream_are_counted(server):
    """As is the time to the first."""
    seen = await run(Order(port=server["port"], method="SendStreamingMessage", text="stream", chunks=3, count=5))
    assert seen.events == 3
    assert 0 < seen.first_p50_ms <= seen.p50_ms


@pytest.mark.parametrize("wrong", [{"text": "fail"}, {"text": "stream", "chunks": 4}])
async def test_an_answer_that_is_not_as_expected_ends_the_run(server, wrong):
    """An engine that fails fast, or loses chunks, must not win."""
    with pytest.raises(Wrong, match="unexpected answer"):
        await run(Order(port=server["port"], count=1, **wrong))
