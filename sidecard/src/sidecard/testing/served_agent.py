"""An agent in this process over all its bindings."""

import contextlib
import hashlib
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import grpc.aio
import httpx
from a2a.client import Client, ClientCallContext, ClientConfig, ClientFactory
from a2a.client.interceptors import AfterArgs, BeforeArgs, ClientCallInterceptor
from a2a.types import AgentCard, SendMessageRequest
from a2a.types import Task as A2ATask
from fastapi import FastAPI

from sidecard.agent import Agent
from sidecard.agent_card import JSONRPC_PATH, PROTOCOL_VERSION, describe
from sidecard.app import serve_on
from sidecard.audit import Audit, Audited
from sidecard.callers import KEY_HEADER, BearerTokens, Callers, CallersFile, Denied
from sidecard.card import SignedCard
from sidecard.door import Door
from sidecard.extended_card import ExtendedCards
from sidecard.extension import Asked, Granted, Sent
from sidecard.grpc_server import grpc_server
from sidecard.http_server import served_over_tls
from sidecard.protected_resource import ProtectedResource
from sidecard.push import Webhooks
from sidecard.quotas import Quotas
from sidecard.screening.screen import Screen
from sidecard.security_schemes import ways_in
from sidecard.settings import Settings
from sidecard.tasks.engine import Engine, system_clock
from sidecard.tasks.handler import DurableRequestHandler
from sidecard.tasks.tokens import TaskTokens
from sidecard.telemetry import Telemetry
from sidecard.testing.engine import KEY, guard_of
from sidecard.testing.fake_agents import FakeAgents
from sidecard.testing.memory_store import MemoryStore
from sidecard.testing.messages import message
from sidecard.testing.publisher import Publisher
from sidecard.tls import TlsFiles

APP_TOKEN = "the app's token in tests"  # noqa: S105 -- no secret

Binding = Literal["JSONRPC", "HTTP+JSON", "GRPC"]


@dataclass
class Served:
    """An agent over all its bindings: `app` for HTTP, a real server at `grpc_target`, its `engine` to look behind.

    `denied` says who is revoked. `signed` is the card that it shows at the well-known path; none, until a test sets it.
    """

    agent: Agent
    engine: Engine
    app: FastAPI
    card: AgentCard
    grpc_target: str
    stack: contextlib.AsyncExitStack
    denied: Denied
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
        granted: bool | None = None,
    ) -> A2ATask:
        """Send a message as this caller, and return its task at rest; with `task`, as an answer to that one.

        With `granted` the answer grants, or refuses, the authority that the task waits for.

        `data` is a model, a dict or a File. `again` is a messageId, for a message that is sent more than once. Raises
        the SDK's A2AError when it is refused.
        """
        sent = message(text, again or secrets.token_hex(8), data=data, task_id=task.id if task else "")
        named = Sent(skill=skill)
        if task and granted is not None:
            asked = Asked.of(task.status.message) or Asked(question="")
            grant = Granted(authority=asked.authority, granted=granted)
            named = Sent(skill=skill, question=asked.question, grant=grant)
        request = SendMessageRequest(message=named.attach(sent))
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
        client = ClientFactory(config).create(card, [WithKey(caller)])
        self.stack.push_async_callback(client.close)
        return client


class WithKey(ClientCallInterceptor):
    """Sends a caller's key with every call, whatever the binding."""

    def __init__(self, caller: str) -> None:
        self._caller = caller

    async def before(self, args: BeforeArgs) -> None:
        """Add the key."""
        context = args.context = args.context or ClientCallContext()
        context.service_parameters = {**(context.service_parameters or {}), KEY_HEADER: key_of(self._caller)}

    async def after(self, args: AfterArgs) -> None:
        """Leave the answer as it is."""


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
    issuers: Mapping[str, Mapping[str, object]] | None = None,
    issuers_http: httpx.AsyncClient | None = None,
    webhooks: Webhooks | None = None,
    max_body_bytes: int = 4_194_304,
    clock: Callable[[], int] = system_clock,
    quotas: Quotas | None = None,
    tls: TlsFiles | None = None,
    publisher: Publisher | None = None,
    screen: Screen | None = None,
    exchanging: bool = False,
) -> AsyncIterator[Served]:
    """Serve an agent in this process. `callers` and `issuers` are what agents/callers.yaml has under these names.

    Leaving the block is like stopping the process; serving again on the same store is a restart. `clock` gives the
    tasks' time, UTC in milliseconds. With a `publisher` what people are asked and say is signed and verified. `screen`
    inspects what goes in and out; without one nothing is inspected.

    With `tls` there is a real server of HTTP at the card's URLs, too, and gRPC is over TLS.

    When `exchanging`, the tokens that callers come with are kept for their tasks.

    Without `quotas` callers may do as much as they like.

    Callers with `api_key` hold `key_of(name)`; what comes with APP_TOKEN comes through the own sidecar. Access tokens
    are for the card's base URL; issuers are asked by `issuers_http`.
    """
    file = CallersFile.model_validate({"callers": callers, "issuers": issuers or {}})
    keys = {hashlib.sha256(key_of(name).encode()).hexdigest(): name for name in callers}
    denied = Denied()
    over_tls = {"tls_port": _free_port(), **{f"tls_{name}": path for name, path in asdict(tls).items()}} if tls else {}
    settings = Settings(app_id=agent.name, grpc_port=_free_port(), **over_tls)
    settings = settings.model_copy(update={"max_body_bytes": max_body_bytes})  # also more than an operator may set
    tokens = BearerTokens(file.issuers, settings.token_audience, issuers_http) if file.issuers else None
    known = Callers(agent.name, file, app_token=APP_TOKEN, api_keys=keys, tokens=tokens, denied=denied)
    async with contextlib.AsyncExitStack() as stack:
        metadata = {}
        if tokens is not None:
            stack.push_async_callback(tokens.aclose)
            metadata = await tokens.metadata()
        ways = ways_in(agent.name, file, metadata, certificates=settings.tls_client_ca is not None)
        card = describe(agent, settings, ways)
        engine = Engine(
            agent,
            store,
            task_id_key=KEY,
            delegator=agents or FakeAgents(),
            scopes_of=known.scopes_of,
            clock=clock,
            sender=webhooks,
            vouching=publisher.vouching(agent.name, known.enters) if publisher else None,
            denied=denied,
            guard=guard_of(agent, screen),
            tokens=TaskTokens(denied) if exchanging else None,
        )
        if screen is not None:
            await screen.start()
        await engine.start()
        stack.push_async_callback(engine.stop)
        sign = publisher.signer(agent.name) if publisher else lambda unsigned: unsigned
        operations = DurableRequestHandler(
            lambda: engine,
            scopes_of=known.scopes_of,
            extended_card=ExtendedCards(lambda: card, agent, sign).of,
            webhooks=webhooks,
            denied=denied,
        )
        audit = Audit(lambda: engine.journal)
        handler, door = Audited(operations, audit), Door(known.identify, quotas, audit)
        app = FastAPI(openapi_url=None)
        agent_served = Served(agent, engine, app, card, settings.grpc_target or "", stack, denied)
        resource = ProtectedResource.of(agent.name, settings, file)
        serve_on(app, handler, door, lambda: agent_served.signed, max_body_bytes, resource=resource)
        server = grpc_server(handler, settings, Telemetry(), door)
        await server.start()
        stack.push_async_callback(server.stop, 0)
        await stack.enter_async_context(served_over_tls(app, settings))
        yield agent_served


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
