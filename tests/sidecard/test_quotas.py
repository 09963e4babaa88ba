"""How much one caller and one tenant may have; who has had it is refused, on every binding, and nobody else is."""

import asyncio

import grpc
import pytest
from a2a.types import ListTasksRequest, SendMessageRequest
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from sidecard import door as door_module
from sidecard import quotas as quotas_module
from sidecard.callers import KEY_HEADER, Caller, CallersFile
from sidecard.door import Door
from sidecard.edge import Edge
from sidecard.errors import ConfigurationError
from sidecard.extension import Sent
from sidecard.quotas import EACH_CALLER, EACH_TENANT, Quota, Quotas, QuotasFile
from sidecard.refusals import TooManyRequests
from sidecard.testing import APP_TOKEN, MemoryStore, key_of, message, served
from tests.sidecard.tasks.shop import Shop, until
from tests.sidecard.test_audit import recorded

CALLERS = {
    "ada": {"api_key": True, "sidecar": True, "tenants": ["acme", "loud"], "grants": {"shop": ["look", "slow"]}},
    "bob": {"api_key": True, "tenants": ["acme", "loud"], "grants": {"shop": ["look", "slow"]}},
    "eve": {"api_key": True, "grants": {"shop": ["look"]}},
}
LIST = {"jsonrpc": "2.0", "id": 7, "method": "ListTasks", "params": {}}


class Seconds:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(door_module, "HELD_SECONDS", 0.001)
    return Seconds()


def limits(clock=None, *, each_caller=None, each_tenant=None, callers=None, tenants=None, strangers=None):
    file = QuotasFile(
        each_caller=each_caller or Quota(),
        each_tenant=each_tenant or Quota(),
        tenants=tenants or {},
        strangers=strangers or Quota(),
    )
    return Quotas(file, callers or {}, *([clock] if clock else []))


def visit(quotas, caller="ada", tenant="", *, stream=False):
    made = quotas.enter(caller)
    try:
        made.goes_on(tenant, stream=stream)
    except BaseException:
        made.ends()
        raise
    return made


def times(quotas, most=1_000, **given):
    """How many requests in a row are let in."""
    for count in range(most):
        try:
            visit(quotas, **given).ends()
        except TooManyRequests:
            return count
    return most


# -- counting ---------------------------------------------------------------------------------------------------------


def test_a_caller_has_its_burst_and_then_its_rate(clock):
    """And is told how long to wait; after that it is let in."""
    quotas = limits(clock, each_caller=Quota(rate=2, burst=5))
    assert times(quotas) == 5
    with pytest.raises(TooManyRequests, match="the caller ada may make 2 requests a second here; try again in 1 s"):
        visit(quotas)
    clock.now += 1
    assert times(quotas) == 2
    clock.now += 3_600
    assert times(quotas) == 5


@pytest.mark.parametrize(("rate", "wait"), [(0.1, 10), (0.001, 60), (1_000, 1)])
def test_the_wait_that_is_told_is_enough_and_bounded(clock, rate, wait):
    """Whole seconds, one at least, a minute at most."""
    quotas = limits(clock, each_caller=Quota(rate=rate, burst=1))
    visit(quotas).ends()
    with pytest.raises(TooManyRequests) as refused:
        visit(quotas)
    assert refused.value.retry_after == wait


def test_one_callers_requests_are_not_anothers(clock):
    """Each has its own."""
    quotas = limits(clock, each_caller=Quota(rate=1, burst=3))
    assert times(quotas, caller="ada") == 3
    assert times(quotas, caller="bob") == 3


def test_a_tenant_has_a_quota_beside_its_callers(clock):
    """Whoever works in it; another tenant has its own."""
    quotas = limits(clock, each_caller=Quota(rate=1, burst=10), each_tenant=Quota(rate=1, burst=4))
    assert times(quotas, caller="ada", tenant="loud") == 4
    assert times(quotas, caller="bob", tenant="loud") == 0
    assert times(quotas, caller="bob", tenant="acme") == 4


