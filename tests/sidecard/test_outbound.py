"""Connections to the outside: only where the operator allows, and no answer is larger than it may be."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from sidecard import outbound
from sidecard.egress import DestinationRefused, Destinations
from sidecard.outbound import AnswerRefused, Outbound


class Outsider:
    """A server that answers as told, and counts who comes."""

    def __init__(self):
        self.asked = []

    def app(self):
        async def answer(request):
            self.asked.append(request.url.path)
            return getattr(self, request.path_params["what"])()

        return Starlette(routes=[Route("/{what}", answer)])

    def plain(self):
        return Response("yes")

    def away(self):
        return RedirectResponse("/plain")

    def packed(self):
        return Response(b"\x1f\x8b", headers={"content-encoding": "gzip"})

    def huge(self):
        async def chunks():
            for _ in range(40):
                yield b"x" * 1_000

        return StreamingResponse(chunks(), media_type="application/json")

    def events(self):
        async def chunks():
            for _ in range(40):
                yield b"data: " + b"x" * 1_000
                yield b"\r"
                yield b"\n\r\n"

        return StreamingResponse(chunks(), media_type="text/event-stream")

    def endless_event(self):
        async def chunks():
            for _ in range(40):
                yield b"data: " + b"x" * 1_000 + b"\n"

        return StreamingResponse(chunks(), media_type="text/event-stream")


@pytest.fixture
async def outsider(listen):
    there = Outsider()
    there.url = f"http://127.0.0.1:{await listen(there.app())}"
    return there


@pytest.fixture
async def open_to():
    made = []

    def make(setting, **more):
        made.append(Outbound(Destinations.parse(setting, "SIDECARD_FOREIGN"), **more))
        return made[-1].client()

    yield make
    for one in made:
        await one.aclose()


async def test_what_the_operator_names_is_reached(outsider, open_to):
    """Also on this machine."""
    assert (await open_to(outsider.url).get(f"{outsider.url}/plain")).text == "yes"


@pytest.mark.parametrize("allowed", ["public", "https://example.org"])
async def test_nothing_else_is(outsider, open_to, allowed):
    """Not this machine nor plain http; what is refused is never connected to."""
    with pytest.raises(DestinationRefused):
        await open_to(allowed).get(f"{outsider.url}/plain")
    assert outsider.asked == []


async def test_a_name_that_resolves_to_a_private_address_is_not_connected_to(outsider, open_to):
    """Checked at the moment of connecting, whatever the name said before (rebinding)."""

    async def resolve(_host, _port):
        return ["127.0.0.1"]

    client = open_to("public", resolve=resolve)
    port = outsider.url.rpartition(":")[2]
    with pytest.raises(DestinationRefused, match=r"127\.0\.0\.1 is not a public address"):
        await client.get(f"https://public.example.org:{port}/plain")


async def test_redirects_are_not_followed(outsider, open_to):
    """They would go where nobody looked."""
    assert (await open_to(outsider.url).get(f"{outsider.url}/away")).is_redirect
    assert outsider.asked == ["/away"]


async def test_what_is_compressed_is_not_taken(outsider, open_to):
    """It could unpack to any size."""
    with pytest.raises(AnswerRefused, match="compressed"):
        await open_to(outsider.url).get(f"{outsider.url}/packed")


@pytest.mark.parametrize("what", ["huge", "endless_event"])
async def test_an_answer_may_not_grow_without_end(outsider, open_to, monkeypatch, what):
    """Nor may one event of a stream."""
    monkeypatch.setattr(outbound, "MOST_ANSWER_BYTES", 20_000)
    with pytest.raises(AnswerRefused, match="more than is taken"):
        await open_to(outsider.url).get(f"{outsider.url}/{what}")


async def test_a_stream_of_small_events_may_be_longer(outsider, open_to, monkeypatch):
    """Within its own bound, however its chunks fall."""
    monkeypatch.setattr(outbound, "MOST_ANSWER_BYTES", 20_000)
    client = open_to(outsider.url)
    assert len((await client.get(f"{outsider.url}/events")).content) > 40_000
    monkeypatch.setattr(outbound, "MOST_STREAM_BYTES", 30_000)
    with pytest.raises(AnswerRefused):
        await client.get(f"{outsider.url}/events")


async def test_proxies_of_the_environment_are_not_used(outsider, open_to, monkeypatch):
    """They would be handed tokens, and would connect where we must not."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert (await open_to(outsider.url).get(f"{outsider.url}/plain")).status_code == httpx.codes.OK
