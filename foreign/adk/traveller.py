"""A client made with Google's ADK, which calls somebody's agent. `python traveller.py CONFIG.json` prints what it said.

CONFIG: `agent` (base URL), `key` (the public JWK pinned for its card), `issuer`, `client_id`, `client_secret`, `scope`,
`audience` of the token where that is not the agent's URL; `text` to send, which goes as data if it is a JSON object;
`metadata` for the request; `traceparent` of the trace that it acts in.

Prints {"text", "error", "task_id", "traceparent"}; ends with 1 when the card is not to be believed.
"""

import asyncio
import json
import sys

import httpx
from a2a.client import A2ACardResolver
from a2a.client.errors import AgentCardResolutionError
from a2a.types import AgentCard, Part
from a2a.utils.signing import SignatureVerificationError, create_signature_verifier
from google.adk.agents.remote_a2a_agent import RemoteA2aAgent
from google.adk.runners import InMemoryRunner
from google.genai import types
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from jwt import PyJWK


def pinned(key: dict):
    """A verifier that believes one key, whatever a signature offers."""

    def key_of(kid: str | None, jku: str | None) -> PyJWK:
        if kid != key["kid"]:
            raise SignatureVerificationError(f"no key {kid!r} is pinned")
        return PyJWK(key, "ES256")

    return create_signature_verifier(key_of, ["ES256"])


async def token(config: dict, http: httpx.AsyncClient) -> str:
    """A token for that agent alone."""
    metadata = (await http.get(f"{config['issuer']}/.well-known/openid-configuration")).json()
    asked = {
        "grant_type": "client_credentials",
        "scope": config["scope"],
        "resource": config.get("audience", config["agent"]),
    }
    client = (config["client_id"], config["client_secret"])
    answer = await http.post(metadata["token_endpoint"], data=asked, auth=client)
    return answer.raise_for_status().json()["access_token"]


async def card_of(config: dict, http: httpx.AsyncClient) -> AgentCard:
    """The agent's card, verified."""
    return await A2ACardResolver(http, config["agent"]).get_agent_card(signature_verifier=pinned(config["key"]))


def part(given: types.Part) -> Part:
    """A2A's part for one of genai's."""
    if given.text and given.text.lstrip().startswith("{"):
        return Part(data=ParseDict(json.loads(given.text), Value()), media_type="application/json")
    return Part(text=given.text or "")


async def call(config: dict) -> dict:
    """Discover, verify, get a token, send, and follow to the end."""
    async with httpx.AsyncClient(timeout=30) as plain:
        card, bearer = await card_of(config, plain), await token(config, plain)
    headers = {"Authorization": f"Bearer {bearer}", "traceparent": config.get("traceparent", "")}
    async with httpx.AsyncClient(timeout=60, headers=headers) as http:
        agent = RemoteA2aAgent(
            name="remote",
            agent_card=card,
            httpx_client=http,
            genai_part_converter=part,
            a2a_request_meta_provider=lambda *_: config.get("metadata", {}),
        )
        runner = InMemoryRunner(agent, app_name="traveller")
        session = await runner.session_service.create_session(app_name="traveller", user_id="traveller")
        message = types.Content(role="user", parts=[types.Part(text=config["text"])])
        said, error, task_id = [], "", ""
        async for event in runner.run_async(user_id="traveller", session_id=session.id, new_message=message):
            error = event.error_message or error
            task_id = (event.custom_metadata or {}).get("a2a:task_id", task_id)
            if event.content:
                said += [
                    part.text or (part.inline_data.data.decode() if part.inline_data else "")
                    for part in event.content.parts
                ]
        return {"text": "\n".join(said), "error": error, "task_id": task_id, "traceparent": headers["traceparent"]}


def main() -> int:
    """Call, and print."""
    with open(sys.argv[1]) as file:
        config = json.load(file)
    try:
        print(json.dumps(asyncio.run(call(config))))
    except (SignatureVerificationError, AgentCardResolutionError) as error:
        print(json.dumps({"error": f"its card is not believed: {error}"}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
