"""The JSON-RPC binding (A2A 1.0 §9): from a request that the door has let in to its operation, and back.

The SDK's own dispatcher would do, and costs about as much as the engine does for a short task: it reads and checks
every request a second time, and makes each answer twice.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.server.routes.common import serialize_list_tasks_response
from a2a.types import (
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
)
from a2a.utils.error_handlers import build_error_details
from a2a.utils.errors import (
    JSON_RPC_ERROR_CODE_MAP,
    A2AError,
    InternalError,
    InvalidParamsError,
    InvalidRequestError,
    MethodNotFoundError,
    TaskNotFoundError,
)
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as ProtoMessage
from pydantic_core import to_json
from starlette.types import Receive, Send

from sidecard.callers import Caller, CallerUser
from sidecard.event_stream import EventStream, event
from sidecard.extension import URI
from sidecard.proto_json import read, write
from sidecard.refusals import JSON_RPC_CODES
from sidecard.streamed import named

log = logging.getLogger("sidecard")

_MEMBERS = {"jsonrpc", "id", "method", "params"}
_INTERNAL_ERROR = -32603
_OURS = frozenset(JSON_RPC_CODES.values())
_CODES = JSON_RPC_ERROR_CODE_MAP | JSON_RPC_CODES


@dataclass(frozen=True, slots=True)
class Method:
    """What a method takes, the operation of the handler that it is, and how its result is written.

    `request` is the operation's message, or, in another version of the protocol, what makes that of `params`.
    """

    request: type[ProtoMessage] | Callable[[dict[str, Any]], ProtoMessage]
    operation: str
    write: Callable[[Any], object] = write
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Dialect:
    """A version of the protocol, as JSON-RPC speaks it: its methods, its errors' codes, and an event of a stream.

    `event` gives what is told of an event, and its metadata. `codes` has the codes that its callers know.
    """

    methods: Mapping[str, Method]
    event: Callable[[ProtoMessage], tuple[object, Mapping[str, Any]]]
    codes: frozenset[int] | None = None

    def error(self, number: str | int | None, error: A2AError) -> dict[str, Any]:
        """The answer that an error is (§9.5)."""
        answer = error_answer(number, error)
        code = answer["error"]["code"]
        if self.codes is not None and code not in self.codes and code not in _OURS:
            answer["error"]["code"] = _INTERNAL_ERROR
        return answer


METHODS = {
    "SendMessage": Method(SendMessageRequest, "on_message_send", named),
    "SendStreamingMessage": Method(SendMessageRequest, "on_message_send_stream", named, streams=True),
    "GetTask": Method(GetTaskRequest, "on_get_task"),
    "ListTasks": Method(ListTasksRequest, "on_list_tasks"),
    "CancelTask": Method(CancelTaskRequest, "on_cancel_task"),
    "SubscribeToTask": Method(SubscribeToTaskRequest, "on_subscribe_to_task", named, streams=True),
    "CreateTaskPushNotificationConfig": Method(TaskPushNotificationConfig, "on_create_task_push_notification_config"),
    "GetTaskPushNotificationConfig": Method(
        GetTaskPushNotificationConfigRequest, "on_get_task_push_notification_config"
    ),
    "ListTaskPushNotificationConfigs": Method(
        ListTaskPushNotificationConfigsRequest, "on_list_task_push_notification_configs"
    ),
    "DeleteTaskPushNotificationConfig": Method(
        DeleteTaskPushNotificationConfigRequest, "on_delete_task_push_notification_config", lambda _: None
    ),
    "GetExtendedAgentCard": Method(GetExtendedAgentCardRequest, "on_get_extended_agent_card", MessageToDict),
}
"""By the names of A2A 1.0 §9.4."""


def _event_of(told: ProtoMessage) -> tuple[object, Mapping[str, Any]]:
    written = named(told)
    [inner] = written.values()
    return written, inner.get("metadata", {})


CURRENT = Dialect(METHODS, _event_of)
"""A2A 1.0."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, read and checked."""

    id: str | int | None
    method: str
    params: ProtoMessage
    dialect: Dialect = CURRENT

    @classmethod
    def read(cls, request: object, dialect: Dialect = CURRENT) -> "Call":
        """Raises InvalidRequestError, MethodNotFoundError or InvalidParamsError (§9.5) for parsed JSON that is none."""
        if isinstance(request, list):
            raise InvalidRequestError("Batches are not served; send one request at a time")
        if not isinstance(request, dict):
            raise InvalidRequestError("A JSON-RPC request is an object")
        if request.get("jsonrpc") != "2.0":
            raise InvalidRequestError('jsonrpc must be "2.0"')
        number = request.get("id")
        if isinstance(number, bool) or not isinstance(number, str | int | None):
            raise InvalidRequestError("id must be a string, an integer or null")
        name = request.get("method")
        if not isinstance(name, str):
            raise InvalidRequestError("method must be a string")
        if request.keys() - _MEMBERS:
            raise InvalidRequestError(f"A JSON-RPC request has no members but {', '.join(sorted(_MEMBERS))}")
        method = dialect.methods.get(name)
        if method is None:
            raise MethodNotFoundError(f"There is no such method; there are {', '.join(dialect.methods)}")
        params = request.get("params", {})
        if not isinstance(params, dict):
            raise InvalidParamsError("params must be an object")
        taken = read(params, method.request) if isinstance(method.request, type) else method.request(params)
        return cls(number, name, taken, dialect)


