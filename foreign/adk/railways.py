"""An agent made with Google's ADK: finds rail connections. `python railways.py CONFIG.json` serves it on 127.0.0.1.

CONFIG has `issuer`, of whom it takes tokens, and may have `port` (a free one by default) and `key`, the private JWK
that signs its card (by default a new one). Prints {"url": ..., "key": <public JWK>} when it listens.
"""

import asyncio
import json
import re
import socket
import sys
from collections.abc import AsyncGenerator

import uvicorn
from a2a.types import AgentProvider, ClientCredentialsOAuthFlow, OAuth2SecurityScheme, OAuthFlows, SecurityScheme
from a2a.utils.signing import create_agent_card_signer
from doorman import Doorman
from google.adk.a2a.utils.agent_card_builder import AgentCardBuilder
from google.adk.a2a.utils.agent_to_a2a import to_a2a
from google.adk.agents.base_agent import BaseAgent
from google.adk.agents.invocation_context import InvocationContext
from google.adk.events.event import Event
from google.genai import types
from joserfc.jwk import ECKey
from jwt import PyJWK

SCOPE = "rail:search"
PUBLISHER = "Railways of Europe"
STATIONS = {"LIS": "Lisboa Oriente", "OPO": "Porto Campanhã", "MAD": "Madrid Chamartín", "BCN": "Barcelona Sants"}
_ASKED = re.compile(r"\b([A-Z]{3}) to ([A-Z]{3})\b")
SLOWLY = "slowly"
"""What has the agent think for a minute: long enough to be canceled."""


class Railways(BaseAgent):
    """Needs no model: it knows its timetable."""

    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        asked = " ".join(part.text or "" for part in ctx.user_content.parts) if ctx.user_content else ""
        if SLOWLY in asked:
            yield self._says(ctx, "looking at every timetable", partial=True)
            await asyncio.sleep(60)
        yield self._says(ctx, connection(asked))

    def _says(self, ctx: InvocationContext, text: str, *, partial: bool = False) -> Event:
        content = types.Content(role="model", parts=[types.Part(text=text)])
        return Event(author=self.name, invocation_id=ctx.invocation_id, content=content, partial=partial)


def connection(asked: str) -> str:
    """The connection that a text asks for."""
    found = _ASKED.search(asked)
    if not found or not set(found.groups()) <= STATIONS.keys():
        return f"Say from where to where, as in 'LIS to OPO'; stations: {', '.join(STATIONS)}."
    start, end = found.groups()
    number = 100 + sum(map(ord, start + end)) % 800
    return f"IC {number}: {STATIONS[start]} 08:09 to {STATIONS[end]} 11:24"


async def card_of(agent: BaseAgent, url: str, issuer: str, key: ECKey):
    """The card that ADK makes of the agent, with its publisher's name and signature."""
    flows = OAuthFlows(
        client_credentials=ClientCredentialsOAuthFlow(token_url=f"{issuer}/token", scopes={SCOPE: "ask"})
    )
    card = await AgentCardBuilder(
        agent=agent,
        rpc_url=f"{url}/",
        provider=AgentProvider(organization=PUBLISHER, url=url),
        security_schemes={"oauth": SecurityScheme(oauth2_security_scheme=OAuth2SecurityScheme(flows=flows))},
        default_skill_security=[{"oauth": [SCOPE]}],
    ).build()
    private = key.as_dict(private=True)
    header = {"kid": private["kid"], "alg": "ES256", "typ": "JOSE"}
    return create_agent_card_signer(PyJWK(private, "ES256"), header)(card)


def main(config: dict) -> None:
    """Serve until told to stop."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", config.get("port", 0)))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    given = config.get("key")
    key = ECKey.import_key(given) if given else ECKey.generate_key("P-256", {"kid": "railways-1", "alg": "ES256"})
    agent = Railways(name="railways", description="Finds rail connections between two stations, as in 'LIS to OPO'.")
    card = asyncio.run(card_of(agent, url, config["issuer"], key))
    app = Doorman(to_a2a(agent, agent_card=card), issuer=config["issuer"], audience=url, scope=SCOPE)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))

    async def serve() -> None:
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        print(json.dumps({"url": url, "key": key.as_dict(private=False) | {"alg": "ES256"}}), flush=True)
        await serving

    asyncio.run(serve())


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        main(json.load(file))
