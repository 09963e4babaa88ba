"""The MCP server, and the expense agent's client of it, over real HTTP."""

import socket
from contextlib import asynccontextmanager

import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from opentelemetry import trace
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from agents.expenses.vendor_lookup import look_up, register_client
from agents.vendors.server import create_app
from sidecard.errors import AgentUnavailable
from sidecard.telemetry import Telemetry, continue_trace
from tests.listening import serving

TOKEN = "the-app-token"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@asynccontextmanager
async def running(app):
    """The app's base URL, on a free port."""
    async with serving(uvicorn.Server(uvicorn.Config(app, log_level="error"))) as port:
        yield f"http://127.0.0.1:{port}"


def client_of(url, token=TOKEN):
    """What `register_client` makes, pointed at the app itself: the sidecar hands its token on."""
    return register_client(0, token, base_url=f"{url}/")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_tool_is_listed_and_called(mode):
    """Clients of both generations of the protocol find it, described, and get a structured answer."""
    async with (
        running(create_app(SecretStr(TOKEN))) as url,
        httpx2.AsyncClient(headers={"dapr-api-token": TOKEN}) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as client,
    ):
        (tool,) = (await client.list_tools()).tools
        assert (tool.name, bool(tool.description)) == ("lookup_vendor", True)
        assert tool.input_schema["properties"]["name"]["description"]
        answer = (await client.call_tool("lookup_vendor", {"name": "Shady Rentals"})).structured_content
        assert (answer["id"], answer["status"]) == ("V-1901", "blocked")
        assert (await client.call_tool("lookup_vendor", {"name": ""})).is_error


async def test_a_vendor_is_looked_up_through_the_client():
    """A listed vendor says whether it may be paid, an unlisted one is unknown."""
    async with running(create_app(SecretStr(TOKEN))) as url, client_of(url) as client:
        vendor = await look_up("hotel avenida", client=client)
        assert (vendor.name, vendor.status) == ("Hotel Avenida", "approved")
        assert (await look_up("Nobody at all", client=client)).status == "unknown"


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_only_the_own_sidecar_is_answered(token):
    """Without the app's token every path is closed but the probes; the client says what is wrong."""
    async with running(create_app(SecretStr(TOKEN))) as url, client_of(url, token) as client:
        with pytest.raises(AgentUnavailable, match="a token is wrong"):
            await look_up("Hotel Avenida", client=client)
    async with running(create_app(SecretStr(TOKEN))) as url, httpx2.AsyncClient(base_url=url) as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.get("/elsewhere")).status_code == 401


async def test_without_a_token_of_its_own_it_answers_nobody():
    """It fails closed, and is not ready."""
    async with running(create_app(SecretStr(""))) as url, httpx2.AsyncClient(base_url=url) as http:
        assert (await http.post("/mcp", json={}, headers={"dapr-api-token": ""})).status_code == 401
        assert (await http.get("/readyz")).status_code == 503


async def test_any_host_and_bad_bodies_are_answered():
    """The sidecar may spell the host as it likes; what is no MCP gets an error, and no traceback."""
    headers = {
        "dapr-api-token": TOKEN,
        "host": "vendors",
        "content-type": "application/json",
        "accept": "application/json",
    }
    async with running(create_app(SecretStr(TOKEN))) as url, httpx2.AsyncClient(base_url=url, headers=headers) as http:
        for body in (b"", b"{", b"\xff", b"[" * 10_000, b"3"):
            assert 400 <= (await http.post("/mcp", content=body)).status_code < 500
        assert (await http.post("/mcp", content=b"x" * 100_000)).status_code == 413


async def test_a_dead_sidecar_is_told():
    """The client says what does not answer."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with register_client(unused.getsockname()[1], "") as client:
            with pytest.raises(AgentUnavailable, match="own sidecar does not answer"):
                await look_up("Hotel Avenida", client=client)


@pytest.mark.parametrize(("status", "reason"), [(403, "access rules"), (500, "is it running"), (404, "Not Found")])
async def test_what_the_sidecar_refuses_is_told(status, reason):
    """Dapr's own errors are explained."""

    async def refuse(scope, receive, send):
        if scope["type"] == "http":
            await Request(scope, receive).body()
            await PlainTextResponse("ERR", status)(scope, receive, send)

    async with running(refuse) as url, client_of(url) as client:
        with pytest.raises(AgentUnavailable, match=reason):
            await look_up("Hotel Avenida", client=client)


async def test_an_answer_that_is_no_vendor_is_told():
    """Another server behind the same name is not believed."""
    async with running(create_app(SecretStr(TOKEN))) as url:

        async def garble(response):
            await response.aread()
            response._content = response.content.replace(b'"approved"', b'"splendid"')

        async with client_of(url) as client:
            client.event_hooks = {**client.event_hooks, "response": [garble]}
            with pytest.raises(AgentUnavailable):
                await look_up("Hotel Avenida", client=client)


async def test_the_callers_trace_arrives():
    """Requests carry the trace they are made in, and the server goes on with it."""
    seen = []
    app = create_app(SecretStr(TOKEN), Telemetry())

    @app.middleware("http")
    async def note(request, call_next):
        seen.append((request.headers.get("traceparent", ""), trace.get_current_span().get_span_context().trace_id))
        return await call_next(request)

    async with running(app) as url, client_of(url) as client:
        with continue_trace(TRACEPARENT):
            await look_up("Hotel Avenida", client=client)
    assert seen
    assert all(header.split("-")[1] == TRACEPARENT.split("-")[1] for header, _ in seen)
