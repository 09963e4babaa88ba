"""What one caller or tenant can learn of, or do to, the tasks of another: nothing, by any operation of any binding."""

import asyncio
import base64
import itertools
import json
import math
from dataclasses import dataclass

import grpc.aio
import msgpack
import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2 as v03
from a2a.compat.v0_3 import a2a_v0_3_pb2_grpc
from a2a.types import a2a_pb2
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from google.protobuf.json_format import ParseDict

from sidecard import Agent, Task
from sidecard.extension import URI
from sidecard.tasks import handler, reception
from sidecard.tasks.reveal import ASKED
from sidecard.testing import FakeWebhooks, MemoryStore, key_of, served
from tests.security.calls import REQUESTS, STREAMS, Calls, metadata, told_by

BINDINGS = ["JSONRPC", "HTTP+JSON", "GRPC"]
USERS, TENANTS = ("ada", "bob"), ("", "acme")
WORLDS = list(itertools.product(USERS, TENANTS))
CALLERS = {name: {"api_key": True, "tenants": ["acme"], "grants": {"bank": ["pay"]}} for name in USERS} | {
    name: {"api_key": True, "grants": {"bank": ["approve"]}} for name in ("boss", "deputy")
}
MISSING = "f" * 32
HOOK = {"id": "hook", "url": "https://example.org/hook"}
agent = Agent(name="bank", version="1", description="Pays.", publisher="Tests", asks=("approve",))


@agent.skill(scope="pay", idempotent=False)
async def pay(text: str, task: Task) -> str:
    """Pays, once it is told where to."""
    answer = await task.ask("Where to?")
    return f"{text} to {answer.text}"


@agent.skill(scope="pay", idempotent=False)
async def spend(text: str, task: Task) -> str:
    """Pays, once somebody else allows it."""
    return (await task.ask("May I?", scope="approve", by_other=True)).text


@dataclass
class Victim:
    """A task of somebody: what its owner alone should know."""

    user: str
    tenant: str
    id: str
    context: str
    message: str

    @property
    def secrets(self):
        """Words that no stranger sees, unless it said them itself."""
        return [self.id, f"the secret of {self.user} in {self.tenant or 'no tenant'}"]


class Bank(Calls):
    """A served agent, and raw calls of it, also by A2A 0.3."""

    def __init__(self, desk, channel, client):
        super().__init__(channel, client)
        self.desk = desk
        self.ways["GRPC 0.3"] = self._grpc_03

    async def _grpc_03(self, operation, params, headers):
        method, request = in_03(operation, params)
        stub = a2a_v0_3_pb2_grpc.A2AServiceStub(self.channel)
        call = getattr(stub, method)(request, metadata=metadata("0.3", headers))
        return await told_by(call, stream=operation in STREAMS)

    async def open_task(self, user, tenant, binding="JSONRPC"):
        """A task that waits for its owner's answer and has a webhook."""
        name = f"of {user} in {tenant or 'no tenant'}"
        message = sending(f"m {name}", f"the secret {name}", metadata={URI: {"skill": "pay"}})
        _, answer = await self.call(binding, user, "SendMessage", {"message": message, "tenant": tenant})
        task = json.loads(answer[answer.index('{"jsonrpc') :])["result"]["task"]
        hook = {"taskId": task["id"], "tenant": tenant, **HOOK}
        await self.call(binding, user, "CreateTaskPushNotificationConfig", hook)
        return Victim(user, tenant, task["id"], task["contextId"], message["messageId"])

    async def state_of(self, victim):
        """All that its owner sees of a task."""
        ids = {"tenant": victim.tenant}
        hooks = await self.call("JSONRPC", victim.user, "ListTaskPushNotificationConfigs", ids | {"taskId": victim.id})
        return await self.call("JSONRPC", victim.user, "GetTask", ids | {"id": victim.id}), hooks


