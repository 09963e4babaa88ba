"""For tests without Dapr: a store that decides as Dapr's do, agents that answer as told, an agent served in-process.

from sidecard.testing import FakeAgents, MemoryStore, served, started
"""

import asyncio
import contextlib
import hashlib
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc.aio
import httpx
from a2a.client import Client, ClientCallContext, ClientConfig, ClientFactory
from a2a.client.interceptors import AfterArgs, BeforeArgs, ClientCallInterceptor
from a2a.types import (
    AgentCard,
    Message,
    Role,
    SendMessageRequest,
    TaskPushNotificationConfig,
    TaskState,
    TaskStatus,
)
from a2a.types import Task as A2ATask
from fastapi import FastAPI

from sidecard.agent import Agent
from sidecard.agent_card import JSONRPC_PATH, PROTOCOL_VERSION, describe, for_caller
from sidecard.app import serve_on
from sidecard.callers import KEY_HEADER, Caller, Callers, CallersFile
from sidecard.card import SignedCard
from sidecard.egress import Destinations
from sidecard.errors import AgentUnavailable, StoreUnavailable, TaskConflict
from sidecard.extension import Sent
from sidecard.grpc_server import grpc_server
from sidecard.push import Outcome, Webhooks
from sidecard.settings import Settings
from sidecard.tasks import binding
from sidecard.tasks.cursor import Backoff
from sidecard.tasks.engine import Engine, system_clock
from sidecard.tasks.events import Update
from sidecard.tasks.handler import DurableRequestHandler
from sidecard.tasks.runner import RUNS
from sidecard.tasks.state import Place
from sidecard.tasks.states import TERMINAL
from sidecard.tasks.turns import Limits
from sidecard.tasks.watch import Delegator
from sidecard.telemetry import Telemetry
from sidecard.topic import cloud_event

KEY = b"only for tests"
APP_TOKEN = "the app's token in tests"  # noqa: S105 -- no secret


class MemoryStore:
    """A transactional state store in memory. `down` makes it answer nothing, `lose_answers` lose its answers.

    Several engines may use a `shared` one at once. One that isn't `atomic` decides each key alone, as Redis does.
    """

    def __init__(self, *, shared: bool = False, atomic: bool = True) -> None:
        self.shared = shared
        self.atomic = atomic
        self.data: dict[str, bytes] = {}
        self.down = False
        self.lose_answers = 0
        self.writes = 0

    async def write(
        self, creates: Sequence[tuple[str, bytes]], upserts: Mapping[str, bytes], deletes: Sequence[str] = ()
    ) -> None:
        """See tasks.store.StateStore."""
        await asyncio.sleep(0)
        self._answer()
        taken = {key for key, _ in creates if key in self.data}
        if taken and self.atomic:
            raise TaskConflict("a key exists already")
        self.data.update({key: value for key, value in creates if key not in taken} | dict(upserts))
        if taken:
            raise TaskConflict("a key exists already")
        for key in deletes:
            self.data.pop(key, None)
        self.writes += 1
        if self.lose_answers:
            self.lose_answers -= 1
            raise StoreUnavailable("the answer was lost")

    async def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """See tasks.store.StateStore."""
        await asyncio.sleep(0)
        self._answer()
        return {key: self.data[key] for key in keys if key in self.data}

    async def delete(self, keys: Sequence[str]) -> None:
        """See tasks.store.StateStore."""
        self._answer()
        for key in keys:
            self.data.pop(key, None)

    def _answer(self) -> None:
        if self.down:
            raise StoreUnavailable("the store is down")


@dataclass
class FakeAgents:
    """Other agents: `answers` holds, per agent, what becomes of each message in turn, a Task or an error to raise.

    A message that is sent again, under its messageId, has what became of it before. Those that are `down` are not
    reached by cancels; `canceled` are the others, with the task, and `withdrawn` with the messageId.
    """

    answers: dict[str, list[A2ATask | AgentUnavailable]] = field(default_factory=dict)
    sent: list[tuple[str, Message]] = field(default_factory=list)
    canceled: list[tuple[str, str]] = field(default_factory=list)
    withdrawn: list[tuple[str, str]] = field(default_factory=list)
    hold: asyncio.Event | None = None
    down: set[str] = field(default_factory=set)
    _given: dict[str, A2ATask | AgentUnavailable] = field(default_factory=dict)

    async def follow(self, agent: str, message: Message, tenant: str, accepted: Callable[[str], None]) -> A2ATask:
        """See tasks.engine.Delegator."""
        self.sent.append((agent, message))
        if message.message_id not in self._given:
            self._given[message.message_id] = self.answers[agent].pop(0)
        answer = self._given[message.message_id]
        if isinstance(answer, AgentUnavailable):
            raise answer
        if self.hold is not None or answer.status.state not in TERMINAL:
            accepted(answer.id)
        if self.hold is not None:
            await self.hold.wait()
        return answer

    async def cancel(self, agent: str, task_id: str, tenant: str) -> None:
        """See tasks.engine.Delegator."""
        if agent in self.down:
            raise AgentUnavailable(f"{agent} is down")
        self.canceled.append((agent, task_id))

    async def withdraw(self, agent: str, message: Message, tenant: str) -> None:
        """See tasks.engine.Delegator."""
        if agent in self.down:
            raise AgentUnavailable(f"{agent} is down")
        self.withdrawn.append((agent, message.message_id))


