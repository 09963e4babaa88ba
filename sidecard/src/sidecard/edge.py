"""The door: who may come in, and with what. Everything is refused here that the routes behind should never see."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import parse_qsl

from a2a.server.context import ServerCallContext
from a2a.server.routes.common import DefaultServerCallContextBuilder
from a2a.utils.constants import A2A_JSON_MEDIA_TYPE, AGENT_CARD_WELL_KNOWN_PATH
from a2a.utils.error_handlers import build_rest_error_payload
from a2a.utils.errors import (
    A2AError,
    ContentTypeNotSupportedError,
    InvalidRequestError,
    MethodNotFoundError,
    VersionNotSupportedError,
)
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sidecard import proto_json, rest, rest_03
from sidecard.agent_card import JSONRPC_PATH, PROTOCOL_VERSION, REST_03_PATH, REST_PATH
from sidecard.callers import APP_ID_HEADER, CallerUser, Claims
from sidecard.connections import proven
from sidecard.door import Admitted, Door
from sidecard.jsonrpc import CURRENT, METHODS, Call, JsonRpc, error_answer
from sidecard.jsonrpc_03 import A2A_03
from sidecard.protected_resource import PATH as RESOURCE_PATH
from sidecard.protected_resource import ProtectedResource, challenge
from sidecard.refusals import JSON_RPC_CODES, MethodNotAllowed, PayloadTooLarge, TooManyRequests
from sidecard.sidecar import PROBES
from sidecard.strict_json import read_json
from sidecard.tasks.reveal import REVEAL_HEADER
from sidecard.tasks.rights import InTenant
from sidecard.tls import peer_certificate

BODY_SECONDS = 60.0
"""How long the whole body of a request may take: one that trickles in would hold its connection for ever."""
PUBLIC = PROBES | {AGENT_CARD_WELL_KNOWN_PATH}
VERSION_PARAMETER = "A2A-Version"
NO_OPERATION = MethodNotFoundError("A2A has no such operation; see A2A 1.0 §11.3 for the paths")
_VERSION = re.compile(re.escape(PROTOCOL_VERSION) + r"(\.[0-9]{1,9})?")
_LEGACY_VERSION = re.compile(r"|0\.3(\.[0-9]{1,9})?")  # none at all means 0.3 (§3.6.2)


class Edge:
    """ASGI middleware before all routes.

    It lets in

    - anybody to the probes and the public card, and to what tells which tokens are taken, where some are (`resource`),
    - verified callers (through the own sidecar, or with a credential) who have not had more than their share (see
      `quotas`) to the A2A bindings, with a body that is not larger than `max_body_bytes` and comes within
      `body_seconds`, JSON of bounded depth in the shape of its operation, a media type and an A2A version that are
      served.

    Anything else gets an error in the words of the binding it came for, and no route sees it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        jsonrpc: JsonRpc,
        door: Door,
        max_body_bytes: int,
        body_seconds: float = BODY_SECONDS,
        resource: ProtectedResource | None = None,
    ) -> None:
        self._app = app
        self._jsonrpc = jsonrpc
        self._door = door
        self._max_body_bytes = max_body_bytes
        self._body_seconds = body_seconds
        self._resource = resource
        self._public = PUBLIC | {RESOURCE_PATH} if resource else PUBLIC

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, or answer it here."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in self._public):
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        path = scope["path"]
        if path != JSONRPC_PATH and not path.startswith((f"{REST_PATH}/", f"{REST_03_PATH}/")):
            await JSONResponse({"error": f"Nothing is served at {path[:100]}."}, 404)(scope, receive, send)
            return
        sent = Headers(scope=scope).items()
        headers = dict(reversed(sent))  # the first of a name counts
        claims = Claims.of(sent, peer_certificate(scope))
        try:
            admitted = await self._door.admit(claims)
        except A2AError as error:
            told = challenge(error, self._resource, with_token=bool(claims.authorization))
            await refuse(scope, error, told)(scope, receive, send)
            return
        with admitted:
            scope["caller"] = admitted.caller
            proven(scope)
            await self._serve(scope, headers, receive, send, admitted)

    async def _serve(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive, send: Send, admitted: Admitted
    ) -> None:
        """Answer a request of a verified caller."""
        with_token = bool(headers.get("authorization"))
        call: Call | None = None
        try:
            if scope["path"] == JSONRPC_PATH:
                call = await self._call(scope, headers, receive)
                method = call.dialect.methods[call.method]
                await admitted.goes_on(cast("InTenant", call.params).tenant, stream=method.streams)
            else:
                receive = await self._checked_rest(scope, headers, receive)
                path = scope["path"]
                tenant = scope.get("a2a_tenant") or rest.tenant_in(path)
                await admitted.goes_on(tenant, stream=path.endswith(rest.STREAMS))
        except A2AError as error:
            await refuse(scope, error, challenge(error, self._resource, with_token=with_token))(scope, receive, send)
            return
        if call is not None:
            await self._jsonrpc.serve(call, admitted.caller, headers, receive, send)
        else:
            sending = rest.finished(send, with_token=with_token, once=REVEAL_HEADER in headers)
            await self._app(scope, receive, sending)

    async def _call(self, scope: Scope, headers: Mapping[str, str], receive: Receive) -> Call:
        if scope["method"] != "POST":
            raise MethodNotAllowed("JSON-RPC is served by POST")
        body = await self._read(headers, receive)
        _check_media_type(headers.get("content-type", ""), {"application/json"})
        request = read_json(body)
        if isinstance(request, dict) and isinstance(request.get("id"), str | int):
            scope["a2a_request_id"] = request["id"]
        method = request.get("method") if isinstance(request, dict) else None
        legacy = _settle_version(scope, headers, legacy=not isinstance(method, str) or method not in METHODS)
        return Call.read(request, A2A_03 if legacy else CURRENT)

    async def _checked_rest(self, scope: Scope, headers: Mapping[str, str], receive: Receive) -> Receive:
        query, legacy = _query(scope), scope["path"].startswith(f"{REST_03_PATH}/")
        if _settle_version(scope, headers, legacy=legacy) != legacy:
            raise VersionNotSupportedError(f"A2A {PROTOCOL_VERSION} is served at {REST_PATH}, not here")
        if "\n" in scope["path"]:  # no route would match it, and FastAPI's own answer is no A2A error
            raise NO_OPERATION
        if legacy:
            return await self._checked_rest_03(scope, headers, receive, query)
        expected = rest.request_of(scope["method"], scope["path"])
        if expected is None:
            return receive
        if scope["method"] in {"GET", "HEAD"}:
            proto_json.check_query(query, expected)
            scope["a2a_tenant"] = query.get("tenant", "")
            return receive
        body = await self._read(headers, receive)
        request: Any = {}
        if body or expected not in rest.BODILESS:
            _check_media_type(headers.get("content-type", ""), {"application/json", A2A_JSON_MEDIA_TYPE})
            request = read_json(body)
            proto_json.read(request, expected)
        scope["a2a_tenant"] = request.get("tenant") or query.get("tenant", "")
        return rest.replay(body, receive)

    async def _checked_rest_03(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive, query: Mapping[str, str]
    ) -> Receive:
        path = scope["path"].removeprefix(REST_03_PATH)
        rest_03.check_query(path, query)
        if not rest_03.takes_body(scope["method"], path):
            return receive
        body = await self._read(headers, receive)
        _check_media_type(headers.get("content-type", ""), {"application/json"})
        rest_03.check(path, read_json(body))
        return rest.replay(body, receive)

    async def _read(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        announced = headers.get("content-length", "0")
        if not announced.isascii() or not announced.isdigit():
            raise InvalidRequestError("Content-Length is not a number")
        if len(announced) > len(str(self._max_body_bytes)) or int(announced) > self._max_body_bytes:
            raise self._too_large()
        if headers.get("content-encoding", "identity") != "identity":
            raise ContentTypeNotSupportedError("Compressed requests are not taken; send the body as it is")
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise InvalidRequestError("The request ended before its body did")
                    body += message.get("body", b"")
                    if len(body) > self._max_body_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise InvalidRequestError(f"The request's body did not come within {self._body_seconds:g} s") from None

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The request is larger than {self._max_body_bytes} bytes, which is this agent's limit")


class CallerContextBuilder(DefaultServerCallContextBuilder):
    """Hands the verified caller on to the SDK's routes, and the tenant of a request that has it not in its path."""

    def build(self, request: Request) -> ServerCallContext:
        """The context of a call that the edge has let in."""
        context = super().build(request)
        context.tenant = request.scope.get("a2a_tenant", "")
        return context

    def build_user(self, request: Request) -> CallerUser:
        """The caller that the edge has let in."""
        return CallerUser(request.scope["caller"])


def refuse(scope: Scope, error: A2AError, headers: Mapping[str, str] | None = None) -> Response:
    """An error in the words of the binding that a request came for."""
    payload = build_rest_error_payload(error)
    status = payload["error"]["code"]
    headers = {"Allow": "POST"} if isinstance(error, MethodNotAllowed) and not headers else headers
    if isinstance(error, TooManyRequests):
        headers = {**(headers or {}), "Retry-After": str(error.retry_after)}
    if scope["path"].startswith(f"{REST_03_PATH}/"):
        return JSONResponse(rest_03.named(payload), status, headers)
    if scope["path"] != JSONRPC_PATH:
        return JSONResponse(payload, status, headers)
    # JSON-RPC errors come with 200, but for what a proxy or a client library should act on by itself.
    http_status = status if type(error) in JSON_RPC_CODES else 200
    if isinstance(error, TooManyRequests) and _in_mesh(scope):
        http_status = 200  # daprd would take it for a failure of this agent, and stop others who call from there
    return JSONResponse(error_answer(scope.get("a2a_request_id"), error), http_status, headers)


def _in_mesh(scope: Scope) -> bool:
    """Whether a request has come through sidecars."""
    return APP_ID_HEADER in Headers(scope=scope)


def not_routed(request: Request, error: Exception) -> Response:
    """Exception handler of the HTTP+JSON routes: a path or method that none of them has."""
    assert isinstance(error, HTTPException)  # noqa: S101 -- what it is registered for
    if error.status_code == 405:  # noqa: PLR2004
        return refuse(request.scope, MethodNotAllowed(), error.headers or {})
    return refuse(request.scope, NO_OPERATION)


def check_version(version: str) -> None:
    """Raises VersionNotSupportedError. No version at all means 0.3 (A2A 1.0 §3.6.2)."""
    if not _VERSION.fullmatch(version):
        shown = repr(version[:20]) if version else "0.3 (none was sent)"
        raise VersionNotSupportedError(f"A2A-Version {shown} is not served here; send A2A-Version: {PROTOCOL_VERSION}")


def is_03(version: str) -> bool:
    """Whether an A2A-Version asks for 0.3, as none at all does."""
    return bool(_LEGACY_VERSION.fullmatch(version))


def _check_media_type(content_type: str, allowed: set[str]) -> None:
    media_type, _, parameters = content_type.lower().partition(";")
    if media_type.strip() not in allowed:
        raise ContentTypeNotSupportedError(
            f"Send {' or '.join(sorted(allowed))}, not {media_type.strip()[:50] or 'nothing'!r}"
        )
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters)
    if charset and charset[1] != "utf-8":
        raise ContentTypeNotSupportedError("JSON is sent in UTF-8")


def _settle_version(scope: Scope, headers: Mapping[str, str], *, legacy: bool = False) -> bool:
    """Check the version, and put it where the routes look for it: it may come as a query parameter (§3.6.1).

    Whether it is 0.3, where that may be (`legacy`).
    """
    version = headers.get("a2a-version", "")
    if not version and (version := _query(scope).get(VERSION_PARAMETER, "")):
        scope["headers"] = [*scope["headers"], (b"a2a-version", version.encode("latin-1", "replace"))]
    if legacy and is_03(version):
        return True
    check_version(version)
    return False


def _query(scope: Scope) -> dict[str, str]:
    """The query parameters; the last of a name counts, as for the routes."""
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