def test_what_is_open_is_bounded(clock):
    """Requests and streams, each for itself; a place that is left is another's."""
    quotas = limits(clock, each_caller=Quota(concurrent=2, streams=1))
    first, second = visit(quotas), visit(quotas)
    with pytest.raises(TooManyRequests, match="2 requests at once"):
        visit(quotas)
    first.ends()
    stream = visit(quotas, stream=True)
    third = visit(quotas)
    third.ends()
    with pytest.raises(TooManyRequests, match="1 streams open"):
        visit(quotas, stream=True)
    stream.ends()
    visit(quotas, stream=True).ends()
    second.ends()
    assert times(quotas, most=50) == 50


def test_a_tenants_open_requests_are_bounded_too(clock):
    """A visit that is refused for its tenant leaves its caller's place."""
    quotas = limits(clock, each_caller=Quota(concurrent=2), tenants={"loud": Quota(concurrent=1)})
    kept = visit(quotas, caller="ada", tenant="loud")
    for _ in range(5):
        with pytest.raises(TooManyRequests, match="the tenant loud may have 1 requests at once"):
            visit(quotas, caller="bob", tenant="loud")
    visit(quotas, caller="bob", tenant="acme").ends()
    kept.ends()


def test_what_one_does_not_say_is_as_for_all(clock):
    """A caller's own quota, over that of all in the file, over that of nobody's writing; null is no limit."""
    quotas = limits(clock, each_caller=Quota(concurrent=3), callers={"ada": Quota(rate=1), "bob": Quota(rate=None)})
    assert quotas._user("caller", "ada", "").quota == EACH_CALLER.model_copy(update={"rate": 1, "concurrent": 3})
    assert times(quotas, caller="ada", most=10) == 2, "twice the rate"
    assert (
        times(limits(clock, each_tenant=Quota(rate=None), callers={"bob": Quota(rate=None)}), 9_000, caller="bob")
        == 9_000
    )
    assert quotas._user("tenant", "", "").quota == EACH_TENANT


def test_idle_callers_are_forgotten(clock, monkeypatch):
    """So that memory is bounded, however many come by; nobody who has something open, as long as others have not."""
    monkeypatch.setattr(quotas_module, "MOST_USERS", 100)
    quotas = limits(clock)
    kept = visit(quotas, caller="kept")
    for n in range(1_000):
        clock.now += 10
        visit(quotas, caller=f"c{n}").ends()
        quotas._users.move_to_end(("caller", "kept"))
    assert len(quotas._users) <= 101
    assert quotas._users["caller", "kept"].concurrent == 1
    kept.ends()


def test_the_file_says_them(tmp_path):
    """In agents/callers.yaml; what is no quota is refused by name."""
    path = tmp_path / "callers.yaml"
    path.write_text(
        "callers: {ada: {quota: {rate: 5, streams: 2}}}\n"
        "quotas: {each_caller: {concurrent: 7}, tenants: {acme: {rate: null}}, strangers: {rate: 3}}\n"
    )
    quotas = CallersFile.read(path).limits()
    ada = quotas._user("caller", "ada", "").quota
    assert (ada.rate, ada.room, ada.streams, ada.concurrent) == (5, 10, 2, 7)
    assert quotas._user("tenant", "acme", "").quota.rate is None
    assert quotas._strangers.quota.rate == 3
    path.write_text("callers: {ada: {quota: {rate: 0}}}\n")
    with pytest.raises(ConfigurationError, match="rate"):
        CallersFile.read(path)


# -- on every binding -------------------------------------------------------------------------------------------------


async def flood(agent, binding, caller, count=12, tenant=""):
    """Requests of one caller in a row; returns the statuses, and the waits that refusals ask for."""
    if binding == "GRPC":
        return await _flood_grpc(agent, caller, count, tenant)
    statuses, waits = [], []
    async with agent.http(caller) as http:
        for _ in range(count):
            if binding == "JSONRPC":
                response = await http.post("/a2a", json={**LIST, "params": {"tenant": tenant}})
                if response.status_code == 429:
                    assert response.json()["error"]["code"] == -31429
            else:
                response = await http.get(f"/rest/{tenant + '/' if tenant else ''}tasks")
                if response.status_code == 429:
                    assert response.json()["error"]["status"] == "RESOURCE_EXHAUSTED"
            statuses.append(response.status_code)
            waits += [int(response.headers["retry-after"])] if response.status_code == 429 else []
    return statuses, waits


