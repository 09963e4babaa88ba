"""Push notifications, from a real agent to a real receiver: everything in order, whoever is down meanwhile."""

import asyncio
import base64
import json

import httpx
import pytest
from a2a.types import StreamResponse, TaskState
from google.protobuf.json_format import ParseDict

from sidecard.cli.client import AgentClient
from sidecard.push import verify
from tests.desk import rpc
from tests.sidecard.receiver import receiving

S = TaskState
SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes, ok").decode()
JSON = {"content-type": "application/json", "a2a-version": "1.0"}
RECEIPT = "File the 1,800 EUR hotel receipt from Hotel Avenida"


@pytest.fixture
async def tester(project, key):
    """Calls the orchestrator as `tester`."""
    base = f"http://127.0.0.1:{project.app('orchestrator').app_port}"
    async with httpx.AsyncClient(base_url=base, headers=JSON | {"x-api-key": key("tester")}, timeout=30) as client:

        async def call(method, **params):
            return (await client.post("/a2a", content=rpc(method, params))).json()

        yield call


def asking(text, message_id, url):
    return {
        "message": {"role": "ROLE_USER", "messageId": message_id, "parts": [{"text": text}]},
        "configuration": {"taskPushNotificationConfig": {"url": url, "token": SECRET}},
    }


async def test_everything_arrives_in_order_though_agent_and_receiver_die(system, project, tester, webhook_port):
    """The receiver is down, the agent is killed and goes on; once the receiver is up it gets every event, signed."""
    url = f"http://127.0.0.1:{webhook_port}/hook"
    sent = await tester("SendMessage", **asking(RECEIPT, "webhook-1", url))
    task = sent["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    system.kill("orchestrator")
    system.restart("orchestrator")
    async with AgentClient.direct(project, "orchestrator", caller="manager") as manager:
        await manager.answer(await manager.get(task["id"]), "approve")
    done = (await tester("GetTask", id=task["id"]))["result"]
    assert done["status"]["state"] == "TASK_STATE_COMPLETED"
    system.kill("orchestrator")
    async with receiving(webhook_port) as receiver:
        system.restart("orchestrator")
        async with asyncio.timeout(60):
            while not receiver.events or "COMPLETED" not in json.dumps(receiver.events[-1]):  # noqa: ASYNC110 -- another process sends
                await asyncio.sleep(0.05)
    for _, headers, body in receiver.requests:
        assert headers["webhook-id"] == verify(headers, body, SECRET)
    events = dict(receiver.events)
    places = [tuple(map(int, webhook_id.split("_")[-2:])) for webhook_id in events]
    assert places == sorted(places)
    responses = [ParseDict(event, StreamResponse()) for event in events.values()]
    states = [one.status_update.status.state for one in responses if one.HasField("status_update")]
    assert states[0] == S.TASK_STATE_SUBMITTED
    assert S.TASK_STATE_INPUT_REQUIRED in states
    assert states[-1] == S.TASK_STATE_COMPLETED
    assert states.count(S.TASK_STATE_COMPLETED) == 1
    assert [e["artifactUpdate"]["artifact"] for e in events.values() if "artifactUpdate" in e] == done["artifacts"]


async def test_other_addresses_are_refused_before_anything_is_stored(tester, webhook_port):
    """What the operator has not named, private or public, and nothing else of the message happens."""
    for url in ("https://example.org/", f"http://127.0.0.1:{webhook_port + 1}/", "http://169.254.169.254/"):
        refused = await tester("SendMessage", **asking(RECEIPT, "webhook-2", url))
        assert refused["error"]["code"] == -32602
        assert "operator" in refused["error"]["message"]
    assert "webhook-2" not in json.dumps(await tester("ListTasks"))


async def test_an_agent_whose_operator_allows_none_says_so(project, key):
    """In its card, and to whoever asks all the same."""
    base = f"http://127.0.0.1:{project.app('flights').app_port}"
    async with httpx.AsyncClient(base_url=base, headers=JSON | {"x-api-key": key("tester")}) as client:
        card = (await client.get("/.well-known/agent-card.json")).json()
        body = rpc("SendMessage", asking("LHR to LIS on 3 March", "webhook-3", "https://example.org/"))
        refused = (await client.post("/a2a", content=body)).json()
    assert not card["capabilities"].get("pushNotifications")
    assert refused["error"]["code"] == -32003
