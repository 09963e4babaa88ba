"""What the audit knows of each operation, on every binding, and that nothing happens without it."""

import asyncio
import re

import pytest
from a2a.client import ClientCallContext
from a2a.types import (
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import A2AError, InvalidParamsError, TaskNotFoundError

from sidecard.extension import Sent
from sidecard.tasks import journal, sightings
from sidecard.tasks.act import Act
from sidecard.tasks.audit_log import in_order, read_audit
from sidecard.tasks.reveal import ASKED
from sidecard.tasks.writer import Writer
from sidecard.telemetry import continue_trace
from sidecard.testing import FakeWebhooks, MemoryStore, message, served
from tests.sidecard.tasks.shop import Shop, until

BINDINGS = ["JSONRPC", "HTTP+JSON", "GRPC"]
ALL = ["look", "buy", "choose", "slow"]
CALLERS = {
    "ada": {"api_key": True, "tenants": ["acme"], "grants": {"shop": ALL}},
    "bob": {"api_key": True, "grants": {"shop": ["look"]}},
    "boss": {"api_key": True, "grants": {"shop": ["approve"]}},
    "desk": {"api_key": True, "speaks_for_others": True, "grants": {"shop": ALL}},
}
HOOK = "https://hooks.example.org/"


async def recorded(store, engine=None, **given):
    """Everything in the audit; what waits is written first."""
    if engine is not None:
        await engine.journal.flush(5)
    trails = await read_audit(store, verify=True, **given)
    assert [trail.problems for trail in trails] == [[] for _ in trails]
    return [one.act for one in in_order(trails)]


def said(acts):
    return [(act.caller, act.operation, act.outcome) for act in acts]


def request(text="", message_id="m1", *, skill="", task_id="", tenant="", subject="", data=None):
    sent = message(text, message_id, data=data or ({} if text else {"what": "hat"}), task_id=task_id)
    return SendMessageRequest(message=Sent(skill=skill, subject=subject).attach(sent), tenant=tenant)


async def all_of(stream):
    return [event async for event in stream]


async def refused(awaitable, *kinds):
    with pytest.raises(kinds or A2AError):
        await awaitable


@pytest.mark.parametrize("binding", BINDINGS)
async def test_every_operation_is_recorded_with_who_did_it_to_which_task_by_which_right(binding):
    """All eleven, whatever the binding; those that change something no later than they are answered."""
    shop, store = Shop(), MemoryStore()
    async with served(shop.agent, store, CALLERS, webhooks=FakeWebhooks()) as agent:
        ada = agent.client(binding, "ada")
        [answer] = await all_of(ada.send_message(request(skill="choose", tenant="acme")))
        task, tenant = answer.task.id, "acme"
        assert said(await recorded(store)) == [("ada", "SendMessage", "ok")]
        config = TaskPushNotificationConfig(task_id=task, id="h1", url=HOOK, tenant=tenant)
        await ada.create_task_push_notification_config(config)
        assert len(await recorded(store)) == 2
        await ada.get_task_push_notification_config(
            GetTaskPushNotificationConfigRequest(task_id=task, id="h1", tenant=tenant)
        )
        await ada.list_task_push_notification_configs(
            ListTaskPushNotificationConfigsRequest(task_id=task, tenant=tenant)
        )
        await ada.delete_task_push_notification_config(
            DeleteTaskPushNotificationConfigRequest(task_id=task, id="h1", tenant=tenant)
        )
        await ada.get_task(GetTaskRequest(id=task, tenant=tenant))
        await ada.list_tasks(ListTasksRequest(tenant=tenant))
        await ada.get_extended_agent_card(GetExtendedAgentCardRequest(tenant=tenant))
        streaming = agent.client(binding, "ada", streaming=True)
        following = asyncio.create_task(all_of(streaming.subscribe(SubscribeToTaskRequest(id=task, tenant=tenant))))
        await until(lambda: agent.engine._lives and any(live._followers for live in agent.engine._lives.values()))
        await ada.cancel_task(CancelTaskRequest(id=task, tenant=tenant))
        await following
        await all_of(streaming.send_message(request("", "m2", skill="look", tenant=tenant)))
        acts = await recorded(store, agent.engine)
    by_task = {act.operation: act for act in acts if act.task == task}
    assert set(by_task) == {
        "SendMessage",
        "CreateTaskPushNotificationConfig",
        "GetTaskPushNotificationConfig",
        "ListTaskPushNotificationConfigs",
        "DeleteTaskPushNotificationConfig",
        "GetTask",
        "SubscribeToTask",
        "CancelTask",
    }
    assert {act.operation for act in acts} - set(by_task) == {
        "ListTasks",
        "GetExtendedAgentCard",
        "SendStreamingMessage",
    }
    assert {(act.caller, act.identity, act.subject, act.tenant, act.outcome) for act in acts} == {
        ("ada", "key:ada", "ada", "acme", "ok")
    }
    assert {act.skill for act in by_task.values()} == {"choose"}
    assert by_task.pop("SendMessage").right == "scope choose"
    assert {act.right for act in by_task.values()} == {"owner"}


async def test_every_refusal_is_recorded_with_its_reason():
    """A forbidden tenant, a missing scope, a task of somebody else or of nobody, a question for others."""
    shop, store = Shop(), MemoryStore()
    async with served(shop.agent, store, CALLERS) as agent:
        theirs = await agent.send("ada", skill="choose", data={"what": "hat"})
        bob = agent.client("JSONRPC", "bob")
        await refused(all_of(bob.send_message(request(tenant="acme"))))
        await refused(all_of(bob.send_message(request(skill="buy"))))
        await refused(bob.get_task(GetTaskRequest(id=theirs.id)), TaskNotFoundError)
        await refused(bob.get_task(GetTaskRequest(id="no-such-task")), TaskNotFoundError)
        await refused(bob.cancel_task(CancelTaskRequest(id="<script>")), TaskNotFoundError)
        await refused(all_of(bob.send_message(request("red", "m9", task_id=theirs.id))), TaskNotFoundError)
        acts = [act for act in await recorded(store, agent.engine) if act.caller == "bob"]
    assert {(act.operation, act.task, act.right, act.outcome) for act in acts} == {
        ("SendMessage", "", "", "refused: bob may not work in this tenant"),
        ("SendMessage", "", "", "refused: bob holds none of the scopes that this needs: buy"),
        ("GetTask", theirs.id, "none: it is not theirs", "refused: task_not_found"),
        ("GetTask", "no-such-task", "", "refused: task_not_found"),
        ("CancelTask", "", "", "refused: task_not_found"),
        ("SendMessage", theirs.id, "none: it is not theirs", "refused: task_not_found"),
    }


async def test_what_is_said_is_never_in_the_audit():
    """Neither a message's text and data nor an answer's, also when an error repeats them."""
    shop, store = Shop(), MemoryStore()
    async with served(shop.agent, store, CALLERS) as agent:
        task = await agent.send("ada", skill="choose", data={"what": "hush-hush"})
        await agent.send("ada", "hush-hush", task=task)
        ada = agent.client("JSONRPC", "ada")
        await refused(all_of(ada.send_message(request("hush-hush", skill="hush-hush"))), InvalidParamsError)
        await refused(ada.get_task(GetTaskRequest(id="hush hush")))
        await agent.engine.journal.flush(5)
        assert len(await recorded(store)) == 4
        await agent.engine.stop()
    kept = b"".join(value for key, value in store.data.items() if key.startswith(("audit:", "slot:")))
    assert b"SendMessage" in kept
    assert not re.search(rb"hush.hush", kept)


async def test_on_whose_behalf_is_recorded():
    """Beside the caller that was verified: it speaks for others, and only then."""
    shop, store = Shop(), MemoryStore()
    async with served(shop.agent, store, CALLERS) as agent:
        await all_of(agent.client("JSONRPC", "desk").send_message(request(skill="look", subject="eve")))
        await all_of(agent.client("JSONRPC", "ada").send_message(request(skill="look", subject="eve")))
        acts = await recorded(store, agent.engine)
    assert [(act.caller, act.subject) for act in acts] == [("desk", "eve"), ("ada", "ada")]


async def test_a_repeated_message_is_recorded_as_what_it_is():
    """It is in the audit, and starts nothing."""
    shop, store = Shop(), MemoryStore()
    async with served(shop.agent, store, CALLERS) as agent:
        first = await agent.send("ada", skill="look", data={"what": "hat"}, again="m1")
        again = await agent.send("ada", skill="look", data={"what": "hat"}, again="m1")
        acts = await recorded(store, agent.engine)
    assert first.id == again.id
    assert [(act.task, act.skill, act.outcome) for act in acts] == [
        (first.id, "look", "ok"),
        (first.id, "look", "repeated"),
    ]


async def test_the_trace_is_recorded():
    """Under which all of a delegation is found again."""
    shop, store = Shop(), MemoryStore()
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with served(shop.agent, store, CALLERS) as agent:
        with continue_trace(f"00-{trace}-b7ad6b7169203331-01"):
            await agent.send("ada", skill="look", data={"what": "hat"})
        [act] = await recorded(store, agent.engine)
    assert act.trace == trace


@pytest.mark.parametrize("atomic", [True, False])
async def test_what_was_answered_is_in_the_audit_whenever_the_process_dies(atomic):
    """The store as it is when a change has been answered has the record of it: nothing was flushed for that."""
    shop, store = Shop(), MemoryStore(atomic=atomic)
    async with served(shop.agent, store, CALLERS) as agent:
        task = await agent.send("ada", skill="choose", data={"what": "hat"})
        at_once = dict(store.data)
    died = MemoryStore(atomic=atomic)
    died.data = at_once
    assert said(await recorded(died)) == [("ada", "SendMessage", "ok")]
    async with served(shop.agent, died, CALLERS) as agent:
        await agent.send("ada", "red", task=task)
        assert said(await recorded(died)) == [("ada", "SendMessage", "ok")] * 2


async def test_without_the_records_in_the_write_there_would_be_none(monkeypatch):
    """The twin: acts that don't go with their entry are not there when the process dies."""

    async def writes_without_acts(self, task):
        for append in self._pending:
            if append.act is not None:
                append.act.recorded = True
            append.act = None
        await real(self, task)

    real = Writer._write
    monkeypatch.setattr(Writer, "_write", writes_without_acts)
    shop, store = Shop(), MemoryStore()
    async with served(shop.agent, store, CALLERS) as agent:
        await agent.send("ada", skill="choose", data={"what": "hat"})
        assert await recorded(store, agent.engine) == []


async def test_reads_are_recorded_within_a_second_also_when_nothing_else_is_written(monkeypatch):
    """Many of a kind are one record with a count."""
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 0.05)
    shop, store = Shop(), MemoryStore()
    async with served(shop.agent, store, CALLERS) as agent:
        task = await agent.send("ada", skill="look", data={"what": "hat"})
        ada, writes = agent.client("JSONRPC", "ada"), store.writes
        for _ in range(5):
            await ada.get_task(GetTaskRequest(id=task.id))
        async with asyncio.timeout(5):
            while len(await recorded(store)) == 1:  # noqa: ASYNC110 -- it is the store that changes
                await asyncio.sleep(0.01)
        reads = (await recorded(store))[1:]
    assert sum(act.count for act in reads) == 5
    assert store.writes - writes <= len(reads) + 2