async def _flood_grpc(agent, caller, count, tenant):
    statuses, waits = [], []
    metadata = (("a2a-version", "1.0"), (KEY_HEADER, key_of(caller)))
    async with grpc.aio.insecure_channel(agent.grpc_target) as channel:
        stub = A2AServiceStub(channel)
        for _ in range(count):
            try:
                await stub.ListTasks(ListTasksRequest(tenant=tenant), metadata=metadata)
                statuses.append(200)
            except grpc.aio.AioRpcError as error:
                waits.append(_wait_of(error))
                statuses.append(429)
    return statuses, waits


def _wait_of(error):
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    details = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"]).details
    retry = RetryInfo()
    assert any(detail.Unpack(retry) for detail in details)
    return retry.retry_delay.seconds


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON", "GRPC"])
async def test_who_sends_too_much_is_refused_and_told_when_to_come_again(clock, binding):
    """429 with Retry-After, or RESOURCE_EXHAUSTED with RetryInfo; another caller is served, and the first one later."""
    quotas = limits(clock, each_caller=Quota(rate=1, burst=4), each_tenant=Quota(rate=None))
    async with served(Shop().agent, MemoryStore(), CALLERS, quotas=quotas) as agent:
        statuses, waits = await flood(agent, binding, "ada")
        assert statuses == [200] * 4 + [429] * 8
        assert waits == [1] * 8
        assert (await flood(agent, binding, "bob", 4))[0] == [200] * 4
        clock.now += 1
        assert (await flood(agent, binding, "ada", 2))[0] == [200, 429]


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON", "GRPC"])
async def test_a_noisy_tenant_takes_nothing_from_another(clock, binding):
    """Also by the same caller; and who names a tenant that is not theirs uses up nothing of it."""
    quotas = limits(clock, each_caller=Quota(rate=None), tenants={"loud": Quota(rate=1, burst=4)})
    async with served(Shop().agent, MemoryStore(), CALLERS, quotas=quotas) as agent:
        if binding != "GRPC":  # there the answer is another error
            await flood(agent, binding, "eve", 10, "loud")
        assert (await flood(agent, binding, "ada", 6, "loud"))[0] == [200] * 4 + [429] * 2
        assert (await flood(agent, binding, "bob", 6, "loud"))[0] == [429] * 6
        assert (await flood(agent, binding, "ada", 6, "acme"))[0] == [200] * 6


async def test_without_quotas_all_of_it_is_served():
    """The twin: with the guard off the flood succeeds."""
    async with served(Shop().agent, MemoryStore(), CALLERS) as agent:
        for binding in ("JSONRPC", "HTTP+JSON", "GRPC"):
            assert await flood(agent, binding, "ada", 40) == ([200] * 40, [])


async def test_who_does_not_wait_waits_to_be_refused(clock, monkeypatch):
    """The first refusal comes at once; those that follow without a pause come later, so that they cost little."""
    monkeypatch.setattr(door_module, "HELD_SECONDS", 0.1)
    quotas = limits(clock, each_caller=Quota(rate=1, burst=1))
    async with served(Shop().agent, MemoryStore(), CALLERS, quotas=quotas) as agent:
        loop = asyncio.get_running_loop()
        took = []
        for _ in range(3):
            began = loop.time()
            await flood(agent, "JSONRPC", "ada", 1)
            took.append(loop.time() - began)
        assert took[2] >= 0.1 > took[1]
        monkeypatch.setattr(door_module, "MOST_HELD", 0)
        began = loop.time()
        assert (await flood(agent, "JSONRPC", "ada", 1))[0] == [429]
        assert loop.time() - began < 0.1, "so many wait at most"


async def test_a_refused_request_is_not_read(clock):
    """Its body is left where it is."""

    async def ada(claims):
        return Caller("ada", "ada", frozenset())

    edge = Edge(None, jsonrpc=None, door=Door(ada, limits(clock, each_caller=Quota(rate=1, burst=1))), max_body_bytes=9)
    reads, sent = [], []

    async def receive():
        reads.append(1)
        return {"type": "http.request", "body": b"{}"}

    async def send(event):
        sent.append(event)

    for _ in range(2):
        await edge(
            {"type": "http", "method": "POST", "path": "/a2a", "headers": [], "query_string": b""}, receive, send
        )
    assert len(reads) == 1
    assert [event["status"] for event in sent if event["type"] == "http.response.start"][-1] == 429