def in_03(operation, params):
    """The method and the message by which A2A 0.3 says the same over gRPC."""
    if operation in {"SendMessage", "SendStreamingMessage"}:
        sent = dict(params["message"])
        hook = params.get("configuration", {}).get("taskPushNotificationConfig")
        body = {"request": {"content": [{"text": part["text"]} for part in sent.pop("parts")], **sent}}
        body |= {"configuration": {"pushNotification": hook, "blocking": True}} if hook else {}
        return operation, ParseDict(body, v03.SendMessageRequest())
    hook = params.get("id", "")
    name = f"tasks/{params.get('taskId') or hook}"
    config = {"push_notification_config": {"id": hook, "url": params.get("url", "")}}
    return {
        "GetTask": ("GetTask", v03.GetTaskRequest(name=name, history_length=params.get("historyLength", 0))),
        "CancelTask": ("CancelTask", v03.CancelTaskRequest(name=name)),
        "SubscribeToTask": ("TaskSubscription", v03.TaskSubscriptionRequest(name=name)),
        "CreateTaskPushNotificationConfig": (
            operation, v03.CreateTaskPushNotificationConfigRequest(parent=name, config=config)
        ),
        "ListTaskPushNotificationConfigs": (
            "ListTaskPushNotificationConfig", v03.ListTaskPushNotificationConfigRequest(parent=name)
        ),
        "GetTaskPushNotificationConfig": (
            operation, v03.GetTaskPushNotificationConfigRequest(name=f"{name}/pushNotificationConfigs/{hook}")
        ),
        "DeleteTaskPushNotificationConfig": (
            operation, v03.DeleteTaskPushNotificationConfigRequest(name=f"{name}/pushNotificationConfigs/{hook}")
        ),
    }[operation]  # fmt: skip


