"""The first three steps of calling an agent, whoever built it: discover it, verify its card, get credentials for it.

What follows, sending and tracking, is `tracking`; `mesh` does all five. Each step is one span of its own.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from a2a.client import Client, ClientConfig, ClientFactory
from a2a.types import AgentCard

from sidecard.callers import Presented
from sidecard.card import CardCache, fetch_card, reached_at
from sidecard.credentials import Authority, Bearer, Tokens
from sidecard.delegation.foreign import ForeignAgent
from sidecard.egress import DestinationRefused, Origin
from sidecard.errors import AccessDenied, AgentUnavailable, CardRejected
from sidecard.extension import URI
from sidecard.foreign import fetch_enrolled, fetch_foreign
from sidecard.outbound import Outbound
from sidecard.registry import Enrolment, Registry
from sidecard.tasks.watch import TokenMissing
from sidecard.telemetry import span
from sidecard.trust import Pinned, TrustStore

VERIFIED_SECONDS = 30.0
"""How long a verified card is used before it is fetched and verified anew."""
MOST_CLIENTS = 64
"""Of one agent: one for each skill of it that is called."""
BINDINGS = ("JSONRPC", "HTTP+JSON")
"""What is spoken to foreign agents, the first that they have; in the mesh it is JSON-RPC alone."""


@dataclass(frozen=True, slots=True)
class Met:
    """An agent whose card is believed, until when, and the clients made from it that use our own rights, by skill."""

    card: AgentCard
    until: float
    extended: bool
    """Whether the agent knows our extension: then it also recognises a message that is sent again."""
    foreign: ForeignAgent | None = None
    clients: dict[tuple[str, ...], Client] = field(default_factory=dict)


class Outside:
    """The way to foreign agents: those that the operator names, over connections that are checked, with our tokens.

    `instrument` is told of every httpx client, so that the trace goes along.
    """

    def __init__(
        self,
        agents: dict[str, ForeignAgent],
        outbound: Outbound,
        tokens: Tokens,
        instrument: Callable[[httpx.AsyncClient], None] = lambda _: None,
    ) -> None:
        self.agents = agents
        self.tokens = tokens
        self._outbound = outbound
        self._instrument = instrument
        self.http = self.client()

    @property
    def exchanges(self) -> bool:
        """Whether an agent is called by its callers' own rights."""
        return any(agent.credentials and agent.credentials.exchange for agent in self.agents.values())

    def client(self, auth: httpx.Auth | None = None) -> httpx.AsyncClient:
        """An httpx client to the outside, which takes the trace along."""
        client = self._outbound.client(auth)
        self._instrument(client)
        return client