class FakeWebhooks(Webhooks):
    """Receivers of push notifications: `received` are the (url, webhook-id, body) that were delivered, in order.

    `answers` holds, per url, what becomes of each attempt in turn; then everything is delivered. Nothing is sent.
    """

    def __init__(self, allowed: str = "public") -> None:
        super().__init__(Destinations.parse(allowed))
        self.received: list[tuple[str, str, bytes]] = []
        self.attempts: list[tuple[str, str]] = []
        self.answers: dict[str, list[Outcome]] = {}
        self.hold: dict[str, asyncio.Event] = {}

    async def send(self, config: TaskPushNotificationConfig, webhook_id: str, body: bytes) -> Outcome:
        """See push.Webhooks."""
        self.attempts.append((config.url, webhook_id))
        if config.url in self.hold:
            await self.hold[config.url].wait()
        answers = self.answers.get(config.url)
        outcome = answers.pop(0) if answers else Outcome(delivered=True)
        if outcome.delivered:
            self.received.append((config.url, webhook_id, body))
        return outcome


class FakeTopic:
    """A topic: `published` are the events as CloudEvents, in order. `answers` holds what becomes of each attempt."""

    def __init__(self, agent: str = "shop") -> None:
        self._agent = agent
        self.published: list[dict[str, Any]] = []
        self.answers: list[Outcome] = []
        self.hold: asyncio.Event | None = None

    async def publish(self, meta: Mapping[str, str], place: Place, at: int, event: Update) -> Outcome:
        """See topic.Topic."""
        if self.hold is not None:
            await self.hold.wait()
        outcome = self.answers.pop(0) if self.answers else Outcome(delivered=True)
        if outcome.delivered:
            self.published.append(cloud_event(self._agent, meta, place, at, event))
        return outcome


def ended(task_id: str, *values: object, state: TaskState = TaskState.TASK_STATE_COMPLETED, says: str = "") -> A2ATask:
    """A task of another agent, at rest: with an artifact of these values, and a status that says something."""
    task = A2ATask(id=task_id, context_id=f"c-{task_id}", status=TaskStatus(state=state))
    if values:
        task.artifacts.append(binding.artifact_of("result", "result", *values))
    if says:
        task.status.message.CopyFrom(
            binding.agent_says(says, f"{task_id}:status", task_id=task_id, context_id=task.context_id)
        )
    return task


def message(text: str = "", message_id: str = "m1", *, data: object = None, task_id: str = "") -> Message:
    """A user's message."""
    values = [value for value in (text, data) if value]
    parts = [part for value in values for part in binding.parts_of(value)]
    return Message(role=Role.ROLE_USER, message_id=message_id, parts=parts, task_id=task_id)


def caller(agent: Agent, name: str = "ada", *scopes: str) -> Caller:
    """A caller that may do everything at this agent, or just what is named."""
    return Caller(name=name, subject=name, scopes=frozenset(scopes) or agent.scopes)


