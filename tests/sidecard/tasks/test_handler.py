"""The eleven operations, the same over JSON-RPC, HTTP+JSON and gRPC: what each gives, to whom, and what it refuses."""

import asyncio
import contextlib
import json

import grpc.aio
import pytest
from a2a.client import A2AClientError
from a2a.types import (
    AuthenticationInfo,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    Part,
    SendMessageConfiguration,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from a2a.utils.errors import (
    A2AError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from google.protobuf.json_format import MessageToDict
from pydantic import BaseModel

from sidecard import Agent, Task
from sidecard.extension import URI, Sent
from sidecard.strict_json import MAX_VALUES
from sidecard.tasks import engine, listing, pending, reception
from sidecard.tasks.intake import Intake, Overtaken
from sidecard.tasks.push_configs import MOST_WEBHOOKS
from sidecard.tasks.tombstone import TaskExpired
from sidecard.testing import FakeWebhooks, MemoryStore, key_of, message, served
from tests.waiting import until

S = TaskState
BINDINGS = ["JSONRPC", "HTTP+JSON", "GRPC"]
ALL = ["look", "choose", "slow", "broken", "talk", "pay"]
CALLERS = {
    "ada": {"api_key": True, "tenants": ["acme"], "grants": {"shop": ALL}},
    "bob": {"api_key": True, "tenants": ["acme"], "grants": {"shop": ALL}},
    "boss": {"api_key": True, "grants": {"shop": ["approve", "look"]}},
    "desk": {"api_key": True, "speaks_for_others": True, "grants": {"shop": ALL}},
}


class Order(BaseModel):
    """What the test skills take."""

    what: str = "hat"


class Receipt(BaseModel):
    """What they give."""

    said: str


class Shop:
    """A served agent whose skills wait at a gate, ask, and fail."""

    def __init__(self) -> None:
        self.agent = agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests", asks=("approve",))
        self.gate = asyncio.Event()
        self.looks = 0
        self.paying = False

        @agent.skill(scope="look", idempotent=True)
        async def look(order: Order, task: Task) -> Receipt:
            """Look."""
            self.looks += 1
            return Receipt(said=f"a {order.what}")

        @agent.skill(scope="choose", idempotent=False)
        async def choose(order: Order, task: Task) -> Receipt:
            """Ask the caller."""
            answer = await task.ask("Which colour?")
            return Receipt(said=f"{answer.text} for {answer.by}")

        @agent.skill(scope="choose", idempotent=False)
        async def spend(order: Order, task: Task) -> Receipt:
            """Ask somebody else, who holds the right."""
            answer = await task.ask("May this be bought?", scope="approve", by_other=True)
            return Receipt(said=f"{answer.text} by {answer.by}")

        @agent.skill(scope="slow", idempotent=False)
        async def slow(order: Order, task: Task) -> Receipt:
            """Wait at the gate."""
            await self.gate.wait()
            return Receipt(said="at last")

        @agent.skill(scope="pay", idempotent=False)
        async def pay(order: Order, task: Task) -> Receipt:
            """Have an effect that takes as long as the gate is closed."""

            async def paid() -> str:
                self.paying = True
                await self.gate.wait()
                return "paid"

            return Receipt(said=await task.once("pay", paid))

        @agent.skill(scope="talk", idempotent=False)
        async def talk(order: Order, task: Task) -> Receipt:
            """Tell how it goes, then wait at the gate."""
            await task.step("begin", asyncio.sleep, 0)
            await task.progress("half way")
            await self.gate.wait()
            return Receipt(said="at last")


@pytest.fixture(params=BINDINGS)
def binding(request):
    return request.param


@pytest.fixture
def shop():
    return Shop()


@pytest.fixture
def webhooks():
    return FakeWebhooks()


@pytest.fixture
async def desk(shop, webhooks):
    async with served(shop.agent, MemoryStore(), CALLERS, webhooks=webhooks) as desk:
        yield desk


def asking(
    skill="look", message_id="m1", *, task_id="", context_id="", tenant="", text="", question="", subject="", **conf
):
    """A SendMessageRequest; `conf` goes into its configuration."""
    sent = message(text, message_id, data=None if text else {"what": "hat"}, task_id=task_id)
    sent.context_id = context_id
    Sent(skill=skill, question=question, subject=subject).attach(sent)
    return SendMessageRequest(message=sent, tenant=tenant, configuration=SendMessageConfiguration(**conf))


async def send(client, *args, **kwargs):
    """The task that comes back from a blocking SendMessage."""
    async with asyncio.timeout(10):
        [event] = [event async for event in client.send_message(asking(*args, **kwargs))]
        return event.task


def said(task):
    return task.artifacts[-1].parts[0].data.struct_value["said"]


@contextlib.contextmanager
def refused(kind, words=""):
    """What an SDK client raises for an error that A2A names."""
    with pytest.raises(kind) as caught:
        yield caught
    assert words in caught.value.message


@contextlib.contextmanager
def forbidden():
    with pytest.raises(A2AClientError) as caught:
        yield caught
    assert any(code in str(caught.value) for code in ("-31403", "HTTP Error 403", "PERMISSION_DENIED"))


async def outcome(call):
    """What a client sees of a call: its result, or the kind and words of its error."""
    try:
        return await call
    except A2AError as error:
        return type(error), error.message


async def followed(desk):
    """Wait until somebody follows a task."""
    await until(lambda: any(live._followers for live in desk.engine._lives.values()))


async def first_of(stream):
    async with contextlib.aclosing(stream) as events:
        return await anext(events)


# -- messages --------------------------------------------------------------------------------------------------------


async def test_a_blocking_message_returns_the_task_at_rest(desk, binding):
    """SendMessage waits for a terminal state, and gives artifacts, history and both stamps."""
    task = await send(desk.client(binding, "ada"))
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert said(task) == "a hat"
    assert [m.message_id for m in task.history] == ["m1"]
    assert task.metadata["createdAt"].endswith("Z")
    assert task.metadata["lastModified"] >= task.metadata["createdAt"]


async def test_a_blocking_message_returns_when_somebody_must_answer_and_again_when_it_is_done(desk, binding):
    """INPUT_REQUIRED ends the wait; the answer goes on with the same task."""
    client = desk.client(binding, "ada")
    asked = await send(client, "choose")
    assert asked.status.state == S.TASK_STATE_INPUT_REQUIRED
    assert asked.status.message.parts[0].text == "Which colour?"
    done = await send(client, "choose", "m2", task_id=asked.id, text="red")
    assert (done.id, said(done)) == (asked.id, "red for ada")
    assert [m.parts[0].text for m in done.history[-2:]] == ["Which colour?", "red"]


async def test_return_immediately_does_not_wait(desk, shop, binding):
    """The task comes back while it works; it ends later."""
    client = desk.client(binding, "ada")
    task = await send(client, "slow", return_immediately=True)
    assert task.status.state in (S.TASK_STATE_SUBMITTED, S.TASK_STATE_WORKING)
    shop.gate.set()
    async with desk.engine.borrow(task.id) as live:
        await live.settled()
    assert said(await client.get_task(GetTaskRequest(id=task.id))) == "at last"


async def test_history_length_limits_what_comes_back(desk, binding):
    """0 means none, 1 the last, unset all; negative is refused."""
    client = desk.client(binding, "ada")
    asked = await send(client, "choose", history_length=0)
    assert not asked.history
    done = await send(client, "choose", "m2", task_id=asked.id, text="red", history_length=1)
    assert [m.message_id for m in done.history] == ["m2"]
    lengths = [len((await client.get_task(GetTaskRequest(id=done.id, history_length=n))).history) for n in (0, 1, 2, 9)]
    assert lengths == [0, 1, 2, 3]
    assert len((await client.get_task(GetTaskRequest(id=done.id))).history) == 3
    with refused(InvalidParamsError, "negative"):
        await client.get_task(GetTaskRequest(id=done.id, history_length=-1))
    with refused(InvalidParamsError, "negative"):
        await send(client, "look", "m3", history_length=-1)


async def test_a_stream_begins_with_the_task_and_ends_with_its_end(desk, binding):
    """The first event is the Task, the last a terminal status; artifacts come between."""
    client = desk.client(binding, "ada", streaming=True)
    async with asyncio.timeout(10):
        events = [event async for event in client.send_message(asking("look"))]
    kinds = [event.WhichOneof("payload") for event in events]
    assert kinds[0] == "task"
    last = events[-1]
    state = last.task.status.state if kinds[-1] == "task" else last.status_update.status.state
    assert state == S.TASK_STATE_COMPLETED


async def test_a_slow_tasks_stream_tells_every_event_in_order(desk, shop, binding):
    """Task, then working, artifact and completed: whole and in order."""
    client = desk.client(binding, "ada", streaming=True)

    async def read():
        return [event async for event in client.send_message(asking("slow"))]

    reading = asyncio.create_task(read())
    await followed(desk)
    shop.gate.set()
    first, *rest = await asyncio.wait_for(reading, 10)
    assert first.HasField("task")
    kinds = [event.WhichOneof("payload") for event in rest]
    assert kinds[-2:] == ["artifact_update", "status_update"]
    assert rest[-1].status_update.status.state == S.TASK_STATE_COMPLETED
    stamps = [e.status_update.status.timestamp.ToMilliseconds() for e in rest if e.HasField("status_update")]
    assert stamps == sorted(set(stamps))


async def test_a_reader_that_leaves_is_forgotten_at_once(desk):
    """A stream that its client cancels leaves nothing in memory, and the task goes on."""
    async with grpc.aio.insecure_channel(desk.grpc_target) as channel:
        metadata = (("x-api-key", key_of("ada")), ("a2a-version", "1.0"))
        call = A2AServiceStub(channel).SendStreamingMessage(asking("choose"), metadata=metadata)
        task = (await call.read()).task
        call.cancel()
        await until(lambda: task.id not in desk.engine._lives)
    task = await desk.client("GRPC", "ada").get_task(GetTaskRequest(id=task.id))
    assert task.status.state == S.TASK_STATE_INPUT_REQUIRED


async def test_a_message_without_a_skill_goes_to_the_one_that_fits_or_is_sent_back(desk):
    """With several that fit, the caller is told how to say which."""
    client = desk.client("JSONRPC", "ada")
    with refused(InvalidParamsError, URI):
        await send(client, skill="")
    task = await send(desk.client("JSONRPC", "boss"), skill="")
    assert said(task) == "a hat"


async def test_skills_are_closed_to_callers_without_their_scope(desk, binding):
    """Forbidden, and no task comes to be; an unknown skill is the caller's mistake."""
    client = desk.client(binding, "boss")
    with forbidden():
        await send(client, "slow")
    with refused(InvalidParamsError, "there is no skill 'steal'"):
        await send(client, "steal")
    assert (await client.list_tasks(ListTasksRequest())).total_size == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.ClearField("message_id"), "message_id"),
        (lambda m: m.ClearField("parts"), "parts"),
        (lambda m: m.ClearField("role"), "role"),
        (lambda m: setattr(m, "role", 2), "ROLE_USER"),
        (lambda m: m.parts.add(), "every part"),
        (lambda m: setattr(m, "message_id", "x" * 257), "messageId is longer"),
        (lambda m: setattr(m, "context_id", "x" * 257), "contextId is longer"),
        (lambda m: m.metadata.update({URI: "no object"}), "malformed"),
        (lambda m: m.metadata.update({URI: {"skill": 5}}), "malformed"),
    ],
)
async def test_what_a_message_lacks_is_named(desk, binding, change, words):
    """Each is InvalidParams, in words that say which field, and nothing is stored."""
    client = desk.client(binding, "ada")
    request = asking()
    change(request.message)
    with refused(InvalidParamsError, words):
        [_ async for _ in client.send_message(request)]
    assert (await client.list_tasks(ListTasksRequest())).total_size == 0


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize(
    "fill",
    [
        lambda m, n: m.parts[0].data.struct_value.get_or_create_list("a").extend([0] * n),
        lambda m, n: m.metadata.get_or_create_list("a").extend([0] * n),
        lambda m, n: m.parts.extend([Part(text="x")] * n),
        lambda m, n: m.extensions.extend(["x"] * n),
        lambda m, n: m.reference_task_ids.extend(["x"] * n),
    ],
    ids=["data", "metadata", "parts", "extensions", "references"],
)
async def test_a_message_of_very_many_values_is_not_taken(desk, binding, fill):
    """It would keep all others waiting: each value costs far more to read and to give out than its bytes tell."""
    client = desk.client(binding, "ada")
    request = asking()
    fill(request.message, MAX_VALUES)
    with pytest.raises(A2AError, match=f"{MAX_VALUES} values|400 Bad Request"):
        [_ async for _ in client.send_message(request)]
    assert (await client.list_tasks(ListTasksRequest())).total_size == 0


