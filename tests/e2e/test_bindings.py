"""The three bindings on a real agent, called directly with a key."""

import uuid

import grpc
import httpx
import pytest
from a2a.client import ClientConfig, ClientFactory
from a2a.client.card_resolver import A2ACardResolver
from a2a.types import GetTaskRequest, Message, Part, Role, SendMessageRequest, TaskState
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value

from sidecard.extension import Sent

QUERY = {"origin": "LHR", "destination": "LIS", "day": "3 March"}


def request(message_id: str) -> SendMessageRequest:
    part = Part(data=ParseDict(QUERY, Value()))
    message = Message(message_id=message_id, role=Role.ROLE_USER, parts=[part])
    return SendMessageRequest(message=Sent(skill="search_flights").attach(message))


def with_key(key):
    """Interceptors that add the caller's key to each gRPC call; grpc.aio wants one object per kind of call."""

    async def signed(_, continuation, details, request):
        metadata = grpc.aio.Metadata(*(details.metadata or ()), ("x-api-key", key))
        return await continuation(details._replace(metadata=metadata), request)

    unary = type("Unary", (grpc.aio.UnaryUnaryClientInterceptor,), {"intercept_unary_unary": signed})
    stream = type("Stream", (grpc.aio.UnaryStreamClientInterceptor,), {"intercept_unary_stream": signed})
    return [unary(), stream()]


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON", "GRPC"])
async def test_each_declared_binding_serves_the_same_task(project, key, binding):
    """The official client finds the interface in the public card and gets the same task on each."""
    base = f"http://127.0.0.1:{project.app('flights').app_port}"

    def channel(url):
        return grpc.aio.insecure_channel(url, interceptors=with_key(key("tester")))

    async with httpx.AsyncClient(headers={"x-api-key": key("tester")}, timeout=30) as http:
        card = await A2ACardResolver(http, base).get_agent_card()
        assert {i.protocol_binding for i in card.supported_interfaces} == {"JSONRPC", "HTTP+JSON", "GRPC"}
        config = ClientConfig(httpx_client=http, grpc_channel_factory=channel, supported_protocol_bindings=[binding],
                              use_client_preference=True)  # fmt: skip
        client = ClientFactory(config).create(card)
        events = [event async for event in client.send_message(request(uuid.uuid4().hex))]
        task_id = events[0].task.id
        task = await client.get_task(GetTaskRequest(id=task_id))
    assert task.status.state == TaskState.TASK_STATE_COMPLETED
    assert task.artifacts[0].parts[0].data.struct_value["offers"]


async def test_one_message_on_two_bindings_is_one_task(project, key):
    """Deduplication does not depend on the binding."""
    base = f"http://127.0.0.1:{project.app('flights').app_port}"
    message_id = uuid.uuid4().hex
    ids = set()
    async with httpx.AsyncClient(headers={"x-api-key": key("tester")}, timeout=30) as http:
        card = await A2ACardResolver(http, base).get_agent_card()
        for binding in ("JSONRPC", "HTTP+JSON"):
            config = ClientConfig(httpx_client=http, supported_protocol_bindings=[binding], use_client_preference=True)
            client = ClientFactory(config).create(card)
            ids |= {event.task.id async for event in client.send_message(request(message_id)) if event.HasField("task")}
    assert len(ids) == 1
