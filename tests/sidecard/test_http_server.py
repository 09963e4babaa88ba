"""How the apps listen: what is refused before any app sees it."""

import pytest
from starlette.responses import PlainTextResponse

from sidecard.http_server import MAX_HEAD_BYTES, http_server
from sidecard.settings import Settings
from tests.listening import exchange, serving


@pytest.fixture
async def port():
    async with serving(http_server(PlainTextResponse("in"), Settings(app_id="shop"))) as port:
        yield port


async def test_requests_come_in(port):
    """One after the other on a connection; what bounds the head does not bound bodies."""
    body = b"x" * (2 * MAX_HEAD_BYTES)
    first = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    last = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    assert (await exchange(port, first, last)).count(b"200 OK") == 2


@pytest.mark.parametrize("piece", [b"y" * 1_000, b"y" * 1_000 + b"\r\nx: "], ids=["one header", "many headers"])
async def test_headers_without_end_are_cut(port, piece):
    """An answer in plain words and a closed connection, instead of memory for whatever anybody sends."""
    answer = await exchange(port, b"GET / HTTP/1.1\r\nhost: x\r\nx: ", *[piece] * 2_000)
    assert b"200 OK" not in answer
    assert answer == b"" or b"larger than 65536 bytes" in answer
