"""Callers' rights travel with what their tasks delegate: by token exchange at a real provider, from memory alone."""

import asyncio
import base64
import contextlib
import json
import logging

import pytest
from a2a.types import TaskState
from jwcrypto.jwk import JWK
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

from foreign.parties import secret_of
from sidecard import Agent, Task, telemetry
from sidecard.callers import Presented
from sidecard.credentials import OAuthClient
from sidecard.delegation import ForeignAgent, calling
from sidecard.extension import URI
from sidecard.tasks import tokens as tokens_module
from sidecard.tasks.tokens import TaskTokens
from sidecard.telemetry import Telemetry
from sidecard.testing import MemoryStore, served
from sidecard.trust import TrustStore
from tests.foreign.conftest import AUDIENCE
from tests.sidecard.delegation.stranger import Stranger
from tests.sidecard.issuer import Issuer

KEY = JWK.generate(kty="EC", crv="P-256", kid="rail", alg="ES256")
TRUST = {"publishers": {"Rail": {"keys": [KEY.export_public(as_dict=True)]}}}
CALLERS = {
    "traveller": {
        "token": {"issuer": "company", "client": "traveller"}, "api_key": True, "grants": {"planner": ["look"]}
    },
    "clerk": {"token": {"issuer": "company", "client": "shop"}, "grants": {"planner": ["look"]}},
    "office": {
        "token": {"issuer": "company", "client": "planner"}, "speaks_for_others": True, "grants": {"planner": ["look"]}
    },
}  # fmt: skip


class Trip(BaseModel):
    """What the planner takes: where to, several for trips side by side; `asks` before it does anything."""

    to: list[str]
    asks: bool = False


def planner():
    agent = Agent(name="planner", version="1", description="Plans.", publisher="Tests")

    @agent.skill(scope="look", idempotent=False)
    async def plan(trip: Trip, task: Task) -> list[str]:
        """Ask the railways."""
        if trip.asks:
            await task.ask("May this be booked?", scope="look")

        async def connect(place: str) -> str:
            return (await task.delegate("railways", "connect", place)).text

        async with task.group() as group:
            found = [group.start(connect(place)) for place in trip.to]
        return [one.result() for one in found]

    return agent


class Desk:
    """The planner as it is served now, on a store that outlives it; how callers reach it, and what reaches the rail."""

    def __init__(self, openid, stranger):
        self.openid, self.stranger, self.up = openid, stranger, None
        self.given: list[str] = []

    @contextlib.asynccontextmanager
    async def served(self, store, mesh):
        issuers = {"company": {"url": self.openid.issuer}}
        async with served(planner(), store, CALLERS, mesh, issuers=issuers, exchanging=True) as self.up:
            yield

    def token(self, client="traveller"):
        self.given.append(self.openid.token(client, secret_of(client), resource=AUDIENCE, scope="look"))
        return self.given[-1]

    async def post(self, method, params, headers):
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        async with self.up.http(**headers) as http:
            return (await http.post("/a2a", json=call, timeout=60)).json()

    async def send(self, data, token="", *, by="", message_id="m1", wait=True, **named):
        """The task that comes of a message, at rest, or the error."""
        sent = {"messageId": message_id, "role": "ROLE_USER", "parts": [{"data": data}], "metadata": {URI: named}}
        headers = {"Authorization": f"Bearer {token}"} if token else {"x-api-key": f"{by}'s key"}
        params = {"message": sent, "configuration": {"returnImmediately": not wait}}
        answer = await self.post("SendMessage", params, headers)
        return answer["result"]["task"] if "result" in answer else answer["error"]

    async def decide(self, task, token="", *, by="", granted=True, message_id="g1"):
        """The task at rest after a grant, or the error."""
        asked = task["status"]["message"]["metadata"][URI]
        grant = {"authority": asked["authority"], "granted": granted}
        named = {"question": asked["question"], "grant": grant}
        sent = {"taskId": task["id"], "messageId": message_id, "role": "ROLE_USER", "parts": [{"text": "Yes"}]}
        headers = {"Authorization": f"Bearer {token}"} if token else {"x-api-key": f"{by}'s key"}
        answer = await self.post("SendMessage", {"message": sent | {"metadata": {URI: named}}}, headers)
        return answer["result"]["task"] if "result" in answer else answer["error"]

    def arrived(self):
        """Whose rights reached the railways, as (subject, who acts), and how often a caller's own token did."""
        sent = [one["authorization"].removeprefix("Bearer ") for one in self.stranger.seen]
        claims = [json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "==")) for token in sent]
        for one in claims:
            assert one["aud"] == self.stranger.url
        return {(one["sub"], one.get("act", {}).get("sub", "")) for one in claims}, len({*sent} & {*self.given})

    async def until(self, true):
        async with asyncio.timeout(10):
            while not true():  # noqa: ASYNC110 -- any condition
                await asyncio.sleep(0.005)


