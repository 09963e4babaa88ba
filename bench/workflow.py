"""The delegations of `bench.ours` as a Dapr Workflow, each an activity. `python -m bench.workflow APP_ID`.

POST /run has one run to its end, and answers with its state. Nothing of sidecard's engine or mesh is used here.
"""

import sys
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from dapr.ext.workflow import DaprWorkflowContext, WorkflowActivityContext, WorkflowRuntime
from dapr.ext.workflow.aio import DaprWorkflowClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from bench.ours import DELEGATIONS
from sidecard.callers import TOKEN_HEADER
from sidecard.http_server import http_server
from sidecard.settings import Settings

PATH = "/run"
DONE = "COMPLETED"


class Messenger:
    """Sends messages to the agent `ours` through the own sidecar, on connections that are kept, as an activity."""

    def __init__(self, settings: Settings) -> None:
        headers = {TOKEN_HEADER: settings.dapr_api_token.get_secret_value(), "a2a-version": "1.0"}
        self._http = httpx.AsyncClient(headers=headers, timeout=30)
        self._url = f"http://127.0.0.1:{settings.dapr_http_port}/v1.0/invoke/ours/method/a2a"

    async def send(self, context: WorkflowActivityContext, text: str) -> str:
        """One message, under an id that stays the same when the activity is repeated; what its task came to."""
        parts = [{"text": text, "mediaType": "text/plain"}]
        message_id = f"{context.workflow_id}-{context.task_id}"
        params = {"message": {"messageId": message_id, "role": "ROLE_USER", "parts": parts}}
        call = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
        answer = (await self._http.post(self._url, json=call)).raise_for_status().json()
        task = answer["result"]["task"]
        if task["status"]["state"] != "TASK_STATE_COMPLETED":
            raise RuntimeError(f"the task is {task['status']['state']}")
        said: str = task["artifacts"][-1]["parts"][0]["text"]
        return said


def app(settings: Settings) -> Starlette:
    """The workflow's worker, and the way to start it."""
    send = Messenger(settings).send

    def errands(context: DaprWorkflowContext, text: str) -> Generator[Any, Any, str]:
        said = ""
        for number in range(DELEGATIONS):
            said += yield context.call_activity("send", input=f"{text} {number}")
        return said

    async def run(request: Request) -> PlainTextResponse:
        client: DaprWorkflowClient = request.app.state.client
        instance = await client.schedule_new_workflow("errands", input=(await request.body()).decode())
        ended = await client.wait_for_workflow_completion(instance)
        if ended is None:
            return PlainTextResponse("lost")
        failure = ended.failure_details
        return PlainTextResponse(f"{ended.runtime_status.name} {failure.message if failure else ''}".rstrip())

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        worker = WorkflowRuntime()
        worker.register_workflow(errands, name="errands")
        worker.register_activity(send, name="send")
        app.state.client = DaprWorkflowClient()
        worker.start()  # type: ignore[no-untyped-call]
        yield
        worker.shutdown()  # type: ignore[no-untyped-call]

    return Starlette(routes=[Route(PATH, run, methods=["POST"])], lifespan=life)


if __name__ == "__main__":
    settings = Settings.load(sys.argv[1])
    http_server(app(settings), settings).run()
