"""Raw calls of a served agent by any operation of any binding, and everything that comes back."""

import asyncio

import grpc
import grpc.aio
from a2a.types import SendMessageRequest, TaskPushNotificationConfig, a2a_pb2
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from google.protobuf.json_format import MessageToJson, ParseDict

from sidecard.testing import key_of

STREAM_SECONDS = 0.4
"""An answer that has not ended after that is a stream that was let in."""
REQUESTS = {
    "SendMessage": SendMessageRequest,
    "SendStreamingMessage": SendMessageRequest,
    "GetTask": a2a_pb2.GetTaskRequest,
    "ListTasks": a2a_pb2.ListTasksRequest,
    "CancelTask": a2a_pb2.CancelTaskRequest,
    "SubscribeToTask": a2a_pb2.SubscribeToTaskRequest,
    "CreateTaskPushNotificationConfig": TaskPushNotificationConfig,
    "GetTaskPushNotificationConfig": a2a_pb2.GetTaskPushNotificationConfigRequest,
    "ListTaskPushNotificationConfigs": a2a_pb2.ListTaskPushNotificationConfigsRequest,
    "DeleteTaskPushNotificationConfig": a2a_pb2.DeleteTaskPushNotificationConfigRequest,
    "GetExtendedAgentCard": a2a_pb2.GetExtendedAgentCardRequest,
}
STREAMS = {"SendStreamingMessage", "SubscribeToTask"}


class Calls:
    """Calls by a user's key, or by the headers alone when there is no user; `tried` counts them."""

    def __init__(self, channel, client):
        self.channel, self.client = channel, client
        self.tried = 0
        self.ways = {"JSONRPC": self._jsonrpc, "HTTP+JSON": self._rest, "GRPC": self._grpc}

    async def call(self, binding, user, operation, params, **headers):
        """Everything that comes back: a status and all bytes that are not the time of day."""
        self.tried += 1
        try:
            async with asyncio.timeout(STREAM_SECONDS if operation in STREAMS else 10):
                return await self.ways[binding](operation, params, by(user) | headers)
        except TimeoutError:
            return "open", ""

    async def _jsonrpc(self, operation, params, headers):
        body = {"jsonrpc": "2.0", "id": 1, "method": operation, "params": params}
        answer = await self.client.post("/a2a", json=body, headers=headers)
        return answer.status_code, f"{answer.headers} {answer.text}"

    async def _rest(self, operation, params, headers):
        params = dict(params)
        task, tenant = params.pop("taskId", None) or params.get("id", ""), params.pop("tenant", "")
        hook = params.get("id", "")
        method, path = {
            "SendMessage": ("POST", "/message:send"),
            "SendStreamingMessage": ("POST", "/message:stream"),
            "GetTask": ("GET", f"/tasks/{task}"),
            "ListTasks": ("GET", "/tasks"),
            "CancelTask": ("POST", f"/tasks/{task}:cancel"),
            "SubscribeToTask": ("GET", f"/tasks/{task}:subscribe"),
            "CreateTaskPushNotificationConfig": ("POST", f"/tasks/{task}/pushNotificationConfigs"),
            "GetTaskPushNotificationConfig": ("GET", f"/tasks/{task}/pushNotificationConfigs/{hook}"),
            "ListTaskPushNotificationConfigs": ("GET", f"/tasks/{task}/pushNotificationConfigs"),
            "DeleteTaskPushNotificationConfig": ("DELETE", f"/tasks/{task}/pushNotificationConfigs/{hook}"),
            "GetExtendedAgentCard": ("GET", "/extendedAgentCard"),
        }[operation]
        sends = {"json": params} if method == "POST" else {"params": params if operation == "ListTasks" else {}}
        url = "/rest" + (f"/{tenant}" if tenant else "") + path
        answer = await self.client.request(method, url, headers=headers, **sends)
        return answer.status_code, f"{answer.headers} {answer.text}"

    async def _grpc(self, operation, params, headers):
        request = ParseDict(params, REQUESTS[operation]())
        call = getattr(A2AServiceStub(self.channel), operation)(request, metadata=metadata("1.0", headers))
        return await told_by(call, stream=operation in STREAMS)


def by(user):
    """The credential of a user; of nobody, for whoever comes with another."""
    return {"x-api-key": key_of(user)} if user else {}


def metadata(version, headers):
    """Headers as a gRPC call has them."""
    return [("a2a-version", version), *((name.lower(), value) for name, value in headers.items())]


async def told_by(call, *, stream):
    """The status of a gRPC call, and all that it says."""
    try:
        events = [event async for event in call] if stream else [await call]
    except grpc.aio.AioRpcError as error:
        return error.code(), f"{error.details()} {error.trailing_metadata()}"
    return grpc.StatusCode.OK, "".join(map(MessageToJson, events))