async def test_what_waits_is_written_when_the_agent_stops():
    """A read just before the end is not lost."""
    shop, store = Shop(), MemoryStore()
    async with served(shop.agent, store, CALLERS) as agent:
        await agent.client("JSONRPC", "ada").list_tasks(ListTasksRequest())
    assert said(await recorded(store)) == [("ada", "ListTasks", "ok")]


async def test_a_read_that_could_not_be_recorded_is_refused(monkeypatch):
    """Without an audit nothing is shown; refusals are counted, and the count is recorded when the store is back."""
    monkeypatch.setattr(sightings, "MOST", 2)
    shop, store = Shop(), MemoryStore()
    async with served(shop.agent, store, CALLERS) as agent:
        task = await agent.send("ada", skill="choose", data={"what": "hat"})
        ada, bob = agent.client("JSONRPC", "ada"), agent.client("JSONRPC", "bob")
        async with agent.engine.borrow(task.id):  # in memory, so that it could be shown
            store.down = True
            await ada.get_task(GetTaskRequest(id=task.id))
            await refused(bob.get_task(GetTaskRequest(id=task.id)), TaskNotFoundError)
            await refused(ada.get_extended_agent_card(GetExtendedAgentCardRequest()))
            await ada.get_task(GetTaskRequest(id=task.id))  # of a kind that has its place
            for n in range(3):
                await refused(bob.get_task(GetTaskRequest(id=f"{task.id}{n}"[-60:])))
            store.down = False
        acts = await recorded(store, agent.engine)
    assert [(act.operation, act.outcome, act.count) for act in acts[1:]] == [
        ("GetTask", "ok", 2),
        ("GetTask", "refused: task_not_found", 1),
        ("", "dropped", acts[-1].count),
    ]
    assert acts[-1].count >= 1


