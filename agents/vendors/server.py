"""The vendor register as an MCP tool server: streamable HTTP, stateless, JSON answers. Not an agent.

It answers its own sidecar only: every request but the probes must carry the app API token. That also keeps web pages
out, which is what MCP's check of the Host header is for: a page can't know the token. So that check is off, and the
server does not depend on how the sidecar spells the host.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import Field, SecretStr

from agents.vendors.register import LONGEST_NAME, Vendor, look_up
from sidecard.callers import Denied
from sidecard.screening.local import LocalScreen
from sidecard.screening.tools import ToolGuard
from sidecard.sidecar import OwnSidecarOnly
from sidecard.telemetry import Telemetry

MAX_BODY_BYTES = 64 * 1024
_NOT_READY = "APP_API_TOKEN is not set: run `sidecard bootstrap`, or set it to what the sidecar sends."


def create_app(
    app_api_token: SecretStr,
    telemetry: Telemetry | None = None,
    beside: Callable[[], Awaitable[None]] | None = None,
    denied: Callable[[], Awaitable[Denied]] | None = None,
) -> FastAPI:
    """The server as an ASGI app: POST /mcp, GET /healthz, GET /readyz. `beside` runs as long as it serves.

    A call without the token gets 401, one of an app that is `denied` 403, see `OwnSidecarOnly`. Without a
    token of its own the server refuses every call, and is not ready.
    """
    guard = ToolGuard("vendors", LocalScreen())
    mcp = _register(guard).streamable_http_app(
        json_response=True,
        stateless_http=True,
        max_request_body_size=MAX_BODY_BYTES,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with mcp.router.lifespan_context(mcp):
            await guard.start()
            work = asyncio.ensure_future(beside()) if beside else None
            yield
            if work:
                work.cancel()

    app = FastAPI(openapi_url=None, lifespan=lifespan)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        if app_api_token.get_secret_value():
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "not ready", "reason": _NOT_READY}, status_code=503)

    app.router.routes.extend(mcp.routes)
    app.add_middleware(OwnSidecarOnly, app_api_token=app_api_token, denied=denied)
    if telemetry:
        telemetry.instrument_app(app)
    return app


def _register(guard: ToolGuard) -> MCPServer:
    """The MCP server and its one tool, whose requests and results are inspected."""
    server: MCPServer = MCPServer(
        "vendors",
        title="Vendor register",
        instructions="Look a vendor up before paying it. A blocked vendor must not be paid.",
        version="1.0.0",
        log_level="WARNING",
    )

    @server.tool()
    @guard.inspected
    def lookup_vendor(
        name: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME, description="Name as on the receipt.")],
    ) -> Vendor:
        """Say whether a vendor may be paid, by its name; misspellings are forgiven. An unlisted vendor is unknown."""
        return look_up(name)

    return server