async def test_a_task_takes_so_many_messages_and_no_more(desk, shop, monkeypatch):
    """It is in memory as a whole: whoever goes on and on is told to start a new one. Repeated messages are fine."""
    client = desk.client("JSONRPC", "ada")
    task = await send(client, "slow", return_immediately=True)
    monkeypatch.setattr(reception, "MOST_MESSAGES", 3)
    for number in (2, 3, 2):
        await send(client, "slow", f"m{number}", task_id=task.id, text="more", return_immediately=True)
    with refused(UnsupportedOperationError, "as many messages"):
        await send(client, "slow", "m4", task_id=task.id, text="more", return_immediately=True)
    monkeypatch.undo()
    monkeypatch.setattr(reception, "MOST_TASK_BYTES", 10)
    with refused(UnsupportedOperationError, "as many messages"):
        await send(client, "slow", "m4", task_id=task.id, text="more", return_immediately=True)
    shop.gate.set()


async def test_a_page_of_large_tasks_ends_early(desk, monkeypatch):
    """A page is what memory holds, at least one task; the next one goes on where it ended."""
    client = desk.client("JSONRPC", "ada")
    sent = [(await send(client, message_id=f"m{number}")).id for number in range(3)]
    monkeypatch.setattr(listing, "MOST_PAGE_BYTES", 10)
    listed, token = [], ""
    for _ in sent:
        page = await client.list_tasks(ListTasksRequest(page_token=token))
        listed += [task.id for task in page.tasks]
        token = page.next_page_token
        assert len(page.tasks) == 1
    assert (sorted(listed), token) == (sorted(sent), "")