async def test_open_requests_and_streams_are_given_back(clock):
    """When they are answered, refused, or their client goes away."""
    shop = Shop()
    quotas = limits(clock, each_caller=Quota(rate=None, concurrent=2, streams=1), each_tenant=Quota(rate=None))
    async with served(shop.agent, MemoryStore(), CALLERS, quotas=quotas) as agent:
        working = [
            asyncio.create_task(agent.send("ada", skill="slow", data={"what": "hat"}, again=f"m{n}")) for n in range(2)
        ]
        user = quotas._user("caller", "ada", "")
        await until(lambda: user.concurrent == 2 and shop.runs == 2)
        assert (await flood(agent, "JSONRPC", "ada", 1))[0] == [429]
        assert (await flood(agent, "HTTP+JSON", "bob", 1))[0] == [200]
        shop.gate.set()
        await asyncio.gather(*working)
        assert (user.concurrent, user.streams) == (0, 0)
        shop.gate.clear()
        sent = Sent(skill="slow").attach(message(data={"what": "hat"}, message_id="m3"))
        metadata = (("a2a-version", "1.0"), (KEY_HEADER, key_of("ada")))
        async with grpc.aio.insecure_channel(agent.grpc_target) as channel:
            stub = A2AServiceStub(channel)
            stream = stub.SendStreamingMessage(SendMessageRequest(message=sent), metadata=metadata)
            await stream.read()
            assert (user.concurrent, user.streams) == (0, 1)
            with pytest.raises(grpc.aio.AioRpcError, match="1 streams open"):
                await stub.SendStreamingMessage(SendMessageRequest(message=sent), metadata=metadata).read()
            stream.cancel()
            await until(lambda: user.streams == 0)
        assert user.concurrent == 0


async def test_in_the_mesh_a_refusal_is_an_answer(clock):
    """By HTTP's status daprd would count it as a failure of the whole agent, and keep others there from calling it."""
    quotas = limits(clock, each_caller=Quota(rate=1, burst=1))
    through_sidecar = {"dapr-api-token": APP_TOKEN, "dapr-caller-app-id": "ada"}
    async with (
        served(Shop().agent, MemoryStore(), CALLERS, quotas=quotas) as agent,
        agent.http("", **through_sidecar) as http,
    ):
        assert (await http.post("/a2a", json=LIST)).json()["result"]
        refused = await http.post("/a2a", json=LIST)
    assert refused.status_code == 200
    assert refused.json()["error"]["code"] == -31429
    assert refused.headers["retry-after"] == "1"


async def test_strangers_have_a_rate_of_their_own(clock):
    """Nobody known is let in at all, and too many of them are told so otherwise; callers are served all the same."""
    quotas = limits(clock, strangers=Quota(rate=1, burst=3))
    async with served(Shop().agent, MemoryStore(), CALLERS, quotas=quotas) as agent:
        assert (await flood(agent, "JSONRPC", "mallory", 6))[0] == [401] * 3 + [429] * 3
        assert (await flood(agent, "JSONRPC", "ada", 6))[0] == [200] * 6


async def test_refusals_by_quota_and_at_the_door_are_in_the_audit(clock):
    """Counted: of whom, where that is known, and why."""
    store = MemoryStore()
    quotas = limits(clock, each_caller=Quota(rate=1, burst=2), strangers=Quota(rate=1, burst=3))
    async with served(Shop().agent, store, CALLERS, quotas=quotas) as agent:
        await flood(agent, "JSONRPC", "ada", 6)
        await flood(agent, "JSONRPC", "mallory", 5)
        acts = await recorded(store, agent.engine)
    assert {(act.caller, act.identity, act.outcome, act.count) for act in acts if not act.operation} == {
        ("ada", "key:ada", "refused: too_many_requests", 4),
        ("", "", "refused: unauthenticated", 3),
        ("", "", "refused: too_many_requests", 2),
    }