async def reveals_that_are_lost(store, agent, task) -> int:
    """Tasks that are shown to their owner as they were, with no record of it in the store as it is at that moment."""
    at_once = MemoryStore()
    asked = ClientCallContext(service_parameters=dict(ASKED))
    shown = await agent.client("JSONRPC", "ada").get_task(GetTaskRequest(id=task), context=asked)
    at_once.data = dict(store.data)
    return int(shown.id == task and ("ada", "RevealTask", "ok") not in said(await recorded(at_once)))


async def test_what_is_revealed_is_in_the_audit_before_it_is_shown():
    """As an act of its own kind, with its right; refused ones too, with why."""
    shop, store = Shop(), MemoryStore()
    async with served(shop.agent, store, CALLERS) as agent:
        task = (await agent.send("ada", skill="look", data={"what": "hat"})).id
        assert await reveals_that_are_lost(store, agent, task) == 0
        asked = ClientCallContext(service_parameters=dict(ASKED))
        await refused(agent.client("GRPC", "bob").get_task(GetTaskRequest(id=task), context=asked), TaskNotFoundError)
        acts = (await recorded(store, agent.engine))[1:]
    assert [(act.caller, act.operation, act.task, act.skill, act.right, act.outcome) for act in acts] == [
        ("ada", "RevealTask", task, "look", "owner, scope look", "ok"),
        ("bob", "RevealTask", task, "", "none: it is not theirs", "refused: task_not_found"),
    ]