async def test_data_that_could_not_be_given_back_is_not_taken(desk):
    """GRPC carries NaN and any nesting: stored, no JSON binding could show them, and no restart could read them."""
    client = desk.client("GRPC", "ada")
    request = asking()
    request.message.parts[0].data.struct_value.update({"what": float("nan")})
    with refused(InvalidParamsError, "finite"):
        [_ async for _ in client.send_message(request)]
    request = asking()
    inner = request.message.parts[0].data
    for _ in range(29):
        inner = inner.struct_value.fields["a"]
    inner.bool_value = True
    with refused(InvalidParamsError, "nested"):
        [_ async for _ in client.send_message(request)]


async def test_the_deepest_data_that_is_taken_is_read_back(shop):
    """What the limit lets in survives storing: a new engine folds it."""
    store = MemoryStore()
    async with served(shop.agent, store, CALLERS) as desk:
        request = asking("choose")
        inner = request.message.parts[0].data
        for _ in range(27):
            inner = inner.struct_value.fields["a"]
        inner.bool_value = True
        [event] = [e async for e in desk.client("GRPC", "ada").send_message(request)]
    async with served(shop.agent, store, CALLERS) as desk:
        for binding in BINDINGS:
            task = await desk.client(binding, "ada").get_task(GetTaskRequest(id=event.task.id))
            assert task.status.state == S.TASK_STATE_INPUT_REQUIRED


# -- one message, one task -------------------------------------------------------------------------------------------


async def test_one_message_on_all_bindings_at_once_is_one_task(desk):
    """Nine sends of the same messageId: one task, the same answer."""
    clients = [desk.client(binding, "ada") for binding in BINDINGS] * 3
    tasks = await asyncio.gather(*(send(client) for client in clients))
    assert len({task.id for task in tasks}) == 1
    assert {said(task) for task in tasks} == {"a hat"}


async def test_the_same_message_id_with_other_content_is_refused(desk, binding):
    """Neither a second task nor the first one's answer."""
    client = desk.client(binding, "ada")
    await send(client, "look", "m1")
    with refused(InvalidParamsError, "used before"):
        await send(client, "look", "m1", text="another")


async def test_message_ids_are_each_callers_and_tenants_own(desk, binding):
    """The same id from another caller, or in another tenant, is another task."""
    ada, bob = desk.client(binding, "ada"), desk.client(binding, "bob")
    ids = {(await send(ada)).id, (await send(bob)).id, (await send(ada, tenant="acme")).id}
    assert len(ids) == 3


# -- reading ---------------------------------------------------------------------------------------------------------


