"""The door: who may come in, and with what. Everything is refused here that the routes behind should never see."""

import json
import re
from collections.abc import Callable

from a2a.server.routes.common import DefaultServerCallContextBuilder
from a2a.utils.constants import A2A_JSON_MEDIA_TYPE, AGENT_CARD_WELL_KNOWN_PATH
from a2a.utils.error_handlers import build_rest_error_payload
from a2a.utils.errors import (
    A2AError,
    ContentTypeNotSupportedError,
    InvalidParamsError,
    InvalidRequestError,
    JSONParseError,
    VersionNotSupportedError,
)
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidecard.agent_card import JSONRPC_PATH, PROTOCOL_VERSION, REST_PATH
from sidecard.callers import Caller, CallerUser
from sidecard.refusals import JSON_RPC_CODES, PayloadTooLarge, Unauthenticated
from sidecard.sidecar import PROBES

MAX_DEPTH = 64
"""JSON nesting that a request may have; protobuf gives up at 100."""
PUBLIC = PROBES | {AGENT_CARD_WELL_KNOWN_PATH}
_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]')
_SDK_CODES = {
    ContentTypeNotSupportedError: -32005,
    VersionNotSupportedError: -32009,
    InvalidRequestError: -32600,
    InvalidParamsError: -32602,
    JSONParseError: -32700,
}


class Edge:
    """ASGI middleware before all routes. It lets in

    - anybody to the probes and the public card,
    - verified callers (through the own sidecar, or with a key) to the A2A bindings, with a body that is not larger than
      `max_body_bytes`, valid UTF-8 JSON of bounded depth, a media type and an A2A version that are served.

    Anything else gets an error in the words of the binding it came for, and no route sees it.
    """

    def __init__(self, app: ASGIApp, *, identify: Callable[[Headers], Caller | None], max_body_bytes: int) -> None:
        self._app = app
        self._identify = identify
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, or answer it here."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in PUBLIC):
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        path = scope["path"]
        if path != JSONRPC_PATH and not path.startswith(f"{REST_PATH}/"):
            await JSONResponse({"error": f"Nothing is served at {path}."}, 404)(scope, receive, send)
            return
        try:
            await self._app(scope, await self._checked(scope, receive), send)
        except A2AError as error:
            await refuse(path, error)(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        headers = Headers(scope=scope)
        caller = self._identify(headers)
        if caller is None:
            raise Unauthenticated
        scope["caller"] = caller
        check_version(headers.get("a2a-version", ""))
        if scope["method"] != "POST":
            return receive
        _check_media_type(headers.get("content-type", ""), rest=scope["path"] != JSONRPC_PATH)
        body = await self._read(headers, receive)
        if body or scope["path"] == JSONRPC_PATH:
            _check_json(body)
        return _replay(body, receive)

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        too_large = PayloadTooLarge(f"The request is larger than {self._max_body_bytes} bytes, which is this agent's limit")
        announced = headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced) > self._max_body_bytes:
            raise too_large
        if headers.get("content-encoding", "identity") != "identity":
            raise ContentTypeNotSupportedError("Compressed requests are not taken; send the body as it is")
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise InvalidRequestError("The request ended before its body did")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._max_body_bytes:
                raise too_large
            if not message.get("more_body", False):
                return b"".join(chunks)


class CallerContextBuilder(DefaultServerCallContextBuilder):
    """Hands the verified caller on to the SDK's routes."""

    def build_user(self, request: Request) -> CallerUser:
        """The caller that the edge has let in."""
        return CallerUser(request.scope["caller"])


def refuse(path: str, error: A2AError) -> Response:
    """An error in the words of the binding at this path."""
    payload = build_rest_error_payload(error)
    status = payload["error"]["code"]
    if path != JSONRPC_PATH:
        return JSONResponse(payload, status)
    code = JSON_RPC_CODES.get(type(error)) or _SDK_CODES.get(type(error), -32603)
    # JSON-RPC errors come with 200, but for what a proxy or a client library should act on by itself.
    http_status = status if type(error) in JSON_RPC_CODES else 200
    return JSONResponse(
        {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": error.message, "data": payload["error"]["details"]}},
        http_status,
    )


def check_version(version: str) -> None:
    """Raises VersionNotSupportedError. No version at all means 0.3 (A2A 1.0 §3.6.2)."""
    if version.split(".")[:2] != PROTOCOL_VERSION.split("."):
        shown = repr(version[:20]) if version else "0.3 (none was sent)"
        raise VersionNotSupportedError(f"A2A-Version {shown} is not served here; send A2A-Version: {PROTOCOL_VERSION}")


def _check_media_type(content_type: str, *, rest: bool) -> None:
    media_type, _, parameters = content_type.lower().partition(";")
    allowed = {"application/json", A2A_JSON_MEDIA_TYPE} if rest else {"application/json"}
    if media_type.strip() not in allowed:
        raise ContentTypeNotSupportedError(f"Send {' or '.join(sorted(allowed))}, not {media_type.strip() or 'nothing'!r}")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters)
    if charset and charset[1] != "utf-8":
        raise ContentTypeNotSupportedError("JSON is sent in UTF-8")


def _check_json(body: bytes) -> None:
    """Raises JSONParseError for what the routes would stumble over: bad UTF-8, bad or deeply nested JSON."""
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise JSONParseError(f"The JSON is nested more than {MAX_DEPTH} deep")
    try:
        json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise JSONParseError("The body is not valid UTF-8") from None
    except ValueError as error:
        raise JSONParseError(f"The body is not valid JSON: {str(error)[:100]}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _depth(body: bytes) -> int:
    deepest = depth = 0
    for match in _BRACKET.finditer(body):
        first = match[0][:1]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
        elif first in b"]}":
            depth -= 1
    return deepest


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
