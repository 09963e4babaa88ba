"""Short transactions by HTTP: what is sent, what becomes of it, and the connections that it takes."""

import asyncio
import base64
import json

import pytest

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks.transaction_api import KEPT_OPEN, TransactionApi, packed, unpacked

DONE = b"HTTP/1.1 204 No Content\r\n\r\n"


class Sidecar:
    """Answers each request with what `answer` makes of it, and counts connections; None: says nothing."""

    def __init__(self):
        self.heads, self.bodies = [], []
        self.connections = 0
        self.answer = lambda: DONE
        self.open = set()

    async def serve(self, reader, writer):
        self.connections += 1
        self.open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(line for line in head.splitlines() if line.startswith("Content-Length: "))
                self.heads.append(head)
                self.bodies.append(json.loads(await reader.readexactly(int(length.partition(": ")[2]))))
                answer = self.answer()
                if answer is None:
                    await reader.read()
                    return
                for piece in answer if isinstance(answer, list) else [answer]:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()


@pytest.fixture
async def sidecar():
    made = Sidecar()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    for writer in list(made.open):
        writer.transport.abort()


@pytest.fixture
def api(sidecar):
    made = TransactionApi(port=sidecar.port, token="t0ken", component="state")
    yield made
    made.close()


async def write(api, creates=(("a", b"1"),), upserts=None, deletes=(), seconds=5.0):
    await api.write(list(creates), upserts or {}, deletes, seconds=seconds)


async def test_a_transaction_is_asked_for_in_the_form_that_decides(sidecar, api):
    """Creates only if absent, all else plainly, in the order of keys; with the token that the API takes."""
    await write(api, [("b", b"\x00\xff"), ("a", b"1")], {"d": b"", "c": b"3"}, ["f", 'e"'])
    operations = sidecar.bodies[0]["operations"]
    assert [(one["operation"], one["request"]["key"]) for one in operations] == [
        *(("upsert", key) for key in "abcd"),
        ("delete", 'e"'),
        ("delete", "f"),
    ]
    written = [one["request"] for one in operations[:4]]
    assert [base64.b64decode(one["value"]) for one in written] == [b"1", b"\x00\xff", b"3", b""]
    assert [one["options"]["concurrency"] for one in written] == ["first-write"] * 2 + ["last-write"] * 2
    assert {one["options"]["consistency"] for one in written} == {"strong"}
    assert sidecar.heads[0].startswith("POST /v1.0/state/state/transaction HTTP/1.1\r\n")
    assert "dapr-api-token: t0ken\r\n" in sidecar.heads[0]


async def test_one_after_the_other_they_share_a_connection(sidecar, api):
    """Which is what a replica's journal does."""
    for _ in range(5):
        await write(api)
    assert sidecar.connections == 1


async def test_at_once_each_has_one_and_few_are_kept(sidecar, api):
    """So no answer waits for another's, and nothing grows."""
    for _ in range(2):
        await asyncio.gather(*(write(api) for _ in range(KEPT_OPEN + 3)))
    assert sidecar.connections == KEPT_OPEN + 3 + 3
    async with asyncio.timeout(5):
        while len(sidecar.open) > KEPT_OPEN:  # noqa: ASYNC110 -- the kernel's doing
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("status", [500, 503, 401, 413])
async def test_only_a_write_that_creates_can_lose_against_another(sidecar, api, status):
    """A database that is down is told in the same words as a key that is taken; the words are handed on."""
    body = b'{"errorCode":"ERR_STATE_TRANSACTION"}'
    sidecar.answer = lambda: b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
    with pytest.raises(TaskConflict if status == 500 else StoreUnavailable, match="ERR_STATE_TRANSACTION"):
        await write(api)
    for other in {"upserts": {"a": b"1"}}, {"deletes": ["a"]}:
        with pytest.raises(StoreUnavailable, match="ERR_STATE_TRANSACTION"):
            await write(api, [], **other)
    sidecar.answer = lambda: DONE
    await write(api)
    assert sidecar.connections == 1, "an error is an answer: the connection stays"


async def test_an_answer_may_come_in_pieces(sidecar, api):
    """However the network cuts it, with a length or in chunks."""
    answer = b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n1\r\n!\r\n0\r\n\r\n"
    sidecar.answer = lambda: [answer[i : i + 3] for i in range(0, len(answer), 3)]
    for _ in range(2):
        with pytest.raises(TaskConflict, match="words!"):
            await write(api)
    assert sidecar.connections == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 204 No Con", b"nonsense\r\n\r\n", b"HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\nhalf"],
    ids=["nothing", "half a head", "nonsense", "half a body"],
)
async def test_without_a_whole_answer_the_outcome_is_not_known(sidecar, api, answer):
    """Also of a write that creates. The next one has a connection of its own."""

    def breaking():
        for writer in list(sidecar.open):
            writer.write(answer)
            writer.close()
        return b""

    sidecar.answer = breaking
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await write(api)
    sidecar.answer = lambda: DONE
    await write(api)
    assert sidecar.connections == 2


async def test_who_never_answers_is_given_up(sidecar, api):
    """And what it says later is nobody's answer."""
    sidecar.answer = lambda: None
    with pytest.raises(StoreUnavailable, match=r"within 0\.05 s"):
        await write(api, seconds=0.05)
    sidecar.answer = lambda: DONE
    await write(api)
    assert sidecar.connections == 2


async def test_a_write_that_is_cancelled_leaves_no_answer_to_the_next(sidecar, api):
    """Its connection goes with it."""
    sidecar.answer = lambda: None
    writing = asyncio.create_task(write(api))
    async with asyncio.timeout(5):
        while not sidecar.bodies:  # noqa: ASYNC110 -- another's doing
            await asyncio.sleep(0.01)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    sidecar.answer = lambda: DONE
    await write(api)
    assert sidecar.connections == 2


async def test_a_connection_that_was_closed_meanwhile_is_not_used(sidecar, api):
    """Whether the sidecar said so, or just did it; a sidecar that is back is found again."""
    sidecar.answer = lambda: b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    await write(api)
    sidecar.answer = lambda: DONE
    await write(api)
    for writer in list(sidecar.open):
        writer.transport.abort()
    async with asyncio.timeout(5):
        while any(connection.open for connection in api._idle):  # noqa: ASYNC110 -- the kernel's doing
            await asyncio.sleep(0.01)
    await write(api)
    assert sidecar.connections == 3


async def test_a_sidecar_that_is_not_there_is_said_to_be(unused_tcp_port):
    """The outcome is known to nobody but us; the journal reads back all the same."""
    api = TransactionApi(port=unused_tcp_port, token="t", component="state")
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await write(api)
    api.close()


@pytest.mark.parametrize("value", [b"", b"1", b'"', b'"MQ=="', bytes(range(256))])
def test_what_is_packed_comes_back(value):
    """Whatever it begins with."""
    assert unpacked(packed(value)) == value
    assert packed(value) == json.dumps(base64.b64encode(value).decode()).encode()


def test_what_went_through_grpc_comes_back_as_it_is():
    """Logs are msgpack, which never begins like a JSON string."""
    assert unpacked(b"\x95abc") == b"\x95abc"