async def test_lists_are_in_order_of_change_and_pages_lose_and_repeat_nothing(desk, binding):
    """Seven tasks in pages of three, newest first; a task that changed comes first; the last page has no token."""
    client = desk.client(binding, "ada")
    ids = [(await send(client, "choose" if n == 2 else "look", f"m{n}")).id for n in range(7)]
    await send(client, "choose", "answer", task_id=ids[2], text="red")
    listed, token, pages = [], "", 0
    while True:
        page = await client.list_tasks(ListTasksRequest(page_size=3, page_token=token))
        assert page.total_size == 7
        assert page.page_size == 3
        listed += [task.id for task in page.tasks]
        pages, token = pages + 1, page.next_page_token
        if not token:
            break
    assert listed == [ids[2], *(i for i in reversed(ids) if i != ids[2])]
    assert pages == 3


async def test_a_full_last_page_has_no_token(desk, binding):
    """Older lines of tasks that are listed already don't count as a next page."""
    client = desk.client(binding, "ada")
    for n in range(3):
        asked = await send(client, "choose", f"m{n}")
        await send(client, "choose", f"a{n}", task_id=asked.id, text="red")
    page = await client.list_tasks(ListTasksRequest(page_size=3))
    assert (len(page.tasks), page.next_page_token) == (3, "")


async def test_tasks_made_while_somebody_pages_change_nothing_below(desk, binding):
    """A page token marks a place, not an offset."""
    client = desk.client(binding, "ada")
    ids = [(await send(client, "look", f"m{n}")).id for n in range(4)]
    first = await client.list_tasks(ListTasksRequest(page_size=2))
    await send(client, "look", "another")
    second = await client.list_tasks(ListTasksRequest(page_size=2, page_token=first.next_page_token))
    assert [t.id for t in (*first.tasks, *second.tasks)] == ids[::-1]


async def test_lists_are_filtered_by_state_context_and_time(desk, binding):
    """Each filter, and its totalSize."""
    client = desk.client(binding, "ada")
    done = await send(client, "look", "m1", context_id="trip")
    asked = await send(client, "choose", "m2", context_id="trip")
    other = await send(client, "look", "m3")

    async def found(**filters):
        response = await client.list_tasks(ListTasksRequest(**filters))
        assert response.total_size == len(response.tasks)
        return [task.id for task in response.tasks]

    assert await found(status=S.TASK_STATE_INPUT_REQUIRED) == [asked.id]
    assert await found(status=S.TASK_STATE_COMPLETED) == [other.id, done.id]
    assert await found(context_id="trip") == [asked.id, done.id]
    assert await found(context_id="trip", status=S.TASK_STATE_COMPLETED) == [done.id]
    assert await found(context_id="nowhere") == []
    assert await found(status_timestamp_after=asked.status.timestamp) == [other.id, asked.id]


async def test_lists_have_artifacts_only_on_request_and_as_much_history_as_asked(desk, binding):
    """Artifacts are left out unless asked for."""
    client = desk.client(binding, "ada")
    await send(client)
    [plain] = (await client.list_tasks(ListTasksRequest())).tasks
    [full] = (await client.list_tasks(ListTasksRequest(include_artifacts=True))).tasks
    [bare] = (await client.list_tasks(ListTasksRequest(history_length=0))).tasks
    assert (len(plain.artifacts), len(full.artifacts)) == (0, 1)
    assert (len(plain.history), len(bare.history)) == (1, 0)


@pytest.mark.parametrize("field", [{"page_size": 0}, {"page_size": 101}, {"page_size": -1}, {"page_token": "?"}])
async def test_list_parameters_out_of_range_are_refused(desk, binding, field):
    """InvalidParams, not a guess."""
    with refused(InvalidParamsError):
        await desk.client(binding, "ada").list_tasks(ListTasksRequest(**field))


async def test_a_task_that_tells_its_progress_stays_listed(desk, shop, binding):
    """Progress changes the status, and its time, but not the state; the list follows."""
    client = desk.client(binding, "ada", streaming=False)
    task = await send(client, "talk", return_immediately=True)
    async with desk.engine.borrow(task.id) as live:
        await until(lambda: live.folded.task.status.HasField("message"))
    now = await client.get_task(GetTaskRequest(id=task.id))
    assert now.status.message.parts[0].text == "half way"
    response = await client.list_tasks(ListTasksRequest())
    assert [t.id for t in response.tasks] == [task.id]
    assert response.total_size == 1
    shop.gate.set()


async def test_subscribing_begins_with_the_current_task_and_ends_with_its_end(desk, shop, binding):
    """The current task first, then what happens; an ended task is refused."""
    client = desk.client(binding, "ada")
    streaming = desk.client(binding, "ada", streaming=True)
    task = await send(client, "slow", return_immediately=True)

    async def read():
        return [event async for event in streaming.subscribe(SubscribeToTaskRequest(id=task.id))]

    reading = asyncio.create_task(read())
    await followed(desk)
    shop.gate.set()
    first, *rest = await asyncio.wait_for(reading, 10)
    assert first.task.id == task.id
    assert rest[-1].status_update.status.state == S.TASK_STATE_COMPLETED
    with refused(UnsupportedOperationError, "COMPLETED"):
        await first_of(streaming.subscribe(SubscribeToTaskRequest(id=task.id)))


# -- cancelling ------------------------------------------------------------------------------------------------------


async def test_cancel_ends_a_task_once(desk, binding):
    """CANCELED comes back; a second cancel, and a message, are refused."""
    client = desk.client(binding, "ada")
    asked = await send(client, "choose")
    canceled = await client.cancel_task(CancelTaskRequest(id=asked.id))
    assert canceled.status.state == S.TASK_STATE_CANCELED
    with refused(TaskNotCancelableError, "CANCELED"):
        await client.cancel_task(CancelTaskRequest(id=asked.id))
    with refused(UnsupportedOperationError, "CANCELED"):
        await send(client, "choose", "m2", task_id=asked.id, text="red")


