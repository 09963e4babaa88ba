"""The HTTP+JSON binding (A2A 1.0 §11): what its paths mean, before and behind the SDK's routes."""

import re
from typing import Any

from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
)
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Send

from sidecard.agent_card import REST_03_PATH, REST_PATH
from sidecard.extension import URI
from sidecard.protected_resource import INSUFFICIENT_SCOPE

_REST_REQUESTS = (
    ("POST", re.compile(r"/message:(send|stream)"), SendMessageRequest),
    ("POST", re.compile(r"/tasks/[^/]+/pushNotificationConfigs"), TaskPushNotificationConfig),
    ("POST", re.compile(r"/tasks/[^/]+:cancel"), CancelTaskRequest),
    ("POST", re.compile(r"/tasks/[^/]+:subscribe"), SubscribeToTaskRequest),
    ("GET", re.compile(r"/tasks"), ListTasksRequest),
    ("GET", re.compile(r"/tasks/[^/]+/pushNotificationConfigs"), ListTaskPushNotificationConfigsRequest),
    ("GET", re.compile(r"/tasks/[^/]+"), GetTaskRequest),
)
BODILESS = (CancelTaskRequest, SubscribeToTaskRequest)
"""Requests that need no body."""
STREAMS = ("/message:stream", ":subscribe")
"""How the paths of operations end that answer by a stream."""
_EVENT_ID = re.compile(rb'"%s": ?\{"event": ?"([0-9.]+)"' % re.escape(URI.encode()))
_EVENT_TAIL = 512
"""Bytes at an event's end that hold its metadata."""


def request_of(method: str, path: str) -> type[Any] | None:
    """What a request on this path must be; the path may begin with a tenant."""
    path = path.removeprefix(REST_PATH)
    without_tenant = "/" + path[1:].partition("/")[2]
    for candidate in (path, without_tenant):
        for verb, pattern, request in _REST_REQUESTS:
            if verb == method.replace("HEAD", "GET") and pattern.fullmatch(candidate):
                return request
    return None


def tenant_in(path: str) -> str:
    """The tenant that the path of a request over HTTP+JSON begins with, if it does; in A2A 0.3 there are none."""
    if path.startswith(f"{REST_03_PATH}/"):
        return ""
    first, _, rest = path.removeprefix(f"{REST_PATH}/").partition("/")
    return first if rest and first != "tasks" else ""


def replay(body: bytes, receive: Receive) -> Receive:
    """The body again, for the routes, since it was read before them."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def finished(send: Send, *, with_token: bool, once: bool = False) -> Send:
    """Answers of HTTP+JSON as they leave: a refusal for want of rights says so to whoever got the caller's token.

    What is given out just this `once` must not be kept on its way (RFC 9111 §5.2.2.5). Each server-sent event has its
    `id`: the place that the event's metadata, which end its JSON, name.
    """
    streams = False

    async def sending(message: Message) -> None:
        nonlocal streams
        if message["type"] == "http.response.start":
            headers = Headers(raw=message["headers"])
            streams = headers.get("content-type", "").startswith("text/event-stream")
            if with_token and message["status"] == 403:  # noqa: PLR2004 -- Forbidden
                more = (b"www-authenticate", INSUFFICIENT_SCOPE.encode())
                message = {**message, "headers": [*message["headers"], more]}
            if once:
                message = {**message, "headers": [*message["headers"], (b"cache-control", b"no-store")]}
        elif streams and (found := _EVENT_ID.findall(message.get("body", b"")[-_EVENT_TAIL:])):
            message = {**message, "body": b"id: " + found[-1] + b"\r\n" + message["body"]}
        await send(message)

    return sending
