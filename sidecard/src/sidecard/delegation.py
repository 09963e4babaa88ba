"""One way to call another agent: discover, verify its card, send, and track its task to where it rests."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import httpx
from a2a.client import Client, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError, A2AClientTimeoutError
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Role,
    SendMessageRequest,
    StreamResponse,
    TaskStatusUpdateEvent,
)
from a2a.types import Task as A2ATask
from a2a.utils.errors import A2AError, TaskNotCancelableError, TaskNotFoundError

from sidecard.card import CardCache, fetch_card, reached_at
from sidecard.errors import AgentUnavailable, CardRejected
from sidecard.refusals import UNAVAILABLE_CODE
from sidecard.registry import Registry
from sidecard.tasks.state import INTERRUPTED, TERMINAL
from sidecard.trust import TrustStore

VERIFIED_SECONDS = 30.0
"""How long a verified card is used before it is fetched and verified anew."""
UNACCEPTED_PATIENCE = 30.0
"""Seconds of trying before a task that the other agent has never taken is given up."""
ACCEPTED_PATIENCE = 900.0
"""Seconds of trying before a task that the other agent has taken, and then was not seen again, is given up."""
DRAIN_SECONDS = 0.5
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0)
RESTING = TERMINAL | INTERRUPTED


@dataclass(frozen=True, slots=True)
class _Known:
    client: Client
    until: float


class Mesh:
    """Delegation inside the Dapr mesh: an agent's address is its app-id, the transport is the own sidecar.

    `client` is an httpx client over `MeshTransport`. Messages are sent again under the same messageId until their task
    is seen at rest: the other agent recognises them, so sending, retrying and following again are one and the same.
    """

    def __init__(self, client: httpx.AsyncClient, registry: Registry, trust: TrustStore) -> None:
        self._http = client
        self._registry = registry
        self._trust = trust
        self._cards = CardCache()
        self._known: dict[str, _Known] = {}

    async def follow(self, agent: str, message: Message, tenant: str, accepted: Callable[[str], None]) -> A2ATask:
        """See `tasks.engine.Delegator`."""
        message.role = Role.ROLE_USER
        request = SendMessageRequest(message=message, tenant=tenant)
        attempt, last_sign, was_accepted = 0, time.monotonic(), bool(message.task_id)
        while True:
            try:
                client = await self._client(agent)
                async with contextlib.aclosing(_events(client, request)) as events:
                    async for task_id, state in events:
                        attempt, last_sign, was_accepted = 0, time.monotonic(), True
                        accepted(task_id)
                        if state in RESTING:
                            await _drain(events)
                            return await client.get_task(GetTaskRequest(id=task_id, tenant=tenant))
            except CardRejected as error:
                raise AgentUnavailable(f"{agent} is not called: {error}") from error
            except (AgentUnavailable, A2AError, httpx.HTTPError) as error:
                self._known.pop(agent, None)
                patience = ACCEPTED_PATIENCE if was_accepted else UNACCEPTED_PATIENCE
                if not _may_pass(error) or time.monotonic() - last_sign > patience:
                    raise AgentUnavailable(
                        f"{agent} can't be reached or does not take this: {_words(error)}"
                    ) from error
            await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            attempt += 1

    async def cancel(self, agent: str, task_id: str, tenant: str) -> None:
        """See `tasks.engine.Delegator`."""
        try:
            client = await self._client(agent)
            await client.cancel_task(CancelTaskRequest(id=task_id, tenant=tenant))
        except (TaskNotCancelableError, TaskNotFoundError):
            return
        except (CardRejected, A2AError, httpx.HTTPError) as error:
            raise AgentUnavailable(f"{agent} does not answer a cancel: {_words(error)}") from error

    async def _client(self, agent: str) -> Client:
        """A client for an agent whose card has just been verified, or was a moment ago."""
        known = self._known.get(agent)
        if known is None or known.until < time.monotonic():
            enrolled = await self._registry.agent(agent)
            verified = await fetch_card(self._http, f"http://{agent}", self._trust, agent=agent, cache=self._cards)
            if verified.digest != enrolled.card_digest:
                raise AgentUnavailable(
                    f"{agent} shows another card than the registry lists; it may be enrolling right now"
                )
            factory = ClientFactory(ClientConfig(httpx_client=self._http, streaming=True))
            known = _Known(
                factory.create(reached_at(verified.card, f"http://{agent}")), time.monotonic() + VERIFIED_SECONDS
            )
            self._known[agent] = known
        return known.client


async def _events(client: Client, request: SendMessageRequest) -> AsyncGenerator[tuple[str, int]]:
    """(task id, state) for each event of a message's stream."""
    stream = client.send_message(request)
    async for event in stream:
        status = _status(event)
        if status is not None:
            yield status


async def _drain(events: AsyncGenerator[tuple[str, int]]) -> None:
    """Let the other side end the stream, which it does at once (A2A 1.0 §11.7): cut off, it would count as failed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in events:
                pass


def _status(event: StreamResponse) -> tuple[str, int] | None:
    match event.WhichOneof("payload"):
        case "task":
            return event.task.id, event.task.status.state
        case "status_update":
            update: TaskStatusUpdateEvent = event.status_update
            return update.task_id, update.status.state
        case _:
            return None


def _may_pass(error: Exception) -> bool:
    """Whether trying again can help: the other side was not reached, or said that it can't right now."""
    if isinstance(error, AgentUnavailable | A2AClientTimeoutError | httpx.HTTPError):
        return not isinstance(error, httpx.HTTPStatusError) or error.response.status_code >= 500  # noqa: PLR2004
    cause = error.__cause__
    if isinstance(cause, httpx.HTTPStatusError):
        return cause.response.status_code >= 500 or cause.response.status_code == 429  # noqa: PLR2004
    if isinstance(cause, httpx.HTTPError):
        return True
    return isinstance(error, A2AClientError) and f"Error {UNAVAILABLE_CODE}" in error.message


def _words(error: Exception) -> str:
    return (str(error) or type(error).__name__).replace("\n", " ")[:300]