async def test_a_running_task_is_canceled(desk, binding):
    """Also without a question."""
    client = desk.client(binding, "ada")
    task = await send(client, "slow", return_immediately=True)
    canceled = await asyncio.wait_for(client.cancel_task(CancelTaskRequest(id=task.id)), 10)
    assert canceled.status.state == S.TASK_STATE_CANCELED


async def withdraw(client, *args, **kwargs):
    request = asking(*args, **kwargs)
    Sent(skill=args[0], withdraw=True).attach(request.message)
    async with asyncio.timeout(10):
        return [event async for event in client.send_message(request)][-1].task


@pytest.mark.parametrize("skill", ["look", "slow"])
async def test_a_message_that_is_withdrawn_before_it_came_starts_nothing(desk, shop, binding, skill):
    """Its task is canceled from the beginning, and so it is when the message comes after all."""
    client = desk.client(binding, "ada")
    task = await withdraw(client, skill)
    assert (task.status.state, shop.looks) == (S.TASK_STATE_CANCELED, 0)
    late = await send(client, skill)
    assert (late.id, late.status.state, len(late.artifacts)) == (task.id, S.TASK_STATE_CANCELED, 0)
    assert not desk.engine.journal.slot.todo.all


async def test_a_message_that_is_withdrawn_is_canceled(desk, binding):
    """Its task runs, asks or has ended; once more does no harm."""
    client = desk.client(binding, "ada")
    for number, (skill, end) in enumerate([("slow", "CANCELED"), ("choose", "CANCELED"), ("look", "COMPLETED")]):
        task = await send(client, skill, f"m{number}", return_immediately=skill == "slow")
        for _ in range(2):
            withdrawn = await withdraw(client, skill, f"m{number}")
            assert (withdrawn.id, S.Name(withdrawn.status.state)) == (task.id, f"TASK_STATE_{end}")


async def test_a_message_whose_task_has_expired_has_nothing_to_withdraw(desk, binding, monkeypatch):
    """It is answered like a cancel of that task; sent again without that word it is refused as expired."""

    async def expired(*_, **__):
        raise TaskExpired("it has expired")

    monkeypatch.setattr(desk.engine.intake, "create", expired)
    client = desk.client(binding, "ada")
    with refused(TaskNotFoundError, ""):
        await withdraw(client, "look")
    with refused(A2AError, "it has expired"):
        await send(client, "look")


async def test_only_ones_own_first_messages_can_be_withdrawn(desk, binding):
    """Another caller's message of the same id is another one; an answer is none; a right is needed as for sending."""
    ada, bob = desk.client(binding, "ada"), desk.client(binding, "bob")
    task = await send(ada, "choose")
    assert (await withdraw(bob, "look")).id != task.id
    assert (await ada.get_task(GetTaskRequest(id=task.id))).status.state == S.TASK_STATE_INPUT_REQUIRED
    with refused(InvalidParamsError, "only a first message"):
        await withdraw(ada, "choose", "m2", task_id=task.id, text="red")
    with refused(A2AError, "other content"):
        await withdraw(ada, "choose", text="another")
    assert (await ada.get_task(GetTaskRequest(id=task.id))).status.state == S.TASK_STATE_INPUT_REQUIRED


# -- webhooks --------------------------------------------------------------------------------------------------------


def webhook(task_id="", config_id="", url="https://example.org/hook"):
    authentication = AuthenticationInfo(scheme="Bearer", credentials="hush")
    return TaskPushNotificationConfig(
        task_id=task_id, id=config_id, url=url, token="hush", authentication=authentication
    )


async def test_webhooks_are_kept_shown_without_credentials_and_deleted(desk, binding):
    """Create, get, list and delete; nothing that comes back has a token or credentials."""
    client = desk.client(binding, "ada")
    task = await send(client, "choose")
    made = await client.create_task_push_notification_config(webhook(task.id))
    named = await client.create_task_push_notification_config(webhook(task.id, "mine"))
    got = await client.get_task_push_notification_config(
        GetTaskPushNotificationConfigRequest(task_id=task.id, id=made.id)
    )
    everything = await client.list_task_push_notification_configs(
        ListTaskPushNotificationConfigsRequest(task_id=task.id)
    )
    assert (made.url, named.id, got) == ("https://example.org/hook", "mine", made)
    assert list(everything.configs) == [made, named]
    assert "hush" not in str([made, named, got, everything])
    assert made.authentication.scheme == "Bearer"
    for _ in range(2):
        await client.delete_task_push_notification_config(
            DeleteTaskPushNotificationConfigRequest(task_id=task.id, id=made.id)
        )
    with refused(TaskNotFoundError, "no such"):
        await client.get_task_push_notification_config(
            GetTaskPushNotificationConfigRequest(task_id=task.id, id=made.id)
        )


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.1/",
        "https://[::1]/",
        "http://example.org/",
        "https://a:b@example.org/",
        "",
        "ftp://x/",
        "https://",
        "https:///x",
        "javascript:alert(1)",
        "http://[",
        "x" * 3000,
    ],
)
async def test_a_webhook_needs_an_http_address(desk, binding, url):
    """Refused before anything is stored, also when it comes with a message."""
    client = desk.client(binding, "ada")
    with refused(InvalidParamsError):
        await send(client, "choose", "m0", task_push_notification_config=webhook(url=url))
    assert (await client.list_tasks(ListTasksRequest())).total_size == 0
    task = await send(client, "choose")
    with refused(InvalidParamsError):
        await client.create_task_push_notification_config(webhook(task.id, url=url))


