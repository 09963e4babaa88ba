"""Looks a vendor up in the vendor register: an MCP call through the own sidecar."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, TextContent
from opentelemetry.propagate import inject
from pydantic import BaseModel, ValidationError

from agents.expenses.policy import VendorStatus
from sidecard.errors import AgentUnavailable

TIMEOUT_SECONDS = 10.0


class Vendor(BaseModel):
    """What the register says of a name, as far as a claim's review needs it."""

    name: str
    status: VendorStatus
    risk_note: str = ""


@asynccontextmanager
async def register_client(
    dapr_http_port: int, dapr_api_token: str, *, base_url: str = ""
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client whose requests go to the vendor register by the own sidecar, with its token and the current trace."""
    async with httpx2.AsyncClient(
        base_url=base_url or f"http://127.0.0.1:{dapr_http_port}/v1.0/invoke/vendors/method/",
        headers={"dapr-api-token": dapr_api_token} if dapr_api_token else {},
        timeout=TIMEOUT_SECONDS,
        trust_env=False,  # a proxy from the environment has no business between an app and its sidecar
        event_hooks={"request": [_trace], "response": [_refuse]},
    ) as client:
        yield client


async def look_up(name: str, *, client: httpx2.AsyncClient) -> Vendor:
    """The vendor of that name; one that the register does not list is of status unknown.

    `client` is a `register_client`. Safe to repeat: it only reads.

    Raises:
        AgentUnavailable: The sidecar or the register does not answer, refuses, or answers something else than a vendor.
    """
    transport = streamable_http_client(str(client.base_url.join("mcp")), http_client=client)
    try:
        async with Client(transport, read_timeout_seconds=TIMEOUT_SECONDS) as register:
            result = await register.call_tool("lookup_vendor", {"name": name})
    except BaseExceptionGroup as failures:  # the transport runs in task groups, which wrap what fails in them
        known, other = failures.split((httpx2.HTTPError, MCPError, OSError, TimeoutError))
        if known is None or other is not None:
            raise
        raise AgentUnavailable(_explained(_first(known))) from failures
    except (httpx2.HTTPError, MCPError, OSError) as failed:
        raise AgentUnavailable(_explained(failed)) from failed
    if result.is_error:
        raise AgentUnavailable(f"The vendor register could not look up “{name[:60]}”: {_text(result)}")
    try:
        return Vendor.model_validate(result.structured_content)
    except ValidationError as invalid:
        raise AgentUnavailable(
            "The vendor register's answer is no vendor: is its version older than ours?"
        ) from invalid


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = failures.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _explained(failed: BaseException) -> str:
    """What happened and what to do."""
    if isinstance(failed, _Refused):
        return f"The vendor register can't be asked: {failed}"
    if isinstance(failed, httpx2.ConnectError):
        return "The own sidecar does not answer, so vendors can't be looked up: is it running?"
    if isinstance(failed, (httpx2.TimeoutException, TimeoutError)):
        return f"The vendor register did not answer within {TIMEOUT_SECONDS:.0f} seconds."
    return f"The vendor register can't be asked now: {failed or type(failed).__name__}"


def _text(result: CallToolResult) -> str:
    return " ".join(block.text for block in result.content if isinstance(block, TextContent))[:300]


class _Refused(httpx2.HTTPError):
    """The sidecar, or the register behind it, answered with an HTTP error that is no MCP answer."""


async def _trace(request: httpx2.Request) -> None:
    """Hands the current trace on; the OpenTelemetry instrumentation does not know this client."""
    inject(request.headers)


async def _refuse(response: httpx2.Response) -> None:
    """Stops at an error of the sidecar's own, whose status and words the MCP client would swallow."""
    if response.status_code in _REFUSALS:
        body = (await response.aread()).decode(errors="replace")
        raise _Refused(f"{_REFUSALS[response.status_code]} (HTTP {response.status_code}: {body[:200]})")


_REFUSALS = {
    401: "a token is wrong; run `sidecard bootstrap` and start both apps anew",
    403: "its access rules do not list this caller; see components/access/vendors.yaml",
    500: "its sidecar can't reach it; is it running?",
    502: "its sidecar can't reach it; is it running?",
    503: "it is not ready",
    504: "it took too long",
}
