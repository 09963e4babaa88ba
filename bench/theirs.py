"""The official SDK's side: the same skill on its own engine. `python -m bench.theirs KIND PORT [FILE]`.

KIND is `memory` (InMemoryTaskStore), `sqlite` (DatabaseTaskStore on FILE) or `bare`: the SDK's routes alone, over a
handler that answers at once and keeps nothing. Nothing of sidecard is imported here.
"""

import sys

import uvicorn
from a2a.helpers.proto_helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Artifact,
    Part,
    SendMessageRequest,
    Task,
    TaskState,
    TaskStatus,
)
from starlette.applications import Starlette

PATH = "/a2a"


class Say(AgentExecutor):
    """What the skill in `bench.ours` does, event for event."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Run it."""
        if context.message is None:
            raise ValueError("there is no message")
        task = new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        text = context.get_user_input()
        word, _, count = text.partition(" ")
        if word == "chunks":
            for number in range(int(count)):
                part = Part(text=f"chunk {number} ", media_type="text/plain")
                await updater.add_artifact([part], "words", "words", append=number > 0)
        await updater.add_artifact([Part(text=text, media_type="text/plain")], "result", "result", last_chunk=True)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Nothing here runs long enough."""
        raise NotImplementedError


class Bare(DefaultRequestHandler):
    """Answers SendMessage with a finished task, made up on the spot."""

    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Task:
        """The least that any engine can do."""
        done = TaskStatus(state=TaskState.TASK_STATE_COMPLETED)
        done.timestamp.GetCurrentTime()
        parts = params.message.parts
        result = Artifact(artifact_id="result", name="result", parts=parts)
        return Task(id="t", context_id="c", status=done, artifacts=[result], history=[params.message])


def app(kind: str, file: str) -> Starlette:
    """The SDK's routes over an engine of that kind."""
    card = AgentCard(
        name="theirs",
        version="1.0.0",
        description="Is measured.",
        supported_interfaces=[
            AgentInterface(url="http://127.0.0.1/a2a", protocol_binding="JSONRPC", protocol_version="1.0")
        ],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="say", name="Say", description="Says it again.", tags=["bench"])],
    )
    handler = (Bare if kind == "bare" else DefaultRequestHandler)(Say(), _store(kind, file), card)
    return Starlette(routes=create_jsonrpc_routes(handler, rpc_url=PATH))


def _store(kind: str, file: str) -> TaskStore:
    if kind != "sqlite":
        return InMemoryTaskStore()
    from a2a.server.tasks import DatabaseTaskStore
    from sqlalchemy.ext.asyncio import create_async_engine

    return DatabaseTaskStore(create_async_engine(f"sqlite+aiosqlite:///{file}"))


if __name__ == "__main__":
    kind, port, *file = sys.argv[1:]
    # As sidecard.http_server listens.
    uvicorn.run(app(kind, *file or [""]), host="127.0.0.1", port=int(port), log_level="warning", access_log=False)