async def test_a_webhook_that_comes_with_a_message_is_kept_once(desk, binding):
    """However often the message is sent; a task that ended at once is no error."""
    client = desk.client(binding, "ada")
    task = await send(client, "choose", task_push_notification_config=webhook())
    await until(lambda: not desk.engine.outbox)
    writes = desk.engine.store.writes
    assert await send(client, "choose", task_push_notification_config=webhook()) == task
    assert desk.engine.store.writes == writes
    configs = await client.list_task_push_notification_configs(ListTaskPushNotificationConfigsRequest(task_id=task.id))
    assert len(configs.configs) == 1
    for _ in range(2):
        task = await send(client, "look", "m2", task_push_notification_config=webhook())
        assert task.status.state == S.TASK_STATE_COMPLETED


async def test_a_webhook_that_comes_with_a_message_is_told_of_all_that_follows_it(desk, webhooks, binding):
    """From the first event on with the first message, from its own answer on with an answer."""
    client = desk.client(binding, "ada")
    task = await send(client, "choose", task_push_notification_config=webhook(url="https://a.example/"))
    later = webhook(url="https://b.example/")
    await send(client, "choose", "m2", task_id=task.id, text="red", task_push_notification_config=later)
    await until(lambda: not desk.engine.outbox)
    heard = {url: [] for url in ("https://a.example/", "https://b.example/")}
    for url, _, body in webhooks.received:
        event = json.loads(body)
        heard[url].append(event.get("statusUpdate", {}).get("status", {}).get("state", "artifact"))
    answered = ["TASK_STATE_WORKING", "artifact", "TASK_STATE_COMPLETED"]
    begun = ["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING", "TASK_STATE_INPUT_REQUIRED"]
    assert heard == {"https://a.example/": begun + answered, "https://b.example/": answered}


async def test_only_the_owner_has_a_webhook_told_of_a_task(desk, binding):
    """Who may answer its question may not listen to all that follows; without a webhook the answer is taken."""
    task = await send(desk.client(binding, "ada"), "spend")
    boss = desk.client(binding, "boss")
    with forbidden():
        await send(boss, "spend", "m2", task_id=task.id, text="yes", task_push_notification_config=webhook())
    await send(boss, "spend", "m2", task_id=task.id, text="yes")
    configs = await desk.client(binding, "ada").list_task_push_notification_configs(
        ListTaskPushNotificationConfigsRequest(task_id=task.id)
    )
    assert not configs.configs


async def test_a_task_has_so_many_webhooks_and_no_more(desk, binding):
    """Set anew, one counts once."""
    client = desk.client(binding, "ada")
    task = await send(client, "choose")
    for number in [*range(MOST_WEBHOOKS), 0]:
        await client.create_task_push_notification_config(webhook(task.id, f"w{number}"))
    with refused(InvalidParamsError, "at most"):
        await client.create_task_push_notification_config(webhook(task.id))
    with refused(InvalidParamsError, "at most"):
        await send(client, "choose", "m2", task_id=task.id, text="red", task_push_notification_config=webhook())


@pytest.mark.parametrize("token", ["a\nb", "whsec_c2hvcnQ="])
async def test_a_token_that_can_not_be_used_as_it_should_is_refused(desk, binding, token):
    """No header of the caller's own, no weak secret."""
    wrong = webhook()
    wrong.token = token
    with refused(InvalidParamsError):
        await send(desk.client(binding, "ada"), "choose", task_push_notification_config=wrong)


async def test_without_webhooks_every_operation_on_them_says_so(shop, binding):
    """Before anything is stored or looked up (§3.3.4)."""
    async with served(shop.agent, MemoryStore(), CALLERS) as desk:
        client = desk.client(binding, "ada")
        with refused(PushNotificationNotSupportedError):
            await send(client, "choose", "m0", task_push_notification_config=webhook())
        assert (await client.list_tasks(ListTasksRequest())).total_size == 0
        task = await send(client, "choose")
        for task_id in (task.id, "x"):
            calls = calls_on(desk, binding, "ada", task_id)
            for name in ("create", "config", "configs", "delete"):
                with refused(PushNotificationNotSupportedError):
                    await calls[name]()


# -- who sees what ---------------------------------------------------------------------------------------------------


def calls_on(desk, binding, caller, task_id, tenant=""):
    """Every operation that names a task."""
    client, streaming = desk.client(binding, caller), desk.client(binding, caller, streaming=True)
    ids = {"task_id": task_id, "tenant": tenant}
    return {
        "get": lambda: client.get_task(GetTaskRequest(id=task_id, tenant=tenant)),
        "cancel": lambda: client.cancel_task(CancelTaskRequest(id=task_id, tenant=tenant)),
        "subscribe": lambda: first_of(streaming.subscribe(SubscribeToTaskRequest(id=task_id, tenant=tenant))),
        "answer": lambda: send(client, "choose", "guess", task_id=task_id, text="red", tenant=tenant),
        "create": lambda: client.create_task_push_notification_config(
            TaskPushNotificationConfig(url="https://example.org/", **ids)
        ),
        "config": lambda: client.get_task_push_notification_config(GetTaskPushNotificationConfigRequest(id="x", **ids)),
        "configs": lambda: client.list_task_push_notification_configs(ListTaskPushNotificationConfigsRequest(**ids)),
        "delete": lambda: client.delete_task_push_notification_config(
            DeleteTaskPushNotificationConfigRequest(id="x", **ids)
        ),
    }


