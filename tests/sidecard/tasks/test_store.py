"""The state store behind the sidecar: which ones are trusted, and in what form they are asked."""

from types import SimpleNamespace

import grpc
import grpc.aio
import pytest
from dapr.proto.common.v1 import common_pb2

from sidecard.errors import ConfigurationError, StoreUnavailable, TaskConflict
from sidecard.tasks.store import HERE, KINDS, REFUSALS, SHORT, DaprStateStore, prove
from sidecard.testing import MemoryStore

FIRST = common_pb2.StateOptions.CONCURRENCY_FIRST_WRITE
LAST = common_pb2.StateOptions.CONCURRENCY_LAST_WRITE


class Sidecar:
    """What the store sends to its sidecar, and a sidecar with one component."""

    def __init__(self, kind="state.postgresql", name="state"):
        self.kind, self.name = kind, name
        self.requests = []
        self.stored = {}
        self.asked = []
        self.most_bytes = 1_000

    async def GetMetadata(self, request, **_):  # noqa: N802 -- Dapr's name
        return SimpleNamespace(registered_components=[SimpleNamespace(name=self.name, type=self.kind)])

    async def ExecuteStateTransaction(self, request, **_):  # noqa: N802
        self.requests.append(request)

    SaveState = DeleteBulkState = ExecuteStateTransaction

    async def GetBulkState(self, request, **_):  # noqa: N802
        self.asked.append(list(request.keys))
        if sum(len(self.stored.get(key, b"")) for key in request.keys) > self.most_bytes:
            raise grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), grpc.aio.Metadata())
        items = [SimpleNamespace(key=key, data=self.stored.get(key, b""), error="") for key in request.keys]
        return SimpleNamespace(items=items)


class Short:
    """The short transactions that the store sends."""

    def __init__(self):
        self.written = []

    async def write(self, *written, seconds):
        self.written.append(written)

    def close(self):
        pass


LONG = b"a" * (SHORT + 1)


@pytest.fixture
async def over():
    stores = []

    def make(sidecar, http_port=1):
        store = DaprStateStore(http_port=http_port, grpc_port=1, token="t")
        store._api.stub = sidecar
        store._short = store._short and Short()
        stores.append(store)
        return store

    yield make
    for store in stores:
        await store.close()


@pytest.mark.parametrize(("kind", "shared", "atomic"), [(kind, *traits) for kind, traits in KINDS.items()])
async def test_a_known_store_is_used_as_it_can_be(over, kind, shared, atomic):
    """SQLite by one replica; PostgreSQL and Redis by many; in transactions where those decide."""
    store = over(Sidecar(kind))
    await store.recognise()
    assert (store.shared, store.atomic) == (shared, atomic)
    assert KINDS == {
        "state.sqlite": (False, True),
        "state.postgresql": (True, True),
        "state.redis": (True, False),
    }


@pytest.mark.parametrize(
    ("sidecar", "words"),
    [
        (Sidecar("state.in-memory"), "not known to keep what it has acknowledged; use one of"),
        (Sidecar("state.mongodb"), "state.mongodb"),
        (Sidecar(name="other"), "no component 'state'"),
    ],
)
async def test_any_other_store_is_refused(over, sidecar, words):
    """With what to use instead."""
    with pytest.raises(ConfigurationError, match=words):
        await over(sidecar).recognise()


@pytest.mark.parametrize("atomic", [True, False])
async def test_a_write_is_asked_for_in_the_form_that_decides(over, atomic):
    """Creates only if absent, all else plainly, keys in order so that two writers can't wait for each other; no TTL."""
    sidecar = Sidecar()
    store = over(sidecar)
    store.atomic = atomic
    await store.write([("b", LONG), ("a", b"1")], {"d": b"4", "c": b"3"}, ["f", "e"])
    assert store._short.written == []
    if atomic:
        (request,) = sidecar.requests
        operations = [(one.operationType, one.request.key) for one in request.operations]
        assert operations == [("upsert", key) for key in "abcd"] + [("delete", key) for key in "ef"]
        items = [one.request for one in request.operations if one.operationType == "upsert"]
    else:
        saved, deleted = sidecar.requests
        items = list(saved.states)
        assert [item.key for item in items] == list("abcd")
        assert [item.key for item in deleted.states] == list("ef")
    assert [(item.key, item.options.concurrency) for item in items] == [
        ("a", FIRST),
        ("b", FIRST),
        ("c", LAST),
        ("d", LAST),
    ]
    assert not any(item.metadata for item in items), "nothing of a task expires by itself"
    assert {item.options.consistency for item in items} == {common_pb2.StateOptions.CONSISTENCY_STRONG}


