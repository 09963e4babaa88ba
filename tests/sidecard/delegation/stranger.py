"""An agent of another make: the plain SDK's engine, which recognises no message, behind bearer tokens."""

import asyncio
import json

from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentProvider,
    AgentSkill,
    ClientCredentialsOAuthFlow,
    OAuth2SecurityScheme,
    OAuthFlows,
    Part,
    SecurityRequirement,
    SecurityScheme,
    StringList,
    TaskState,
    TaskStatus,
)
from a2a.types import Task as A2ATask
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from sidecard.card import SignedCard
from sidecard.signature import sign

S = TaskState


class Stranger(AgentExecutor):
    """Answers "from A to B" when its gate is open; asks when a message says "ask".

    `seen` are the headers of each request but the card's, `done` the texts that it worked on, `tokens` whom it lets in,
    `faults` what becomes of the next requests instead: a response, or None.
    """

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.asked: list[str] = []
        self.done: list[str] = []
        self.messages = []
        self.tokens: set[str] | None = None
        self.faults: list = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.signed: SignedCard | None = None
        self.url = ""

    # -- its work -----------------------------------------------------------------------------------------------------

    async def execute(self, context, event_queue) -> None:
        self.messages.append(context.message)
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        if context.current_task is None:
            task = A2ATask(id=context.task_id, context_id=context.context_id)
            task.status.CopyFrom(TaskStatus(state=S.TASK_STATE_SUBMITTED))
            task.history.append(context.message)
            await event_queue.enqueue_event(task)
        await updater.start_work()
        text = context.get_user_input()
        if text == "ask":
            await updater.requires_input(updater.new_agent_message([Part(text="Which class?")]))
            return
        await self.gate.wait()
        self.done.append(text)
        for number, word in enumerate(text.split() if text.startswith("chunks") else ()):
            await updater.add_artifact([Part(text=word)], "words", append=number > 0)
        await updater.add_artifact([Part(text=f"did {text}")], name="result")
        await updater.complete()

    async def cancel(self, context, event_queue) -> None:
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()

    # -- its server ---------------------------------------------------------------------------------------------------

    def card(self, *, bindings=("JSONRPC", "HTTP+JSON"), version="1.0", base="") -> AgentCard:
        base = base or self.url
        paths = {"JSONRPC": "/rpc", "HTTP+JSON": "/rest"}
        oauth = OAuth2SecurityScheme(
            flows=OAuthFlows(
                client_credentials=ClientCredentialsOAuthFlow(token_url="https://collects.example.org/token")
            )
        )
        card = AgentCard(
            name="railways",
            version="1",
            description="Finds connections.",
            provider=AgentProvider(organization="Rail", url="https://rail.example.org"),
            capabilities=AgentCapabilities(streaming=True),
            supported_interfaces=[
                AgentInterface(url=base + paths[one], protocol_binding=one, protocol_version=version)
                for one in bindings
            ],
            security_schemes={"oauth": SecurityScheme(oauth2_security_scheme=oauth)},
            default_input_modes=["text/plain"],
            default_output_modes=["text/plain"],
            skills=[AgentSkill(id="connect", name="connect", description="Connects.", tags=["rail"])],
        )
        needed = SecurityRequirement(schemes={"oauth": StringList(list=["rail:search"])})
        card.skills[0].security_requirements.append(needed)
        return card

    def show(self, card: AgentCard, *keys) -> AgentCard:
        self.signed = SignedCard(sign(card, *keys) if keys else card)
        return self.signed.card

    def app(self):
        async def card(request):
            self.asked.append(dict(request.headers))
            return Response(self.signed.body, headers={"etag": self.signed.etag}, media_type="application/json")

        handler = DefaultRequestHandler(self, InMemoryTaskStore(), self.card(base="http://stranger"))
        routes = [
            Route("/.well-known/agent-card.json", card),
            *create_jsonrpc_routes(handler, "/rpc", enable_v0_3_compat=True),
            Mount("/rest", routes=create_rest_routes(handler, enable_v0_3_compat=True)),
        ]
        app = Starlette(routes=routes)
        return self._guarded(app)

    def _guarded(self, app):
        async def serve(scope, receive, send):
            if scope["type"] == "http" and not scope["path"].startswith("/.well-known"):
                headers = {name.decode(): value.decode() for name, value in scope["headers"]}
                self.seen.append(headers | {"path": scope["path"]})
                given = headers.get("authorization", "").removeprefix("Bearer ")
                if self.tokens is not None and given not in self.tokens:
                    refusal = {"error": {"code": 401, "message": "no such token"}}
                    await Response(json.dumps(refusal), 401)(scope, receive, send)
                    return
                if self.faults and (fault := self.faults.pop(0)) is not None:
                    await fault(scope, receive, send)
                    return
            await app(scope, receive, send)

        return serve