async def test_without_waiting_for_it_there_would_be_no_record(monkeypatch):
    """The twin: it is recorded like any read, within a second."""

    async def soon(self, act):
        self.saw(act)

    monkeypatch.setattr(journal.Journal, "record", soon)
    shop, store = Shop(), MemoryStore()
    async with served(shop.agent, store, CALLERS) as agent:
        task = (await agent.send("ada", skill="look", data={"what": "hat"})).id
        assert await reveals_that_are_lost(store, agent, task) == 1


async def test_what_can_not_be_recorded_is_not_revealed(monkeypatch):
    """While the store is down, though the task is at hand."""
    monkeypatch.setattr(journal, "RECORD_SECONDS", 0.05)
    shop, store = Shop(), MemoryStore()
    async with served(shop.agent, store, CALLERS) as agent:
        task = (await agent.send("ada", skill="look", data={"what": "hat"})).id
        async with agent.engine.borrow(task):
            store.down = True
            asked = ClientCallContext(service_parameters=dict(ASKED))
            with pytest.raises(A2AError, match="the audit can't be written"):
                await agent.client("GRPC", "ada").get_task(GetTaskRequest(id=task), context=asked)
            store.down = False


async def test_a_caller_that_is_refused_all_the_time_fills_nothing():
    """A few of its refusals are told in full each time, the rest is one record with a count."""
    shop, store = Shop(), MemoryStore()
    async with served(shop.agent, store, CALLERS) as agent:
        bob = agent.client("JSONRPC", "bob")
        for n in range(200):
            await refused(bob.get_task(GetTaskRequest(id=f"guess-{n}")))
        acts = await recorded(store, agent.engine)
    assert sum(act.count for act in acts) == 200
    assert len(acts) <= 3 * (sightings.NAMED + 1)


async def test_a_message_that_another_replica_took_first_is_recorded_once():
    """Where a store decides key by key a record is written before it is decided; what lost is taken back."""
    shop, store = Shop(), MemoryStore(atomic=False, shared=True)
    shop.gate.set()
    async with (
        served(shop.agent, store, CALLERS) as one,
        served(shop.agent, store, CALLERS) as other,
    ):
        for n in range(20):
            sent = {"skill": "slow", "data": {"what": "hat"}, "again": f"m{n}"}
            await asyncio.gather(one.send("ada", **sent), other.send("ada", **sent))
        await one.engine.journal.flush(5)
        acts = await recorded(store, other.engine)
    for task in {act.task for act in acts}:
        assert sorted(act.outcome for act in acts if act.task == task) == ["ok", "repeated"]
    assert len(acts) == 40


def test_a_record_stays_short():
    """Whatever a caller makes up."""
    made = Act("GetTask", tenant="x" * 10_000, caller="ada")
    assert len(made.pack("0.1")) < 400