async def test_a_short_transaction_goes_by_http(over):
    """In the same form; what a swap needs, and what is no transaction, does not."""
    sidecar = Sidecar()
    store = over(sidecar)
    short = [("a", b"1" * SHORT)], {"b": b""}, ["c"]
    await store.write(*short)
    assert (store._short.written, sidecar.requests) == ([short], [])
    await store.write([("a", b"1" * SHORT)], {"b": b"2"})
    await store.write([], {}, swaps={"a": (b"1", "etag")})
    store.atomic = False
    await store.write(*short)
    assert store._short.written == [short]
    assert len(sidecar.requests) == 4


async def test_without_the_http_port_documents_are_stored_as_they_are(over):
    """So that others read them through their sidecar, as the registry's inventory does."""
    sidecar = Sidecar()
    store = over(sidecar, http_port=None)
    await store.write([], {"a": b'{"app_id":"flights"}'})
    (request,) = sidecar.requests
    assert [one.request.value for one in request.operations] == [b'{"app_id":"flights"}']


async def test_what_looks_packed_is_packed(over):
    """So that a value means the same whichever way it went."""
    sidecar = Sidecar()
    store = over(sidecar)
    await store.write([], {"a": b'"1"', "b": b"1", "c": LONG})
    (request,) = sidecar.requests
    sidecar.stored = {one.request.key: one.request.value for one in request.operations}
    assert sidecar.stored["b"] == b"1"
    assert await store.read(["a", "b"]) == {"a": b'"1"', "b": b"1"}


@pytest.mark.parametrize("code", [*REFUSALS, grpc.StatusCode.UNAVAILABLE])
async def test_only_a_write_that_creates_can_lose_against_another(over, code):
    """A database that starts is told in the same words as a key that is taken."""

    class Refusing(Sidecar):
        async def ExecuteStateTransaction(self, request, **_):  # noqa: N802
            raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="57P03")

    store = over(Refusing())
    with pytest.raises(TaskConflict if code in REFUSALS else StoreUnavailable, match="57P03"):
        await store.write([("a", LONG)], {"b": b"2"})
    for write in ([], {"b": LONG}, ()), ([], {"b": LONG}, ["a"]):
        with pytest.raises(StoreUnavailable, match="57P03"):
            await store.write(*write)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_read_that_was_broken_off_is_no_proof_of_absence(over, kind):
    """Dapr tells nothing of it where one query reads all keys; a key that is always there does."""
    sidecar = Sidecar(kind)
    store = over(sidecar)
    await store.recognise()
    sidecar.stored = {"a": b"1", HERE: b"here"}
    assert await store.read(["a", "b"]) == {"a": b"1"}
    sidecar.stored = {}
    if kind == "state.redis":  # it reads key by key, and says which it could not read
        assert await store.read(["a"]) == {}
    else:
        with pytest.raises(StoreUnavailable, match="broke off"):
            await store.read(["a"])


async def test_what_does_not_fit_into_one_answer_is_read_in_halves(over):
    """However it is spread over the keys; a value that fits into none is told, and costs no endless tries."""
    sidecar = Sidecar()
    store = over(sidecar)
    sidecar.stored = {"a": b"a" * 600, "b": b"b" * 600, "d": b"d" * 600, "e": b"e"}
    assert await store.read(list("abcde")) == sidecar.stored
    assert sidecar.asked == [list("abcde"), list("ab"), ["a"], ["b"], list("cde")]
    sidecar.stored["e"] = b"e" * 1_001
    sidecar.asked.clear()
    with pytest.raises(StoreUnavailable, match="RESOURCE_EXHAUSTED"):
        await store.read(list("abcde"))
    assert len(sidecar.asked) < 10


class Undecided(MemoryStore):
    """Tells all racing writers that they won; or one that did not; or none."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.asked = 0

    async def write(self, creates, upserts, deletes=()):
        self.asked += 1
        if self.how == "all win" or (self.how == "all large ones win" and len(creates[0][1]) > SHORT):
            self.data.update(creates)
        elif self.how == "all large ones win":
            await super().write(creates, upserts, deletes)
        elif self.how == "another wins":
            self.data.setdefault(*creates[0])
            if self.asked != 2:
                raise TaskConflict("taken")
        else:
            raise TaskConflict("taken")


@pytest.mark.parametrize("how", ["all win", "all large ones win", "another wins", "nobody wins"])
async def test_a_store_that_does_not_decide_is_refused(how):
    """Of writers that race for one key exactly one must win and be there; the message says what to use instead."""
    with pytest.raises(ConfigurationError, match=r"Use state\.postgresql"):
        await prove(Undecided(how), "state", "probe")
    store = MemoryStore()
    await prove(store, "state", "probe")
    assert store.data == {}
