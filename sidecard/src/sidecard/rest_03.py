"""A2A 0.3 by HTTP+JSON, at a path of its own: in 1.0's paths its `/v1` would be a tenant."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from a2a.compat.v0_3 import a2a_v0_3_pb2 as v03
from a2a.compat.v0_3 import conversions, proto_utils
from a2a.compat.v0_3 import types as v03_types
from a2a.compat.v0_3.rest_adapter import REST03Adapter
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.server.routes.common import ServerCallContextBuilder
from a2a.utils.errors import A2A_ERROR_REASONS, InvalidParamsError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sidecard import proto_json
from sidecard.jsonrpc_03 import UNFIT

_NAMES = {reason: error.__name__ for error, reason in A2A_ERROR_REASONS.items()}
_LENGTH = re.compile(r"[0-9]{1,9}")
_SEND = re.compile(r"/v1/message:(send|stream)")
_CONFIGS = re.compile(r"/v1/tasks/[^/]+/pushNotificationConfigs")
_TASK = re.compile(r"/v1/tasks/[^/]+")


def rest_routes_03(handler: RequestHandler, builder: ServerCallContextBuilder) -> list[Route]:
    """The SDK's routes, below the path where they are mounted. What they get was checked before (`check`)."""
    adapter = REST03Adapter(http_handler=handler, context_builder=builder)
    routes = adapter.routes().items()
    return [Route(path, _named_errors(endpoint), methods=[method]) for (path, method), endpoint in routes]


def named(payload: dict[str, Any]) -> dict[str, Any]:
    """An error as 1.0 gives it, which callers of 0.3 can tell too: they look for its name, `TaskNotFoundError`."""
    error = payload["error"]
    kind = _NAMES.get(error.get("details", [{}])[0].get("reason"), "InternalError")
    return {**payload, "type": kind, "message": error["message"]}


def _named_errors(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        response = await endpoint(request)
        if isinstance(response, JSONResponse) and response.status_code >= HTTPStatus.BAD_REQUEST:
            return JSONResponse(named(json.loads(bytes(response.body))), response.status_code)
        return response

    return answer


def takes_body(method: str, path: str) -> bool:
    """Whether a request on this path has a body that counts."""
    return method == "POST" and bool(_SEND.fullmatch(path) or _CONFIGS.fullmatch(path))


def check(path: str, body: object) -> None:
    """Raises InvalidParamsError for a body, as parsed JSON, that the routes could not take; they would answer 500."""
    if _SEND.fullmatch(path):
        sent = proto_json.read(body, v03.SendMessageRequest)
        _converted(lambda: conversions.to_core_send_message_request(_asked(sent)))
    else:
        config = proto_json.read(body, v03.CreateTaskPushNotificationConfigRequest)
        _converted(lambda: proto_utils.FromProto.task_push_notification_config_request(config))


def check_query(path: str, query: Mapping[str, str]) -> None:
    """Raises InvalidParamsError for a number of messages that is none."""
    length = query.get("historyLength", "")
    if length and _TASK.fullmatch(path) and not _LENGTH.fullmatch(length):
        raise InvalidParamsError("historyLength must be a number")


def _asked(sent: v03.SendMessageRequest) -> v03_types.SendMessageRequest:
    return v03_types.SendMessageRequest(id="", params=proto_utils.FromProto.message_send_params(sent))


def _converted(convert: Any) -> None:  # noqa: ANN401 -- either conversion
    try:
        convert()
    except UNFIT as error:
        raise InvalidParamsError("The body is not what this method takes in A2A 0.3") from error