def sending(message_id, text, **more):
    """A message to the skill `pay`, or the one that its metadata name."""
    return {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": text}], **more}


@pytest.fixture
async def bank():
    webhooks = FakeWebhooks()
    async with (
        served(agent, MemoryStore(), CALLERS, webhooks=webhooks) as desk,
        grpc.aio.insecure_channel(desk.grpc_target) as channel,
        desk.http() as client,
    ):
        yield Bank(desk, channel, client)


def on_a_task(task_id, tenant):
    """Every operation on a task, with each way of naming it."""
    ids = {"id": task_id, "tenant": tenant}
    hook = {"taskId": task_id, "tenant": tenant}
    answer = {"message": sending("an answer", "to me", taskId=task_id), "tenant": tenant}
    with_hook = {**answer, "configuration": {"taskPushNotificationConfig": HOOK}}
    named = {"message": {**answer["message"], "metadata": {URI: {"question": "1"}}}, "tenant": tenant}
    yield "GetTask", ids, {}
    yield "GetTask", {**ids, "historyLength": 5}, {}
    yield "GetTask", ids, ASKED
    yield "SubscribeToTask", ids, {}
    for place in ("1.0", "1.1", "2.0"):
        yield "SubscribeToTask", ids, {"last-event-id": place}
    yield "GetTaskPushNotificationConfig", {**hook, "id": "hook"}, {}
    yield "ListTaskPushNotificationConfigs", hook, {}
    yield "CreateTaskPushNotificationConfig", {**hook, **HOOK}, {}
    yield "DeleteTaskPushNotificationConfig", {**hook, "id": "hook"}, {}
    for operation in ("SendMessage", "SendStreamingMessage"):
        yield operation, answer, {}
        yield operation, with_hook, {}
        yield operation, named, {}
    yield "CancelTask", ids, {}


async def pry(bank, binding, victims, worlds=WORLDS):
    """Operations on tasks that are not one's own whose answer is not that for a task which isn't there."""
    found = []
    for user, tenant in worlds:
        nothing = [
            await bank.call(binding, user, name, params, **more) for name, params, more in on_a_task(MISSING, tenant)
        ]
        for victim in victims:
            if (victim.user, victim.tenant) == (user, tenant):
                continue
            for (name, params, more), expected in zip(on_a_task(victim.id, tenant), nothing, strict=True):
                status, told = await bank.call(binding, user, name, params, **more)
                if status == "open":  # a stream that was let in is so again; a slow answer is not
                    status, told = await bank.call(binding, user, name, params, **more)
                if (status, told.replace(victim.id, MISSING)) != expected:
                    print(f"{user} in {tenant!r}: {name} of {victim} told {status} {told}, instead of {expected}")
                    found.append(name)
    return found


async def pry_in_lists(bank, binding, victims):
    """Lists, by whatever filter or page token, that hold another's task."""
    found = []
    for user, tenant in WORLDS:
        others = [victim for victim in victims if (victim.user, victim.tenant) != (user, tenant)]
        queries = [{}, {"status": "TASK_STATE_INPUT_REQUIRED"}, {"includeArtifacts": True}]
        queries += [{"contextId": victim.context} for victim in others]
        queries += [{"pageToken": token, "pageSize": 1} for token in tokens()]
        for query in queries:
            _, told = await bank.call(binding, user, "ListTasks", {"tenant": tenant, **query})
            found += [query for victim in others if any(secret in told for secret in victim.secrets)]
            found += [query for word in ("unexpected", "INTERNAL") if word in told]
            if "contextId" in query and '"tasks":[{' in told.replace(" ", "").replace("\n", ""):
                found.append(query)
    return found


def tokens():
    """Page tokens that others were given, or that nobody was."""
    for places in ({0: 1}, {0: 2}, {0: 10**9}, {0: -1}, dict.fromkeys(range(20), 100), {-1: 5}, {0: math.inf}, []):
        yield base64.urlsafe_b64encode(msgpack.packb(places)).decode().rstrip("=")


async def reuse(bank, binding, victims):
    """First messages under another's messageId or contextId that meet that other's task, or change it."""
    found = []
    for (user, tenant), victim in itertools.product(WORLDS, victims):
        if (victim.user, victim.tenant) == (user, tenant):
            continue
        text = f"mine, not {victim.user}'s"
        number = f"{user} {tenant} {victim.user} {victim.tenant}"
        for message in (
            sending(victim.message, text),
            sending(victim.message, f"the secret of {victim.user} in {victim.tenant or 'no tenant'}"),
            sending(f"context {number}", text, contextId=victim.context),
            sending(f"reference {number}", text, referenceTaskIds=[victim.id]),
            sending(f"withdrawn {number}", text, metadata={URI: {"withdraw": True}}),
            sending(victim.message, text, metadata={URI: {"withdraw": True}}),
            sending(f"subject {number}", text, metadata={URI: {"subject": victim.user}}),
        ):
            _, answer = await bank.call(binding, user, "SendMessage", {"message": message, "tenant": tenant})
            _, listed = await bank.call(binding, user, "ListTasks", {"tenant": tenant, "pageSize": 100})
            if any(f'd":"{victim.id}"' in told.replace(": ", ":") for told in (answer, listed)):  # its id, or taskId
                found.append(message)
        query = {"tenant": victim.tenant, "contextId": victim.context}
        _, told = await bank.call(binding, victim.user, "ListTasks", query)
        if text in told:
            found.append("another's message in its context")
    return found


@pytest.mark.parametrize("binding", BINDINGS)
async def test_nobody_learns_or_changes_anything_of_anothers_tasks(bank, binding):
    """Two users, two tenants, each operation, each way of naming a task: as if it were not there."""
    victims = [await bank.open_task(*world) for world in WORLDS]
    before = [await bank.state_of(victim) for victim in victims]
    bank.tried = 0
    found = await pry(bank, binding, victims)
    found += await pry_in_lists(bank, binding, victims)
    found += await reuse(bank, binding, victims)
    tried = bank.tried
    print(f"{binding}: {tried} calls on others' tasks, {len(found)} told or did anything")
    assert found == []
    assert tried > 300
    assert [await bank.state_of(victim) for victim in victims] == before


async def test_nobody_learns_or_changes_anything_by_03(bank):
    """As above, of 0.3 over gRPC: it names no tenant, so that its callers stand in the default one."""
    victims = [await bank.open_task(*world) for world in WORLDS]
    before = [await bank.state_of(victim) for victim in victims]
    bank.tried = 0
    found = await pry(bank, "GRPC 0.3", victims, [("ada", ""), ("bob", "")])
    print(f"GRPC 0.3: {bank.tried} calls on others' tasks, {len(found)} told or did anything")
    assert found == []
    assert bank.tried > 100
    assert [await bank.state_of(victim) for victim in victims] == before


async def test_without_the_guard_03_tells_by_every_operation(bank, monkeypatch):
    """What that is worth."""
    let_in(monkeypatch)
    found = await pry(bank, "GRPC 0.3", [await bank.open_task("ada", "")], [("bob", "")])
    assert set(found) == REQUESTS.keys() - {"ListTasks", "GetExtendedAgentCard"}


def let_in(monkeypatch):
    """The guard is off: everybody has a right to every task."""
    for module in (handler, reception):
        monkeypatch.setattr(module, "may_see", lambda *_, **__: True)
        monkeypatch.setattr(module, "right_to", lambda *_, **__: "none was asked for")


@pytest.mark.parametrize("binding", BINDINGS)
async def test_without_the_guard_every_operation_tells(bank, binding, monkeypatch):
    """What the test above is worth: the same calls, when everybody may see everything."""
    let_in(monkeypatch)
    found = await pry(bank, binding, [await bank.open_task("ada", "")], [("bob", "acme")])
    assert set(found) == REQUESTS.keys() - {"ListTasks", "GetExtendedAgentCard"}


async def test_without_owners_lists_and_messages_meet(bank, monkeypatch):
    """The same, when all callers are one."""
    victims = [await bank.open_task("ada", "")]
    real = handler.caller_of

    def caller_of(context, tenant):
        caller = real(context, tenant)
        return type(caller)("ada", "ada", caller.scopes, caller.tenants)

    for module in (handler, reception):
        monkeypatch.setattr(module, "caller_of", caller_of)
    assert await pry_in_lists(bank, "JSONRPC", victims)
    assert await reuse(bank, "JSONRPC", victims)


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_tenant_of_others_is_closed_whatever_lies_in_it(bank, binding, monkeypatch):
    """Of a caller without that tenant all operations are refused alike, and without the guard they are not."""

    async def enter():
        answers = set()
        for task_id in (victim.id, MISSING):
            for name, params, more in on_a_task(task_id, "vault"):
                status, told = await bank.call(binding, "bob", name, params, **more)
                answers.add((status, "may not work in this tenant" in told))
            for name in ("ListTasks", "GetExtendedAgentCard"):
                status, told = await bank.call(binding, "bob", name, {"tenant": "vault"})
                answers.add((status, "may not work in this tenant" in told))
        return [answer for answer in answers if not answer[1]]

    victim = await bank.open_task("ada", "")
    assert await enter() == []
    monkeypatch.setattr("sidecard.callers.Caller.may_use", lambda *_: True)
    assert await enter()


@pytest.mark.parametrize("way", ["path and body", "path and query", "twice in the query"])
async def test_a_tenant_that_is_named_twice_opens_neither(bank, way):
    """The tenant that is checked is the one that is used, wherever a request has it."""
    victim = await bank.open_task("ada", "acme")
    headers = {"x-api-key": key_of("bob")}
    url, body = {
        "path and body": ("/rest/acme/message:send", {"tenant": "vault"}),
        "path and query": (f"/rest/acme/tasks/{victim.id}?tenant=vault", None),
        "twice in the query": (f"/rest/tasks/{victim.id}?tenant=vault&tenant=acme", None),
    }[way]
    if body is None:
        answers = [await bank.client.get(url, headers=headers)]
    else:
        answers = [await bank.client.post(url, headers=headers, json={"message": sending("x", "y"), **body})]
    answers.append(await bank.client.get(f"/rest/tasks/{victim.id}?tenant=", headers={"x-api-key": key_of("ada")}))
    assert all(answer.status_code in {400, 403, 404} for answer in answers), [a.text for a in answers]


async def watch(bank, watcher, number):
    """What somebody sees of a task of ada's behind a question that boss answers."""
    asked = {"message": sending(f"m{number}", "buy", metadata={URI: {"skill": "spend"}})}
    _, answer = await bank.call("JSONRPC", "ada", "SendMessage", asked)
    task_id = json.loads(answer[answer.index('{"jsonrpc') :])["result"]["task"]["id"]
    metadata = [("x-api-key", key_of(watcher)), ("a2a-version", "1.0")]
    stream = A2AServiceStub(bank.channel).SubscribeToTask(a2a_pb2.SubscribeToTaskRequest(id=task_id), metadata=metadata)
    assert (await stream.read()).task.id == task_id
    yes = {"message": sending("yes", "yes", taskId=task_id)}
    await bank.call("JSONRPC", "boss", "SendMessage", yes)
    events = []
    while (event := await stream.read()) is not grpc.aio.EOF:
        events.append(event)
    return events


async def test_who_might_have_answered_sees_no_more_once_it_is_answered(bank, monkeypatch):
    """What is somebody's for the time of a question ends with it, also on a stream that is open; not for its owner."""
    async with asyncio.timeout(10):
        assert await watch(bank, "deputy", 1) == []
        assert len(await watch(bank, "ada", 2)) > 1
        let_in(monkeypatch)
        assert len(await watch(bank, "deputy", 3)) > 1
