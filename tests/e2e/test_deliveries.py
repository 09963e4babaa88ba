"""What leaves an agent besides its answers, on real Dapr: deliveries that were given up, and a topic."""

import asyncio
import contextlib
import json
import subprocess
import sys

import grpc.aio
import httpx
from dapr.proto.runtime.v1 import appcallback_pb2, dapr_pb2_grpc, pubsub_pb2

from tests.desk import rpc
from tests.sidecard.receiver import receiving

RECEIPT = {"items": [{"vendor": "Hotel Avenida", "amount": 180, "category": "hotel", "receipt": True}]}


def run(project, *words):
    command = [sys.executable, "-m", "sidecard.cli", *words, "--json"]
    return subprocess.run(command, cwd=project.root, capture_output=True, text=True, timeout=60, check=False)


async def paid(project, key, message_id, **configuration):
    """Send the receipt to expenses, as `tester`; returns the task, which has ended."""
    message = {"role": "ROLE_USER", "messageId": message_id, "parts": [{"data": RECEIPT}]}
    headers = {"content-type": "application/json", "a2a-version": "1.0", "x-api-key": key("tester")}
    url = f"http://127.0.0.1:{project.app('expenses').app_port}/a2a"
    body = rpc("SendMessage", {"message": message, "configuration": configuration})
    async with httpx.AsyncClient(headers=headers, timeout=30) as client:
        task = (await client.post(url, content=body)).json()["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    return task


async def test_what_was_given_up_is_listed_and_delivered_after_all(project, key, webhook_port):
    """With the agent running: its receiver is up again, and gets everything in order."""
    hook = {"id": "bills", "url": f"http://127.0.0.1:{webhook_port}/hook"}
    task = await paid(project, key, "dead-1", taskPushNotificationConfig=hook)
    listed = []
    async with asyncio.timeout(60):
        while not listed:
            listed = json.loads((await asyncio.to_thread(run, project, "undelivered", "expenses")).stdout)[
                "undelivered"
            ]
    assert [(one["task"], one["webhook"], one["url"]) for one in listed] == [(task["id"], "bills", hook["url"])]
    assert listed[0]["events"] > 1
    async with receiving(webhook_port) as receiver:
        asked = await asyncio.to_thread(run, project, "redeliver", "expenses", task["id"])
        assert json.loads(asked.stdout)["taken"], asked.stdout + asked.stderr
        async with asyncio.timeout(30):
            while len(receiver.events) < listed[0]["events"]:  # noqa: ASYNC110 -- another process sends
                await asyncio.sleep(0.05)
    assert "TASK_STATE_COMPLETED" in json.dumps(receiver.events[-1])
    again = json.loads((await asyncio.to_thread(run, project, "undelivered", "expenses")).stdout)
    assert again == {"ok": True, "undelivered": []}


async def subscribed(project, tokens):
    """The events of the topic as Dapr hands them to a subscriber, acknowledged one by one."""
    answers: asyncio.Queue[object] = asyncio.Queue()
    initial = pubsub_pb2.SubscribeTopicEventsRequestInitialAlpha1(pubsub_name="pubsub", topic="tasks")
    answers.put_nowait(pubsub_pb2.SubscribeTopicEventsRequestAlpha1(initial_request=initial))

    async def said():
        while True:
            yield await answers.get()

    channel = grpc.aio.insecure_channel(f"127.0.0.1:{project.app('expenses').dapr_grpc_port}")
    token = (("dapr-api-token", tokens("expenses")["DAPR_API_TOKEN"]),)
    async with channel:
        stream = dapr_pb2_grpc.DaprStub(channel).SubscribeTopicEventsAlpha1(said(), metadata=token)
        async for response in stream:
            if response.HasField("initial_response"):
                yield None
                continue
            event = response.event_message
            status = appcallback_pb2.TopicEventResponse(status=appcallback_pb2.TopicEventResponse.SUCCESS)
            done = pubsub_pb2.SubscribeTopicEventsRequestProcessedAlpha1(id=event.id, status=status)
            answers.put_nowait(pubsub_pb2.SubscribeTopicEventsRequestAlpha1(event_processed=done))
            yield event


async def test_a_subscriber_hears_every_event_of_a_task(project, key, tokens):
    """As the CloudEvents that the agent made, with the ids and the places that its log gave them."""
    heard = []
    async with asyncio.timeout(30), contextlib.aclosing(subscribed(project, tokens)) as events:
        assert await anext(events) is None
        task = await paid(project, key, "topic-1")
        async for event in events:
            heard += [event] if event.id.startswith(task["id"]) else []
            if heard and b"TASK_STATE_COMPLETED" in heard[-1].data:
                break
    by_place = sorted(heard, key=lambda event: event.extensions["sequence"])
    assert {(event.source, event.extensions["skill"]) for event in heard} == {("expenses", "validate_expense")}
    assert {event.extensions["contextid"] for event in heard} == {task["contextId"]}
    assert {event.type for event in heard} == {"a2a.task.status-update", "a2a.task.artifact-update"}
    artifacts = [json.loads(event.data)["artifactUpdate"] for event in by_place if "artifact" in event.type]
    assert [one["artifact"] for one in artifacts] == task["artifacts"]
