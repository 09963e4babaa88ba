"""Hearing of who is revoked: cheaply, in time, and with a memory for when the registry is down."""

import asyncio
import contextlib

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sidecard import revocations
from sidecard.callers import Denied
from sidecard.errors import AccessDenied, AgentUnavailable
from sidecard.revocations import STORE_KEY, Hearing, Revocations
from sidecard.testing import MemoryStore

ADA = {"mark": "caller:ada", "since": "2026-11-21T12:00:00Z", "by": "desk", "reason": "left"}


class Registry:
    """Answers as the registry does, and counts."""

    def __init__(self):
        self.revoked, self.status, self.answers, self.headers = [], 200, [], {}
        self.app = Starlette(routes=[Route("/revoked", self._list, methods=["GET", "PUT", "DELETE"])])

    async def _list(self, request):
        self.headers = request.headers
        tag = f'"{len(self.revoked)}"'
        status = 304 if self.status == 200 and request.headers.get("if-none-match") == tag else self.status
        self.answers.append(status)
        if status == 304:
            return Response(status_code=304)
        return JSONResponse({"revoked": self.revoked, "error": "no"} if status != 200 else {"revoked": self.revoked},
                            status, {"etag": tag})  # fmt: skip


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
async def list_(registry):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(registry.app)) as client:
        yield Revocations(client)


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(revocations, "HEAR_SECONDS", 0.005)


@contextlib.asynccontextmanager
async def hearing(list_, store=None):
    """An app that hears, and who is denied there."""
    denied = Denied()
    hearing = Hearing("shop", denied, list_, store)
    await hearing.begin()
    running = asyncio.ensure_future(hearing.run())
    try:
        yield denied
    finally:
        running.cancel()


async def until(true):
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 -- any condition
            await asyncio.sleep(0.002)


async def test_what_is_new_is_heard_and_what_is_not_costs_little(registry, list_):
    """Unchanged, the list is not sent again, and no trace is made of the question."""
    async with hearing(list_) as denied:
        await until(lambda: len(registry.answers) > 5)
        assert registry.answers[:6] == [200, *[304] * 5]
        assert registry.headers["traceparent"].endswith("-00")
        assert not denied.covers(["caller:ada"])
        registry.revoked = [ADA]
        await until(lambda: denied.covers(["caller:ada"]))
        registry.revoked = []
        await until(lambda: not denied.covers(["caller:ada"]))


async def test_it_is_remembered_when_it_changes_and_only_then(registry, list_, caplog):
    """One write for each change; a store that is down for a moment gets it afterwards."""
    store = MemoryStore()
    async with hearing(list_, store):
        await until(lambda: len(registry.answers) > 5)
        assert store.writes == 1
        store.down, registry.revoked = True, [ADA]
        await until(lambda: "can't keep yet who is revoked" in caplog.text)
        answers = len(registry.answers)
        await until(lambda: len(registry.answers) > answers + 5)
        assert caplog.text.count("can't keep yet") == 1
        store.down = False
        await until(lambda: b"caller:ada" in store.data[STORE_KEY])
        writes, answers = store.writes, len(registry.answers)
        await until(lambda: len(registry.answers) > answers + 5)
        assert store.writes == writes
    async with hearing(Revocations(list_._client), store):
        assert store.writes == writes


async def test_while_the_registry_is_deaf_the_last_word_counts(registry, list_, caplog):
    """Said once in the log, and once when it answers again."""
    registry.revoked = [ADA]
    caplog.set_level("INFO", "sidecard")
    async with hearing(list_) as denied:
        registry.status = 503
        await until(lambda: registry.answers.count(503) > 3)
        assert denied.covers(["caller:ada"])
        registry.status, registry.revoked = 200, []
        await until(lambda: not denied.covers(["caller:ada"]))
        await until(lambda: "hears again" in caplog.text)
    assert caplog.text.count("can't hear who is revoked") == 1


async def test_it_begins_with_what_it_remembers_and_not_without(registry, list_, caplog):
    """With a registry that is down; what it can't read is no memory."""
    store = MemoryStore()
    registry.revoked = [ADA]
    async with hearing(list_, store):
        pass
    registry.status = 503
    async with hearing(list_, store) as denied:
        assert denied.covers(["caller:ada"])
    for kept in ({}, {STORE_KEY: b"something else"}):
        denied = Denied()
        store.data = dict(kept)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Hearing("shop", denied, list_, store).begin(), 0.1)
        assert not denied.heard


async def test_a_registry_that_hangs_is_given_up(registry, monkeypatch):
    """A question takes its time at most; nothing piles up."""

    async def hang(_request):
        await asyncio.Event().wait()

    monkeypatch.setattr(revocations, "HEAR_TIMEOUT", 0.01)
    async with httpx.AsyncClient(transport=httpx.MockTransport(hang)) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Hearing("shop", Denied(), Revocations(client)).begin(), 0.1)


async def test_operators_are_told_why_not(registry, list_):
    """Refusals and failures, in words; answers that are no list."""
    registry.status = 403
    with pytest.raises(AccessDenied, match="refuses this caller"):
        await list_.revoke("caller:ada", "left")
    registry.status = 500
    with pytest.raises(AgentUnavailable, match="HTTP 500: no"):
        await list_.restore("caller:ada")
    registry.status, registry.revoked = 200, [{"mark": "nobody at all"}]
    with pytest.raises(AgentUnavailable, match="something else than revocations"):
        await list_.all()