@pytest.fixture
async def mesh(openid, desk):
    async with _calling(desk.stranger, openid.issuer, openid.issuer) as mesh:
        yield mesh


@pytest.fixture
async def desk(openid, listen):
    stranger = Stranger()
    stranger.url = f"http://127.0.0.1:{await listen(stranger.app())}"
    stranger.show(stranger.card(), KEY)
    yield Desk(openid, stranger)
    stranger.gate.set()


def _calling(stranger, issuer, known):
    agent = ForeignAgent(
        url=stranger.url, publisher="Rail",
        credentials={"issuer": issuer, "exchange": True},
    )  # fmt: skip
    own = OAuthClient(client_id="planner", client_secret=secret_of("planner"))
    return calling(
        {"railways": agent}, TrustStore.parse(json.dumps(TRUST)), allowed=f"{stranger.url} {issuer}",
        clients={known: own},
    )  # fmt: skip


# -- while the token is there ----------------------------------------------------------------------------------------


async def test_a_task_calls_with_its_callers_rights(desk, mesh):
    """The other agent sees whose right it is and who acts; the token itself stays here, and is gone with the task."""
    async with desk.served(MemoryStore(), mesh):
        task = await desk.send({"to": ["LIS to OPO"]}, desk.token())
        assert task["status"]["state"] == "TASK_STATE_COMPLETED"
        assert desk.arrived() == ({("traveller", "planner")}, 0)
        assert len(desk.up.engine._tokens) == 0


async def test_who_comes_without_a_token_is_told_so(desk, mesh):
    """There is nothing to exchange, and our own rights are no substitute: nothing is sent."""
    async with desk.served(MemoryStore(), mesh):
        task = await desk.send({"to": ["LIS to OPO"]}, by="traveller")
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert "start it with an access token" in task["status"]["message"]["parts"][0]["text"]
    assert desk.stranger.seen == []


# -- when it is gone -------------------------------------------------------------------------------------------------


async def begun(desk, mesh, store, data, *, reached):
    """A task, started with a token, whose process dies once the other agent has `reached` so many messages.

    Returns the store as it was then.
    """
    desk.stranger.gate.clear()
    async with desk.served(store, mesh):
        task = await desk.send(data, desk.token(), wait=False)
        await desk.until(lambda: len(desk.stranger.messages) == reached)
        async with desk.up.engine.borrow(task["id"]) as live:
            await desk.until(lambda: len(live.folded.children) == reached)
        left = MemoryStore()
        left.data = dict(store.data)
    desk.stranger.gate.set()
    return left, task["id"]


async def rested(desk, task_id):
    async with desk.up.engine.borrow(task_id) as live:
        await asyncio.wait_for(live.settled(), 20)
    return (await desk.post("GetTask", {"id": task_id}, {"x-api-key": "traveller's key"}))["result"]


async def test_a_task_that_was_adopted_asks_for_a_new_token_and_follows_what_it_had_begun(desk, mesh):
    """Nothing fails and nothing is ordered twice; nobody's rights are used until then."""
    store, task_id = await begun(desk, mesh, MemoryStore(), {"to": ["LIS to OPO"]}, reached=1)
    desk.stranger.seen.clear()
    async with desk.served(store, mesh):
        task = await rested(desk, task_id)
        assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
        assert "none is at hand any more" in task["status"]["message"]["parts"][0]["text"]
        assert desk.stranger.seen == []
        done = await desk.decide(task, desk.token())
        assert done["status"]["state"] == "TASK_STATE_COMPLETED"
        assert desk.arrived() == ({("traveller", "planner")}, 0)
    assert len(desk.stranger.messages) == 1


async def test_one_new_token_serves_all_that_a_task_does_side_by_side(desk, mesh):
    """It is asked for once."""
    store, task_id = await begun(desk, mesh, MemoryStore(), {"to": ["LIS to OPO", "MAD to BCN"]}, reached=2)
    async with desk.served(store, mesh):
        done = await desk.decide(await rested(desk, task_id), desk.token())
    assert done["status"]["state"] == "TASK_STATE_COMPLETED"
    assert len(desk.stranger.messages) == 2


