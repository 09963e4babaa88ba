"""The own Dapr sidecar, as an app meets it: the way to other apps and to secrets, and who may come in through it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from yarl import URL

from sidecard.callers import TOKEN_HEADER, Claims, Denied
from sidecard.connections import proven
from sidecard.errors import ConfigurationError, SidecardError, StoreUnavailable
from sidecard.loopback import NO_CERTIFICATES
from sidecard.settings import Settings

SECRET_STORE = "secrets"  # noqa: S105 -- a component's name
"""The Dapr component that holds them."""
PROBES = frozenset({"/healthz", "/readyz"})
"""What anybody may ask of an app: whether it lives, and whether it is ready."""


class MeshTransport(httpx.AsyncBaseTransport):
    """Carries `http://<app-id>/<path>` to that app through the own sidecar, with its API token.

    So a client of the mesh is an ordinary httpx client; the answers are the other app's, or Dapr's own errors
    (403 when its access rules refuse, 500 when the app can't be found). daprd 1.18 answers 200 text/event-stream,
    whatever the app said, where a request asks for a stream: a refusal, which is JSON, is called JSON again here, or
    it would be read as a stream without events.
    """

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._sidecar = httpx.URL(f"http://127.0.0.1:{settings.dapr_http_port}")
        self._token = settings.dapr_api_token.get_secret_value()
        self._transport = transport or AiohttpTransport(verify=NO_CERTIFICATES, client=_connections)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request through the sidecar."""
        app = f"/v1.0/invoke/{quote(request.url.host, safe='')}/method/"
        path = app.encode() + request.url.raw_path.removeprefix(b"/")
        headers = request.headers.copy()
        headers["host"], headers[TOKEN_HEADER] = self._sidecar.netloc.decode(), self._token
        url = self._sidecar.copy_with(raw_path=path)
        if not URL(str(url)).raw_path.startswith(app):  # aiohttp resolves "%2e%2e", and would leave the app for others
            raise httpx.UnsupportedProtocol(f"{request.url} is no path of {request.url.host}", request=request)
        carried = httpx.Request(
            request.method, url, headers=headers, extensions=request.extensions, **_body_of(request)
        )
        try:
            response = await self._transport.handle_async_request(carried)
        except (httpx.ConnectTimeout, aiohttp.ClientError) as error:
            raise _named(error, request) from error.__cause__
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = body = _Peeked(response.stream)
            if (await body.peek()).lstrip().startswith(b"{"):  # no field of an event begins so
                response.headers["content-type"] = "application/json"
        return response

    async def aclose(self) -> None:
        """Close the connections to the sidecar."""
        await self._transport.aclose()


def _named(error: Exception, request: httpx.Request) -> Exception:
    """What went wrong, by httpx's name for it: httpx-aiohttp has none for some of it, and a wrong one for the rest."""
    cause = error.__cause__ if isinstance(error, httpx.ConnectTimeout) else error
    if isinstance(cause, aiohttp.ClientConnectorError):
        return httpx.ConnectError(str(cause), request=request)
    if isinstance(cause, aiohttp.ClientError) and not isinstance(cause, TimeoutError):
        return httpx.RemoteProtocolError(str(cause), request=request)
    return error


def _connections() -> aiohttp.ClientSession:
    """As many as are needed: each task of another agent that is followed holds one, for hours if it takes hours."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())


def _body_of(request: httpx.Request) -> dict[str, Any]:
    """Known as a whole where it is: a stream costs more to send."""
    try:
        return {"content": request.content}
    except httpx.RequestNotRead:
        return {"stream": request.stream}


class _Peeked(httpx.AsyncByteStream):
    """A body whose first bytes were looked at before it is read."""

    def __init__(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> None:
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 -- it comes from an async transport
        self._stream, self._rest, self._first = stream, aiter(stream), b""

    async def peek(self) -> bytes:
        """The first bytes; waits for them."""
        try:
            self._first = await anext(self._rest, b"")
        except BaseException:
            await self.aclose()
            raise
        return self._first

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        async for chunk in self._rest:
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def sidecar_client(settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """A client of the sidecar's own HTTP API (state, secrets, health), base URL and API token set."""
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{settings.dapr_http_port}/v1.0",
        headers={TOKEN_HEADER: settings.dapr_api_token.get_secret_value()},
        verify=NO_CERTIFICATES,
        transport=transport,
        timeout=5.0,
        trust_env=False,  # a proxy named in the environment would be handed the token and the secrets
    )


async def read_secret(sidecar: httpx.AsyncClient, name: str, key: str) -> str:
    """One value of a secret, from the sidecar's secret store. `sidecar` is a `sidecar_client`.

    Raises:
        StoreUnavailable: the sidecar can't be reached or its store fails now.
        ConfigurationError: the secret isn't there, or this app's Configuration does not let it read it.
    """
    where = f"secret '{name}' ({key}) of component '{SECRET_STORE}'"
    try:
        response = await sidecar.get(f"/secrets/{SECRET_STORE}/{name}")
    except httpx.HTTPError as error:
        raise StoreUnavailable(f"The {where} can't be read: the own sidecar does not answer; start it.") from error
    if response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND}:
        raise ConfigurationError(
            f"The {where} is not readable here (HTTP {response.status_code}): "
            "check DAPR_API_TOKEN and the allowedSecrets in this app's Configuration."
        )
    value: Any = None
    if response.is_success and response.content:
        try:
            value = response.json().get(key)
        except (ValueError, AttributeError):
            value = None
    elif not response.is_success:
        raise StoreUnavailable(f"The {where} can't be read now (HTTP {response.status_code}): see the sidecar's log.")
    if not isinstance(value, str):
        raise ConfigurationError(f"The {where} does not exist: run `sidecard bootstrap` and restart the sidecar.")
    return value


class OwnSidecarOnly:
    """ASGI middleware: every path but the probes answers only the own sidecar, others get 401.

    With `denied`, apps that are revoked get 403; everybody gets 503 as long as it is not known who is.
    """

    def __init__(
        self, app: ASGIApp, app_api_token: SecretStr, denied: Callable[[], Awaitable[Denied]] | None = None
    ) -> None:
        """`denied` raises SidecardError when it is not known who is."""
        self._app, self._token, self._denied = app, app_api_token.get_secret_value(), denied

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it before its body is read."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            refusal = await self._refusal(scope)
            await (refusal or self._app)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _refusal(self, scope: Scope) -> JSONResponse | None:
        if scope["path"] in PROBES and scope["method"] in {"GET", "HEAD"}:
            return None
        claims = Claims.of(Headers(scope=scope).items())
        if not claims.came_through_sidecar(self._token):
            words = "Only this app's own Dapr sidecar may call this: go through yours."
            return JSONResponse({"error": words}, 401)
        proven(scope)
        if self._denied is None:
            return None
        try:
            revoked = (await self._denied()).covers((f"app:{claims.app_id}", f"caller:{claims.app_id}"))
        except SidecardError as error:
            return JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"})
        return JSONResponse({"error": f"'{claims.app_id}' is revoked."}, 403) if revoked else None
