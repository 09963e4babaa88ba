"""An agent's card, wherever the agent is found: direct configuration, well-known URI, registry. A2A 1.0 §8."""

import httpx

from sidecard.card import fetch_card
from sidecard.cli import way
from sidecard.cli.project import Project
from sidecard.foreign import fetch_enrolled
from sidecard.telemetry import Telemetry
from sidecard.trust import VerifiedCard


async def fetch(project: Project, agent: str, telemetry: Telemetry) -> VerifiedCard:
    """The verified card of an app-id of dapr.yaml, of a URL, or of a foreign agent in the registry.

    Raises:
        CardRejected: it is not believed.
        AgentUnavailable: the agent or the registry can't be reached, or there is no such agent.
        ConfigurationError: the project has no keys or tokens yet.
    """
    if "://" in agent or any(app.app_id == agent for app in project.apps):
        route = way.anywhere(project, agent) if "://" in agent else way.directly(project, agent)
        async with httpx.AsyncClient(transport=route.transport) as client:
            telemetry.instrument_client(client)
            return await fetch_card(client, route.url, route.trust, agent=route.agent or None)
    async with way.registry(project) as registry:
        enrolled = await registry.agent(agent)
    async with httpx.AsyncClient(trust_env=False) as client:
        telemetry.instrument_client(client)
        return await fetch_enrolled(client, enrolled, way.pinned_keys(project))
