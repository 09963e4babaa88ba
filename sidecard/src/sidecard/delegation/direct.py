"""Calling foreign agents outside of any task and any mesh: for programs, tests and demonstrations."""

import contextlib
from collections.abc import AsyncIterator, Mapping

import httpx

from sidecard.credentials import OAuthClient, Tokens
from sidecard.delegation.foreign import ForeignAgent
from sidecard.delegation.handshake import Outside
from sidecard.delegation.mesh import Mesh
from sidecard.egress import Destinations
from sidecard.errors import AgentUnavailable
from sidecard.loopback import NO_CERTIFICATES
from sidecard.outbound import Outbound
from sidecard.registry import Enrolment, Registry
from sidecard.telemetry import Telemetry
from sidecard.trust import TrustStore


@contextlib.asynccontextmanager
async def calling(
    agents: Mapping[str, ForeignAgent],
    trust: TrustStore,
    *,
    allowed: str,
    clients: Mapping[str, OAuthClient] | None = None,
    telemetry: Telemetry | None = None,
) -> AsyncIterator[Mesh]:
    """What calls these agents, by name, with all five steps: `await mesh.follow(name, message, "", print)`.

    Args:
        agents: Where each is, how its card is proven, who gives out tokens for it.
        trust: The publishers' pinned keys.
        allowed: Where connections may go, as in SIDECARD_FOREIGN: `public`, and origins.
        clients: What the issuers call us, by their URLs.
        telemetry: Records the steps' requests; without it the current trace is only handed on.
    """
    outbound = Outbound(Destinations.parse(allowed, "allowed"))
    tokens = Tokens(outbound, clients or {})
    outside = Outside(dict(agents), outbound, tokens, (telemetry or Telemetry()).instrument_client)
    async with httpx.AsyncClient(verify=NO_CERTIFICATES, trust_env=False) as nowhere:
        try:
            yield Mesh(nowhere, _Nobody(nowhere), trust, outside)
        finally:
            await outbound.aclose()


class _Nobody(Registry):
    """Lists no agent."""

    async def agent(self, app_id: str) -> Enrolment:
        """Raises AgentUnavailable."""
        raise AgentUnavailable(f"'{app_id}' is not among the agents that are called here")