async def test_strangers_missing_and_other_tenants_tasks_are_told_apart_by_nobody(desk, binding):
    """On every operation: one error in the same words, whether a task is somebody else's, elsewhere, or not there."""
    ada = desk.client(binding, "ada")
    here = (await send(ada, "choose")).id
    there = (await send(ada, "choose", tenant="acme")).id
    missing, odd = "f" * 32, "no such id, and no possible one"
    cases = [
        ("bob", here, ""),
        ("bob", there, "acme"),
        ("bob", missing, ""),
        ("bob", odd, ""),
        ("ada", there, ""),
        ("ada", here, "acme"),
        ("ada", missing, "acme"),
    ]
    for name in calls_on(desk, binding, "ada", here):
        seen = {await outcome(calls_on(desk, binding, *case)[name]()) for case in cases}
        assert seen == {(TaskNotFoundError, "Task not found")}, name
    for task_id, tenant in ((here, ""), (there, "acme")):
        task = await ada.get_task(GetTaskRequest(id=task_id, tenant=tenant))
        assert task.status.state == S.TASK_STATE_INPUT_REQUIRED


@pytest.mark.parametrize("task_id", ["x" * 65, "log:1", "../1", "a b", "\u0000", "||", "ё"])
async def test_ids_that_none_can_have_never_become_keys(desk, binding, monkeypatch, task_id):
    """They are refused before the store is asked."""
    asked = []

    async def read(keys):
        asked.extend(keys)
        return {}

    with monkeypatch.context() as patched:
        patched.setattr(desk.engine.store, "read", read)
        patched.setattr(desk.engine.journal.store, "read", read)
        for name in ("get", "cancel", "subscribe", "answer") if binding != "HTTP+JSON" else ("answer",):
            with refused(TaskNotFoundError):
                await calls_on(desk, binding, "ada", task_id)[name]()
    assert not asked


async def test_lists_show_a_callers_own_tasks_of_one_tenant(desk, binding):
    """Neither another caller's nor another tenant's, whatever is asked for."""
    ada, bob = desk.client(binding, "ada"), desk.client(binding, "bob")
    here, there = await send(ada), await send(ada, "look", "m2", tenant="acme", context_id=(await send(ada)).context_id)
    assert [t.id for t in (await ada.list_tasks(ListTasksRequest())).tasks] == [here.id]
    assert [t.id for t in (await ada.list_tasks(ListTasksRequest(tenant="acme"))).tasks] == [there.id]
    for query in (ListTasksRequest(), ListTasksRequest(tenant="acme"), ListTasksRequest(context_id=here.context_id)):
        response = await bob.list_tasks(query)
        assert (len(response.tasks), response.total_size, response.next_page_token) == (0, 0, "")


async def test_a_tenant_that_a_caller_may_not_use_is_refused_before_any_look(desk, binding):
    """The same for every operation and id."""
    client = desk.client(binding, "boss")
    task = await send(desk.client(binding, "ada"), "choose", tenant="acme")
    for task_id in (task.id, "f" * 32):
        for call in calls_on(desk, binding, "boss", task_id, "acme").values():
            with forbidden():
                await call()
    for call in (
        client.list_tasks(ListTasksRequest(tenant="acme")),
        client.get_extended_agent_card(GetExtendedAgentCardRequest(tenant="acme")),
        send(client, "look", tenant="acme"),
    ):
        with forbidden():
            await call


async def test_the_extended_card_has_the_skills_that_its_reader_may_invoke(desk, binding):
    """And their schemas; no others."""
    for caller, expected in (("boss", {"look"}), ("ada", {"look", "choose", "spend", "slow", "pay", "talk"})):
        card = await desk.client(binding, caller).get_extended_agent_card(GetExtendedAgentCardRequest())
        assert {skill.id for skill in card.skills} == expected
        assert set(MessageToDict(card.capabilities.extensions[0].params)["skills"]) == expected


# -- who answers -----------------------------------------------------------------------------------------------------


async def test_an_approval_is_given_by_somebody_else_who_holds_the_right(desk, binding):
    """The owner may not approve; whoever holds the right sees the task as long as it is asked, and answers."""
    ada, bob, boss = (desk.client(binding, name) for name in ("ada", "bob", "boss"))
    task = await send(ada, "spend")
    with forbidden():
        await send(ada, "", "m2", task_id=task.id, text="yes")
    with refused(TaskNotFoundError):
        await send(bob, "", "m2", task_id=task.id, text="yes")
    assert (await boss.get_task(GetTaskRequest(id=task.id))).status.message.parts[0].text == "May this be bought?"
    with refused(TaskNotFoundError):
        await boss.cancel_task(CancelTaskRequest(id=task.id))
    done = await send(boss, "", "m2", task_id=task.id, text="yes")
    assert said(done) == "yes by boss"
    with refused(TaskNotFoundError):
        await boss.get_task(GetTaskRequest(id=task.id))
    with refused(TaskNotFoundError):
        await send(boss, "", "m3", task_id=task.id, text="again")
    assert said(await ada.get_task(GetTaskRequest(id=task.id))) == "yes by boss"


async def test_an_approval_that_is_sent_again_is_recognised(desk, binding):
    """Its answer was lost on the way back: the same message gets the same task, though it is no longer asked."""
    ada, boss = desk.client(binding, "ada"), desk.client(binding, "boss")
    task = await send(ada, "spend")
    first = await send(boss, "", "m2", task_id=task.id, text="yes")
    again = await send(boss, "", "m2", task_id=task.id, text="yes")
    assert again == first
    with refused(InvalidParamsError, "used before"):
        await send(boss, "", "m2", task_id=task.id, text="no")
    with refused(TaskNotFoundError):
        await send(desk.client(binding, "bob"), "", "m2", task_id=task.id, text="yes")


