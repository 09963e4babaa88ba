"""The only wiring: what an agent gets from its sidecar, in which order, and what it keeps doing while it is served."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import httpx
from a2a.types import AgentCard
from pydantic import TypeAdapter, ValidationError
from starlette.types import ASGIApp

from sidecard.agent import Agent
from sidecard.agent_card import describe
from sidecard.audit import Audit, Audited
from sidecard.callers import BearerTokens, Caller, Callers, CallersFile, Claims, Denied
from sidecard.callers.discovery import Metadata
from sidecard.card import SignedCard
from sidecard.credentials import Tokens, parse_clients
from sidecard.delegation import ForeignFile, Mesh, Outside
from sidecard.door import Door
from sidecard.egress import Destinations
from sidecard.errors import ConfigurationError, StoreUnavailable
from sidecard.extended_card import ExtendedCards
from sidecard.grpc_server import grpc_server
from sidecard.http_server import served_over_tls
from sidecard.outbound import Outbound
from sidecard.own_card import OwnCard, keep_current
from sidecard.protected_resource import ProtectedResource
from sidecard.push import Webhooks
from sidecard.refusals import Unavailable
from sidecard.registry import Registry, keep_enrolled, lets_of
from sidecard.revocations import Hearing, Revocations
from sidecard.screening.choice import screen_of
from sidecard.screening.finding import ScreenUnavailable
from sidecard.screening.guard import Guard
from sidecard.screening.vault import Vault
from sidecard.security_schemes import ways_in
from sidecard.settings import Settings
from sidecard.sidecar import MeshTransport, read_secret, sidecar_client
from sidecard.tasks.cursor import Backoff
from sidecard.tasks.engine import Engine
from sidecard.tasks.handler import DurableRequestHandler
from sidecard.tasks.identity import task_id_keys
from sidecard.tasks.retention import Keep
from sidecard.tasks.store import DaprStateStore
from sidecard.tasks.tokens import TaskTokens
from sidecard.telemetry import Telemetry
from sidecard.topic import Topic, TopicName
from sidecard.trust import TrustStore
from sidecard.vouching import Vouching

log = logging.getLogger("sidecard")

SIDECAR_RETRY_SECONDS = 0.2
SIDECAR_REMINDER_SECONDS = 5.0
STORE_RETRY_SECONDS = 1.0
ISSUER_RETRY_SECONDS = 10.0
STARTING = "This agent is starting: its sidecar is not up yet; try again in a second"
_API_KEYS = TypeAdapter(dict[str, str])


class Service:
    """One agent while it is served. It listens at once, and is ready when its sidecar has given it what it needs."""

    def __init__(self, agent: Agent, settings: Settings, telemetry: Telemetry) -> None:
        self.agent = agent
        self.settings = settings
        self.telemetry = telemetry
        self.failure: ConfigurationError | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self.ready = False
        self._file = CallersFile.read(settings.callers_file)
        self._callers: Callers | None = None
        self._denied = Denied()
        self._engine: Engine | None = None
        self._follow_keys: Callable[[], Coroutine[Any, Any, None]]
        self._tokens = BearerTokens(self._file.issuers, settings.token_audience) if self._file.issuers else None
        self._card = OwnCard(self._described({}))
        self._extended = ExtendedCards(self._card.present, self.agent, self._card.as_signed)
        self.resource = ProtectedResource.of(agent.name, settings, self._file)
        self._mesh = httpx.AsyncClient(transport=MeshTransport(settings), timeout=httpx.Timeout(60.0, connect=5.0))
        telemetry.instrument_client(self._mesh)
        self._registry = Registry(self._mesh)
        destinations = Destinations.parse(settings.webhooks)
        self._webhooks = Webhooks(destinations) if destinations else None
        self._topic = TopicName.parse(settings.topic)
        self.audit = Audit(lambda: self.engine().journal)
        operations = DurableRequestHandler(
            self.engine,
            scopes_of=self.scopes_of,
            extended_card=self._extended_card,
            webhooks=self._webhooks,
            denied=self._denied,
        )
        self.handler = Audited(operations, self.audit)
        self.door = Door(self.identify, self._file.limits(), self.audit)

    # -- what the routes ask ------------------------------------------------------------------------------------------

    def engine(self) -> Engine:
        """The engine. Raises Unavailable until the service is ready."""
        if self._engine is None or not self.ready:
            raise Unavailable(STARTING)
        return self._engine

    async def identify(self, claims: Claims) -> Caller | None:
        """The verified caller of a request. Raises Unavailable until keys can be checked."""
        if self._callers is None:
            raise Unavailable(STARTING)
        return await self._callers.identify(claims)

    def scopes_of(self, name: str) -> frozenset[str]:
        """What somebody holds at this agent."""
        return self._callers.scopes_of(name) if self._callers else frozenset()

    def signed_card(self) -> SignedCard | None:
        """The public card, once it is signed."""
        return self._card.signed

    def _extended_card(self, caller: Caller) -> AgentCard:
        if self._card.signed is None:
            raise Unavailable(STARTING)
        return self._extended.of(caller)

    # -- life ---------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lifespan(self, app: ASGIApp) -> AsyncIterator[None]:
        """Connect to the sidecar beside serving, since the sidecar waits for this app to listen first."""
        connecting = asyncio.create_task(self._run(app), name="service")
        try:
            yield
        finally:
            self.ready = False
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await connecting
            await self._mesh.aclose()
            if self._tokens is not None:
                await self._tokens.aclose()
            if self._webhooks is not None:
                await self._webhooks.aclose()
            await asyncio.to_thread(self.telemetry.shutdown)

    async def _run(self, app: ASGIApp) -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                engine = await self._connect(stack, app)
                self.ready = True
                log.info("%s is ready", self.agent.name)
                name, lets = self.agent.name, lets_of(self._file, self.agent.name)
                enrolment = keep_enrolled(self._registry, name, self.settings.card_url, lets=lets)
                await _first_of(enrolment, self._hearing.run(), self._follow_keys(), engine.superseded.wait())
                raise ConfigurationError("another process serves its tasks from the same store now; stop one of them")
        except ConfigurationError as error:
            log.critical("%s can't run: %s", self.agent.name, error)
            self._fail(error)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("%s stopped serving", self.agent.name)
            self._fail(ConfigurationError("this is a defect; the log has the traceback"))
        finally:
            self.ready = False

    def _fail(self, failure: ConfigurationError) -> None:
        self.failure = failure
        self.on_failure()

    async def _connect(self, stack: contextlib.AsyncExitStack, app: ASGIApp) -> Engine:
        settings, name = self.settings, self.agent.name
        sidecar = await stack.enter_async_context(sidecar_client(settings))
        self._card.sign(await self._secret(sidecar, name, "signing-key"))
        api_keys = _api_keys(await self._secret(sidecar, name, "api-keys"))
        task_id_key, *former_keys = task_id_keys(await self._secret(sidecar, name, "task-id-key"))
        trust = TrustStore.parse(await self._secret(sidecar, "trust", "publishers"))
        outside = await self._outside(sidecar, stack)
        self._follow_keys = partial(keep_current, self._card, trust, name, partial(read_secret, sidecar))
        screen = screen_of(settings)
        token = settings.app_api_token.get_secret_value()
        if self._tokens is not None:
            completing = asyncio.create_task(self._complete_card(self._tokens), name="card")
            stack.callback(completing.cancel)
        store = DaprStateStore(
            http_port=settings.dapr_http_port,
            grpc_port=settings.dapr_grpc_port,
            token=settings.dapr_api_token.get_secret_value(),
        )
        stack.push_async_callback(store.close)
        await self._patiently(store.recognise)
        quiet = await stack.enter_async_context(httpx.AsyncClient(transport=MeshTransport(settings), timeout=5.0))
        self._hearing = Hearing(name, self._denied, Revocations(quiet), store)
        await self._patiently(self._hearing.begin)
        callers = self._callers = Callers(
            name, self._file, app_token=token, api_keys=api_keys, tokens=self._tokens, denied=self._denied
        )
        guard = None
        if screen is not None:
            stack.push_async_callback(screen.close)
            await self._patiently(screen.start, "screen")
            guard = Guard(self.agent, screen, Vault(name, task_id_key, former_keys))
        topic = None
        if self._topic is not None:
            dapr_token = settings.dapr_api_token.get_secret_value()
            topic = Topic(name, self._topic, port=settings.dapr_grpc_port, token=dapr_token)
            stack.push_async_callback(topic.close)
            await self._patiently(topic.recognise)
        engine = Engine(
            self.agent,
            store,
            task_id_key=task_id_key,
            former_keys=former_keys,
            delegator=Mesh(self._mesh, self._registry, trust, outside),
            scopes_of=self.scopes_of,
            sender=self._webhooks,
            topic=topic,
            backoff=Backoff(patience=settings.delivery_days * 86_400),
            tries=settings.task_tries,
            keep=Keep(settings.retention_days, settings.deduplication_hours, settings.audit_days),
            runs={"caller": settings.caller_runs, "tenant": settings.tenant_runs, "replica": settings.runs},
            vouching=Vouching(name, self.agent.publisher, self._card.key, trust, callers.enters),
            denied=self._denied,
            guard=guard,
            tokens=TaskTokens(self._denied) if outside is not None and outside.exchanges else None,
        )
        await self._patiently(engine.start)
        stack.push_async_callback(engine.stop)
        self._engine = engine
        if settings.grpc_port:
            server = grpc_server(self.handler, settings, self.telemetry, self.door)
            await server.start()
            stack.push_async_callback(server.stop, 1.0)
        await stack.enter_async_context(served_over_tls(app, settings))
        return engine

    async def _outside(self, sidecar: httpx.AsyncClient, stack: contextlib.AsyncExitStack) -> Outside | None:
        """The way to foreign agents, where the operator allows any."""
        destinations = Destinations.parse(self.settings.foreign, "SIDECARD_FOREIGN")
        if not destinations:
            return None
        agents = ForeignFile.read(self.settings.foreign_file).agents
        clients = parse_clients(await self._secret(sidecar, self.agent.name, "clients"))
        outbound = Outbound(destinations)
        stack.push_async_callback(outbound.aclose)
        return Outside(agents, outbound, Tokens(outbound, clients), self.telemetry.instrument_client)

    def _described(self, metadata: Mapping[str, Metadata]) -> AgentCard:
        certificates = self.settings.tls_client_ca is not None
        ways = ways_in(self.agent.name, self._file, metadata, certificates=certificates)
        return describe(self.agent, self.settings, ways)

    async def _complete_card(self, tokens: BearerTokens) -> None:
        """Declare in the card how tokens are got, as soon as their issuers say it; until then only that they serve.

        So an issuer that is down keeps nobody out but who comes with its tokens.
        """
        declared = 0
        while declared < len(self._file.issuers):
            told = await tokens.metadata()
            if len(told) > declared:
                self._card.show(self._described(told))
                declared = len(told)
            else:
                await asyncio.sleep(ISSUER_RETRY_SECONDS)

    async def _secret(self, sidecar: httpx.AsyncClient, name: str, key: str) -> str:
        """One secret, waiting for the sidecar if need be; says every few seconds that it waits."""
        loop = asyncio.get_running_loop()
        reminder = loop.time() + SIDECAR_REMINDER_SECONDS
        while True:
            try:
                return await read_secret(sidecar, name, key)
            except StoreUnavailable as error:
                if loop.time() >= reminder:
                    log.warning("%s waits for its sidecar: %s", self.agent.name, error)
                    reminder += SIDECAR_REMINDER_SECONDS
                await asyncio.sleep(SIDECAR_RETRY_SECONDS)

    async def _patiently(self, begin: Callable[[], Awaitable[None]], what: str = "state store") -> None:
        """Begin with what this agent takes no message without, waiting for it if need be."""
        while True:
            try:
                await begin()
            except (StoreUnavailable, ScreenUnavailable) as error:
                log.warning("%s waits for its %s: %s", self.agent.name, what, error)
                await asyncio.sleep(STORE_RETRY_SECONDS)
            else:
                return


async def _first_of(*work: Coroutine[Any, Any, object]) -> None:
    """Return when one of these is done, or raise what it raised; the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _api_keys(secret: str) -> dict[str, str]:
    """Callers' names by the digest of their keys. Raises ConfigurationError, without the content."""
    try:
        return _API_KEYS.validate_json(secret)
    except ValidationError:
        raise ConfigurationError(
            "the secret api-keys is not a JSON object of callers by the SHA-256 of their keys: run `sidecard bootstrap`"
        ) from None