class Handshake:
    """Makes clients of agents: whom it has verified is believed for VERIFIED_SECONDS.

    `client` is an httpx client over `MeshTransport`; without an `outside` no foreign agent is called.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        registry: Registry,
        trust: TrustStore,
        outside: Outside | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http, self._registry, self._trust, self._outside = client, registry, trust, outside
        self._clock = clock
        self._cards = CardCache()
        self._met: dict[str, Met] = {}

    async def meet(self, agent: str) -> Met:
        """Steps 1 and 2: an agent whose card has just been verified, or was a moment ago.

        Raises:
            AgentUnavailable: it is not known, or can't be reached now (AccessDenied: not by us).
            CardRejected: what it shows is not to be believed.
        """
        met = self._met.get(agent)
        if met is not None and met.until > self._clock():
            return met
        with span("handshake discover", agent=agent):
            foreign, enrolled = await self._discover(agent)
        with span("handshake verify", agent=agent):
            if foreign is None and enrolled is not None:
                card = await self._believed(agent, enrolled)
            elif foreign is None or self._outside is None:
                raise CardRejected(
                    f"'{agent}' is a foreign agent, and none may be called from here: allow it in SIDECARD_FOREIGN."
                )
            else:
                card = await self._proven(self._outside.http, agent, foreign, enrolled)
        extended = any(extension.uri == URI for extension in card.capabilities.extensions)
        met = self._met[agent] = Met(card, self._clock() + VERIFIED_SECONDS, extended, foreign)
        return met

    async def client(self, agent: str, skill: str, presented: Presented | None = None) -> tuple[Client, Met]:
        """Steps 1 to 3: a client for one skill of an agent, which has the credentials for just that.

        Where the agent's enrolment says `exchange`, the rights of the caller travel whose token is `presented`, and not
        ours. Raises as `meet` and `credentials.Tokens.token` do, TokenMissing where there is no such token.
        """
        met = await self.meet(agent)
        authority = self._authority(met, agent, skill, presented)
        key = authority.key if authority else ()
        if authority is not None and self._outside is not None:
            with span("handshake credentials", agent=agent, scope=authority.scope, issuer=authority.issuer):
                await self._outside.tokens.token(authority)
            if authority.subject_token:  # kept by its task alone, and no longer than that
                return self._make(met, authority), met
        client = met.clients.get(key)
        if client is None:
            if len(met.clients) >= MOST_CLIENTS:
                met.clients.clear()
            client = met.clients[key] = self._make(met, authority)
        return client, met

    def forget(self, agent: str) -> None:
        """Meet it anew next time."""
        self._met.pop(agent, None)

    async def _discover(self, agent: str) -> tuple[ForeignAgent | None, Enrolment | None]:
        """Where an agent is: by direct configuration, else by the registry."""
        if self._outside is not None and agent in self._outside.agents:
            return self._outside.agents[agent], None
        enrolled = await self._registry.agent(agent)
        if not enrolled.foreign:
            return None, enrolled
        issuers = self._outside.tokens.issuers if self._outside else ()
        return ForeignAgent.enrolled(enrolled, issuers), enrolled

    async def _believed(self, agent: str, enrolled: Enrolment) -> AgentCard:
        """The card of an agent of the mesh, which is the one that the registry lists."""
        base = f"http://{agent}"
        verified = await fetch_card(self._http, base, self._trust.of_app(agent), agent=agent, cache=self._cards)
        if verified.digest != enrolled.card_digest:
            raise AgentUnavailable(f"{agent} shows another card than the registry lists; it may be enrolling right now")
        return reached_at(verified.card, base)

    async def _proven(
        self, http: httpx.AsyncClient, agent: str, foreign: ForeignAgent, enrolled: Enrolment | None
    ) -> AgentCard:
        """A foreign agent's card, with only those interfaces that we speak and that lie where it is enrolled."""
        try:
            if enrolled is not None:
                verified = await fetch_enrolled(http, enrolled, self._trust, cache=self._cards)
            else:
                pinned = Pinned(foreign.card_digest, foreign.publisher).verify
                verified = await fetch_foreign(
                    http,
                    foreign.url,
                    self._trust if foreign.publisher else pinned,
                    publisher=foreign.publisher,
                    agent=foreign.card_name or agent,
                    cache=self._cards,
                )
                if foreign.card_digest:
                    pinned(verified.card)
        except DestinationRefused as error:
            raise CardRejected(f"{foreign.url} is not called: {error}") from error
        card = verified.card
        usable = [i for i in card.supported_interfaces if i.protocol_binding in BINDINGS and _lies_at(i.url, foreign)]
        if not usable:
            raise CardRejected(
                f"The card of '{agent}' offers none of {', '.join(BINDINGS)} at {foreign.origin}, where it is "
                "enrolled: nothing is sent to other places."
            )
        here = AgentCard()
        here.CopyFrom(card)
        del here.supported_interfaces[:]
        here.supported_interfaces.extend(usable)
        return here

    def _authority(self, met: Met, agent: str, skill: str, presented: Presented | None) -> Authority | None:
        foreign = met.foreign
        if foreign is None or foreign.credentials is None:
            return None
        ours, carried = foreign.credentials, ""
        if ours.exchange and presented is not None and presented.issuer == ours.issuer:
            carried = presented.value
        elif ours.exchange and skill:  # our own rights would do more than its caller may
            if presented is None:
                raise TokenMissing(f"{agent} is called with its callers' own rights, by a token of theirs (exchange)")
            raise AccessDenied(  # to another issuer than its own it would be a token of somebody else's to use
                f"{agent} is called by tokens of {ours.issuer} (exchange), and this caller's is of {presented.issuer}: "
                "it is shown to nobody but its own issuer"
            )
        return Authority(ours.issuer, ours.audience or foreign.url, foreign.scope(met.card, skill), carried)

    def _make(self, met: Met, authority: Authority | None) -> Client:
        if met.foreign is None or self._outside is None:
            http, bindings = self._http, ["JSONRPC"]
        else:
            auth = Bearer(self._outside.tokens, authority, met.foreign.origin) if authority else None
            http, bindings = self._outside.client(auth), list(BINDINGS)
        config = ClientConfig(
            httpx_client=http, streaming=True, supported_protocol_bindings=bindings, use_client_preference=True
        )
        return ClientFactory(config).create(met.card)


def _lies_at(url: str, foreign: ForeignAgent) -> bool:
    try:
        return Origin.of(url) == foreign.origin
    except DestinationRefused:
        return False