async def test_a_token_that_has_run_out_is_asked_for_anew(desk, mesh, monkeypatch):
    """Before anything is sent; what is granted again without one is refused, with words that help."""
    monkeypatch.setattr(tokens_module, "EARLY_SECONDS", 10_000)
    async with desk.served(MemoryStore(), mesh):
        task = await desk.send({"to": ["LIS to OPO"]}, desk.token())
        assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
        assert desk.stranger.seen == []
        refused = await desk.decide(task, by="traveller", message_id="g0")
        assert "sidecard grant --as" in refused["message"]
        monkeypatch.undo()
        done = await desk.decide(task, desk.token())
        assert done["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_who_lends_no_token_ends_the_task(desk, mesh, monkeypatch):
    """REJECTED, as any authority that is refused; without a token, which a refusal does not need."""
    monkeypatch.setattr(tokens_module, "EARLY_SECONDS", 10_000)
    async with desk.served(MemoryStore(), mesh):
        task = await desk.send({"to": ["LIS to OPO"]}, desk.token())
        done = await desk.decide(task, by="traveller", granted=False)
    assert done["status"]["state"] == "TASK_STATE_REJECTED"
    assert desk.stranger.seen == []


async def test_the_same_message_again_brings_a_new_token(desk, mesh):
    """A caller whose agent was restarted need not know: its retry is enough, before the task has asked."""
    async with desk.served(MemoryStore(), mesh):
        task = await desk.send({"to": ["LIS to OPO"], "asks": True}, desk.token())
        desk.up.engine._tokens.clear()
        await desk.send({"to": ["LIS to OPO"], "asks": True}, desk.token())
        clerk = desk.openid.token("shop", secret_of("shop"), resource=AUDIENCE, scope="look")
        await answered(desk, task, clerk)
    assert desk.arrived() == ({("traveller", "planner")}, 0)


async def test_a_revoked_caller_s_token_is_used_no_more(desk, mesh):
    """Though its task goes on, as all do whose owner is revoked."""
    async with desk.served(MemoryStore(), mesh):
        task = await desk.send({"to": ["LIS to OPO"], "asks": True}, desk.token())
        desk.up.denied.become(["caller:traveller"])
        clerk = desk.openid.token("shop", secret_of("shop"), resource=AUDIENCE, scope="look")
        await answered(desk, task, clerk)
        async with desk.up.engine.borrow(task["id"]) as live:
            await asyncio.wait_for(live.settled(), 10)
            assert live.folded.state == TaskState.TASK_STATE_AUTH_REQUIRED
    assert desk.stranger.seen == []


# -- attacks ---------------------------------------------------------------------------------------------------------


async def answered(desk, task, token):
    """Answer what a task asks, with the text of somebody who may."""
    sent = {"taskId": task["id"], "messageId": "a1", "role": "ROLE_USER", "parts": [{"text": "Yes"}]}
    return await desk.post("SendMessage", {"message": sent}, {"Authorization": f"Bearer {token}"})


async def rights_of_others(desk, mesh):
    """Attack: have a task act with the rights of who only answers it, or of who speaks for another. How many it got."""
    clerk = desk.openid.token("shop", secret_of("shop"), resource=AUDIENCE, scope="look")
    async with desk.served(MemoryStore(), mesh):
        asking = await desk.send({"to": ["LIS to OPO"], "asks": True}, desk.token())
        desk.up.engine._tokens.clear()
        await answered(desk, asking, clerk)
        await desk.send({"to": ["MAD to BCN"]}, desk.token("planner"), message_id="m2", subject="ada")
    return len(desk.arrived()[0]) if desk.stranger.seen else 0


async def test_nobody_elses_token_is_used(desk, mesh):
    """The confused deputy: the rights are those of whom the task is for, or none."""
    assert await rights_of_others(desk, mesh) == 0


async def test_without_the_guard_somebody_elses_is(desk, mesh, monkeypatch):
    """With the guard off: any token that comes along."""
    monkeypatch.setattr(tokens_module, "_is_whom_it_is_for", lambda meta, caller: True)
    assert await rights_of_others(desk, mesh) == 2


async def grants_by_others(desk, mesh):
    """Attack: grant another's task a token of one's own. How often it goes on."""
    store, task_id = await begun(desk, mesh, MemoryStore(), {"to": ["LIS to OPO"]}, reached=1)
    async with desk.served(store, mesh):
        task = await rested(desk, task_id)
        clerk = desk.openid.token("shop", secret_of("shop"), resource=AUDIENCE, scope="look")
        answer = await desk.decide(task, clerk)
    return int("status" in answer)


async def test_nobody_grants_anothers_task_a_token(desk, mesh):
    """To them it is not there."""
    assert await grants_by_others(desk, mesh) == 0


async def test_without_the_guards_somebody_does(desk, mesh, monkeypatch):
    """With the guards off: who sees it, who may grant."""
    monkeypatch.setattr("sidecard.tasks.reception.right_to", lambda *_, **__: "anybody")
    monkeypatch.setattr("sidecard.tasks.reception.check_may_answer", lambda *_, **__: "")
    assert await grants_by_others(desk, mesh) == 1


@pytest.fixture
def spans(monkeypatch):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("sidecard"))
    return exporter, Telemetry(provider)