@contextlib.asynccontextmanager
async def started(
    agent: Agent,
    store: MemoryStore,
    agents: Delegator | None = None,
    *,
    webhooks: Webhooks | None = None,
    topic: FakeTopic | None = None,
    backoff: Backoff | None = None,
    runs: Limits = RUNS,
) -> AsyncIterator[Engine]:
    """An engine of this agent on a store; leaving the block is like stopping the process.

    `agents` are the others: FakeAgents, or whatever follows and cancels as they do.
    `runs` says how many skills may run at once.
    """
    engine = Engine(
        agent,
        store,
        task_id_key=KEY,
        delegator=agents or FakeAgents(),
        scopes_of=lambda _: agent.scopes,
        sender=webhooks,
        topic=topic,
        backoff=backoff,
        runs=runs,
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


Binding = Literal["JSONRPC", "HTTP+JSON", "GRPC"]


@dataclass
class Served:
    """An agent over all its bindings: `app` for HTTP, a real server at `grpc_target`, its `engine` to look behind.

    `signed` is the card that it shows at the well-known path; none, until a test sets one.
    """

    agent: Agent
    engine: Engine
    app: FastAPI
    card: AgentCard
    grpc_target: str
    stack: contextlib.AsyncExitStack
    signed: SignedCard | None = None

    def http(self, caller: str = "", **headers: str) -> httpx.AsyncClient:
        """An httpx client whose requests this caller makes, with its key; nobody, when it is "". Streams come whole."""
        sent = {"A2A-Version": PROTOCOL_VERSION} | ({KEY_HEADER: key_of(caller)} if caller else {}) | headers
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(
            transport=transport, base_url=self.card.supported_interfaces[0].url.removesuffix(JSONRPC_PATH), headers=sent
        )

    async def send(
        self,
        by: str,
        text: str = "",
        *,
        skill: str = "",
        data: object = None,
        task: A2ATask | None = None,
        again: str = "",
    ) -> A2ATask:
        """Send a message as this caller, and return its task at rest; with `task`, as an answer to that one.

        `data` is a model, a dict or a File. `again` is a messageId, for a message that is sent more than once. Raises
        the SDK's A2AError when it is refused.
        """
        sent = message(text, again or secrets.token_hex(8), data=data, task_id=task.id if task else "")
        request = SendMessageRequest(message=Sent(skill=skill).attach(sent))
        return [event.task async for event in self.client("JSONRPC", by).send_message(request)][-1]

    def client(self, binding: Binding, caller: str, *, streaming: bool = False) -> Client:
        """The A2A SDK's client for one binding; its `send_message` streams when told to."""
        card = AgentCard()
        card.CopyFrom(self.card)
        del card.supported_interfaces[:]
        card.supported_interfaces.extend(i for i in self.card.supported_interfaces if i.protocol_binding == binding)
        config = ClientConfig(
            httpx_client=self.http(),
            grpc_channel_factory=grpc.aio.insecure_channel,
            supported_protocol_bindings=[binding],
            streaming=streaming,
        )
        client = ClientFactory(config).create(card, [_WithKey(caller)])
        self.stack.push_async_callback(client.close)
        return client


class _WithKey(ClientCallInterceptor):
    """Sends a caller's key with every call, whatever the binding."""

    def __init__(self, caller: str) -> None:
        self._caller = caller

    async def before(self, args: BeforeArgs) -> None:
        context = args.context = args.context or ClientCallContext()
        context.service_parameters = {**(context.service_parameters or {}), KEY_HEADER: key_of(self._caller)}

    async def after(self, args: AfterArgs) -> None:
        pass


def key_of(caller: str) -> str:
    """The API key of a caller of a served agent."""
    return f"{caller}'s key"


@contextlib.asynccontextmanager
async def served(
    agent: Agent,
    store: MemoryStore,
    callers: Mapping[str, Mapping[str, object]],
    agents: FakeAgents | None = None,
    *,
    webhooks: Webhooks | None = None,
    max_body_bytes: int = 4_194_304,
    clock: Callable[[], int] = system_clock,
) -> AsyncIterator[Served]:
    """Serve an agent in this process. `callers` is what agents/callers.yaml has under that name.

    Leaving the block is like stopping the process; serving again on the same store is a restart. `clock` gives the
    tasks' time, UTC in milliseconds.

    Callers with `api_key` hold `key_of(name)`; what comes with APP_TOKEN comes through the own sidecar.
    """
    file = CallersFile.model_validate({"callers": callers})
    keys = {hashlib.sha256(key_of(name).encode()).hexdigest(): name for name in callers}
    known = Callers(agent.name, file, app_token=APP_TOKEN, api_keys=keys)
    settings = Settings(app_id=agent.name, grpc_port=_free_port(), max_body_bytes=max_body_bytes)
    card = describe(agent, settings)
    async with contextlib.AsyncExitStack() as stack:
        engine = Engine(
            agent,
            store,
            task_id_key=KEY,
            delegator=agents or FakeAgents(),
            scopes_of=known.scopes_of,
            clock=clock,
            sender=webhooks,
        )
        await engine.start()
        stack.push_async_callback(engine.stop)
        handler = DurableRequestHandler(
            lambda: engine,
            scopes_of=known.scopes_of,
            extended_card=lambda caller: for_caller(card, agent, caller.scopes),
            webhooks=webhooks,
        )
        app = FastAPI(openapi_url=None)
        agent_served = Served(agent, engine, app, card, settings.grpc_target or "", stack)
        serve_on(app, handler, known.identify, lambda: agent_served.signed, max_body_bytes)
        server = grpc_server(handler, settings, Telemetry(), known.identify)
        await server.start()
        stack.push_async_callback(server.stop, 0)
        yield agent_served


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