def error_answer(number: str | int | None, error: A2AError) -> dict[str, Any]:
    """The answer that an error is (§9.5)."""
    told = {
        "code": _CODES[type(error)],
        "message": error.message,
        "data": build_error_details(error),
    }
    return {"jsonrpc": "2.0", "id": number, "error": told}


class JsonRpc:
    """Serves calls from a handler's operations."""

    def __init__(self, handler: RequestHandler) -> None:
        self._handler = handler

    async def serve(self, call: Call, caller: Caller, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        """Answer one call of a verified caller."""
        context = ServerCallContext(user=CallerUser(caller), state={"headers": headers})
        method = call.dialect.methods[call.method]
        result = getattr(self._handler, method.operation)(call.params, context)
        if method.streams:
            await self._stream(call, result, receive, send)
        else:
            await _answer(await self._answered(call, method, result), send)

    async def _answered(self, call: Call, method: Method, result: Awaitable[Any]) -> dict[str, Any]:
        try:
            found = await result
            if found is None and method.write is write:
                raise TaskNotFoundError
            if isinstance(call.params, ListTasksRequest):
                written: object = serialize_list_tasks_response(found, call.params.include_artifacts)
            else:
                written = method.write(found)
        except A2AError as error:
            return call.dialect.error(call.id, error)
        except Exception:
            return _unexpected(call)
        return {"jsonrpc": "2.0", "id": call.id, "result": written}

    async def _stream(self, call: Call, events: AsyncGenerator[ProtoMessage], receive: Receive, send: Send) -> None:
        """What is wrong before the first event is answered as without a stream."""
        async with aclosing(events):
            try:
                first = await anext(events, None)
            except A2AError as error:
                await _answer(call.dialect.error(call.id, error), send)
            except Exception:
                await _answer(_unexpected(call), send)
            else:
                await EventStream(receive, send).give(_events(call, first, events))


async def _events(call: Call, first: ProtoMessage | None, others: AsyncIterator[ProtoMessage]) -> AsyncIterator[bytes]:
    try:
        if first is not None:
            yield _event(call, first)
        async for one in others:
            yield _event(call, one)
    except A2AError as error:
        yield event(to_json(call.dialect.error(call.id, error)), kind="error")
    except Exception:
        yield event(to_json(_unexpected(call)), kind="error")


def _event(call: Call, given: ProtoMessage) -> bytes:
    told, metadata = call.dialect.event(given)
    place = metadata.get(URI, {}).get("event", "")
    return event(to_json({"jsonrpc": "2.0", "id": call.id, "result": told}), place=place)


def _unexpected(call: Call) -> dict[str, Any]:
    log.exception("%s failed unexpectedly", call.method)
    return call.dialect.error(call.id, InternalError("this failed unexpectedly; the agent's log has the details"))


async def _answer(answer: dict[str, Any], send: Send) -> None:
    body = to_json(answer)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