async def test_nobody_approves_their_own_through_somebody_who_speaks_for_them(desk, binding):
    """The subject counts, on whose behalf a message comes; it is believed of those only who may speak for others."""
    client = desk.client(binding, "desk")
    task = await send(client, "spend", subject="boss")
    with forbidden():
        await send(client, "", "m2", task_id=task.id, text="yes", subject="boss")
    with forbidden():
        await send(client, "", "m2", task_id=task.id, text="yes", subject="ada")
    other = await send(client, "spend", "m3", subject="ada")
    with forbidden():  # nothing proves that the boss has said so
        await send(client, "", "m4", task_id=other.id, text="yes", subject="boss")
    ada = desk.client(binding, "ada")
    own = await send(ada, "spend")
    with forbidden():
        await send(ada, "", "m2", task_id=own.id, text="yes", subject="boss")


async def test_an_answer_names_the_open_question_or_none(desk, binding):
    """Another question's answer, and another context's, are refused."""
    client = desk.client(binding, "ada")
    task = await send(client, "choose")
    question = MessageToDict(task.status.message.metadata)[URI]["question"]
    with refused(InvalidParamsError, "not open"):
        await send(client, "", "m2", task_id=task.id, text="red", question="another")
    with refused(InvalidParamsError, "contextId"):
        await send(client, "", "m2", task_id=task.id, text="red", context_id="another")
    done = await send(client, "", "m2", task_id=task.id, context_id=task.context_id, text="red", question=question)
    assert said(done) == "red for ada"


# -- what goes wrong -------------------------------------------------------------------------------------------------


async def test_what_nobody_foresaw_is_told_without_details(desk, binding, monkeypatch, caplog):
    """The log has the traceback; the caller learns that it failed, on every operation and in streams."""

    def broken(*_args, **_kwargs):
        raise RuntimeError("secret detail")

    client, streaming = desk.client(binding, "ada"), desk.client(binding, "ada", streaming=True)
    calls = list(calls_on(desk, binding, "ada", "f" * 32).values())
    calls += [
        lambda: send(client, "choose", "m2"),
        lambda: send(streaming, "choose", "m3"),
        lambda: client.list_tasks(ListTasksRequest()),
    ]
    await send(client)
    with monkeypatch.context() as patched:
        patched.setattr(desk.engine, "borrow", broken)
        for call in calls:
            with pytest.raises(A2AError) as caught:
                await call()
            assert "unexpectedly" in str(caught.value)
            assert "secret" not in str(caught.value)
    assert "secret detail" in caplog.text


async def test_a_store_that_is_down_is_unavailable(shop, binding):
    """Nothing was accepted, and it may be tried again: 503, UNAVAILABLE, -31503."""
    store = MemoryStore()
    async with served(shop.agent, store, CALLERS) as desk:
        store.down = True
        with pytest.raises(A2AClientError) as caught:
            await desk.client(binding, "ada").get_task(GetTaskRequest(id="f" * 32))
        store.down = False
    assert any(code in str(caught.value) for code in ("-31503", "HTTP Error 503", "UNAVAILABLE"))


async def test_who_is_overtaken_is_looked_at_again(desk, monkeypatch):
    """Another replica moved the task on while an answer was written: what may be said to it now is another matter."""
    client = desk.client("JSONRPC", "ada")
    task = await send(client, "choose")
    looked, real = [], Intake.answer

    async def overtaken(*given, **named):
        looked.append("answer")
        if len(looked) < 6:
            raise Overtaken
        return await real(*given, **named)

    check = reception.check_may_answer
    monkeypatch.setattr(reception, "check_may_answer", lambda *g, **n: (looked.append("look"), check(*g, **n))[1])
    monkeypatch.setattr(Intake, "answer", overtaken)
    answered = await send(client, "choose", "m2", task_id=task.id, text="red")
    assert answered.status.state == S.TASK_STATE_COMPLETED
    assert looked == ["look", "answer"] * 3


async def test_who_is_overtaken_by_another_answer_sees_the_task_no_more(desk, monkeypatch):
    """What let them see it was its question."""
    ada, boss, real = desk.client("JSONRPC", "ada"), desk.client("JSONRPC", "boss"), Intake.inspect_answer
    task = await send(ada, "spend")
    meanwhile = ["m2"]

    async def inspect_answer(intake, live, caller, message, grant):
        while meanwhile:
            await send(boss, "spend", meanwhile.pop(), task_id=task.id, text="yes")
        return await real(intake, live, caller, message, grant)

    monkeypatch.setattr(Intake, "inspect_answer", inspect_answer)
    with refused(TaskNotFoundError, ""):
        await send(boss, "spend", "m3", task_id=task.id, text="no")


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_cancel_that_takes_long_is_told_as_it_stands(desk, shop, binding, monkeypatch):
    """An effect under way is waited for: its task is not canceled yet, but will be, and nobody is told otherwise."""
    monkeypatch.setattr(engine, "CANCEL_SECONDS", 0.05)
    client = desk.client(binding, "ada")
    task = await send(client, "pay", return_immediately=True)
    await until(lambda: shop.paying)
    told = await client.cancel_task(CancelTaskRequest(id=task.id))
    assert told.status.state == S.TASK_STATE_WORKING
    shop.gate.set()

    async def canceled():
        return (await client.get_task(GetTaskRequest(id=task.id))).status.state == S.TASK_STATE_CANCELED

    async with asyncio.timeout(10):
        while not await canceled():  # noqa: ASYNC110 -- another process's doing
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_message_that_no_task_holds_is_refused_as_too_large(desk, binding, monkeypatch):
    """What is stored of it may be more than was sent."""
    monkeypatch.setattr(pending, "MOST_RECORD_BYTES", 10)
    with pytest.raises(A2AError, match=r"use a URL|413"):
        await send(desk.client(binding, "ada"), "look")