async def places_of_tokens(desk, mesh, spans, caplog):
    """Attack: look for a caller's token, and for what it was exchanged for, where others read. In how many places."""
    caplog.set_level(logging.WARNING, "a2a")  # as `serve` has it; the other agent's is in this process too
    caplog.set_level(logging.DEBUG)
    exporter, recording = spans
    store = MemoryStore()
    async with desk.served(store, mesh):
        recording.instrument_app(desk.up.app)
        recording.instrument_client(mesh.handshake._outside.http)
        task = await desk.send({"to": ["LIS to OPO"], "asks": True}, desk.token())
        during = dict(store.data)
        clerk = desk.openid.token("shop", secret_of("shop"), resource=AUDIENCE, scope="look")
        await answered(desk, task, clerk)
        shown = await desk.post("GetTask", {"id": task["id"]}, {"x-api-key": "traveller's key"})
        representations = repr(list(desk.up.engine._tokens._kept.values()))
    assert desk.arrived() == ({("traveller", "planner")}, 0)
    assert exporter.get_finished_spans()
    exchanged = {one["authorization"].removeprefix("Bearer ") for one in desk.stranger.seen}
    read = [
        b"".join([*during.values(), *store.data.values()]).decode(errors="replace"),
        caplog.text,
        "".join(span.to_json() for span in exporter.get_finished_spans()),
        json.dumps(shown),
        representations,
    ]
    secrets = {part for token in [*desk.given, clerk, *exchanged] for part in (token, token.rpartition(".")[2])}
    return sum(any(secret in place for secret in secrets) for place in read)


async def test_a_token_is_in_no_store_log_trace_or_answer(desk, mesh, spans, caplog):
    """Nor its signature alone."""
    assert await places_of_tokens(desk, mesh, spans, caplog) == 0


async def test_a_token_that_were_recorded_would_be_found(desk, mesh, spans, caplog, monkeypatch):
    """The guard off: a task's record with the token itself in it."""
    begin = TaskTokens.begin

    def recorded(self, meta, caller):
        begin(self, meta, caller)
        meta["exchange"] = caller.token.value
        logging.getLogger("sidecard").info("%s", caller.token.value)

    monkeypatch.setattr(TaskTokens, "begin", recorded)
    assert await places_of_tokens(desk, mesh, spans, caplog) == 2


async def tokens_at_another_issuer(desk, listen):
    """Attack: have a caller's token exchanged at an issuer that has not issued it, which could use it as its own."""
    thief = Issuer()
    thief.url = f"http://127.0.0.1:{await listen(thief.app())}"
    async with _calling(desk.stranger, thief.url, thief.url) as mesh, desk.served(MemoryStore(), mesh):
        task = await desk.send({"to": ["LIS to OPO"]}, desk.token())
    assert task["status"]["state"] == "TASK_STATE_FAILED" or thief.asked
    return sum(desk.given[0] in form.get("subject_token", []) for _, form in thief.asked)


async def test_a_token_is_shown_to_its_own_issuer_alone(desk, listen):
    """Whoever else agents/foreign.yaml names."""
    assert await tokens_at_another_issuer(desk, listen) == 0


async def test_without_the_guard_another_issuer_has_it(desk, listen, monkeypatch):
    """With the guard off: a token of which it is not known whose it is."""

    class Anybodys(str):
        def __eq__(self, other):
            return True

        __hash__ = str.__hash__

    monkeypatch.setattr(
        "sidecard.callers.callers.Presented", lambda value, issuer, *more: Presented(value, Anybodys(issuer), *more)
    )
    assert await tokens_at_another_issuer(desk, listen) > 0
