"""One way to call another agent: discover, verify its card, send, and track its task to where it rests."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx
from a2a.client import Client, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError, A2AClientTimeoutError
from a2a.types import (
    AgentCard,
    Artifact,
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    Message,
    Role,
    SendMessageRequest,
    StreamResponse,
    TaskState,
    TaskStatus,
)
from a2a.types import Task as A2ATask
from a2a.utils.errors import (
    A2AError,
    InternalError,
    InvalidParamsError,
    MethodNotFoundError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from google.protobuf.json_format import ParseError

from sidecard.agent_card import same_contract
from sidecard.card import CardCache, fetch_card, reached_at
from sidecard.error_answers import refusal_of, words_of
from sidecard.errors import AccessDenied, AgentUnavailable, CardRejected
from sidecard.extension import URI
from sidecard.refusals import Unavailable
from sidecard.registry import Registry
from sidecard.streamed import fold
from sidecard.tasks.states import INTERRUPTED, TERMINAL
from sidecard.tasks.watch import NotTaken, Refused
from sidecard.trust import TrustStore

log = logging.getLogger("sidecard")

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
    """An agent's client, until when its card is believed, and whether that declares our extension."""

    client: Client
    until: float
    extended: bool


class Mesh:
    """Delegation inside the Dapr mesh: an agent's address is its app-id, the transport is the own sidecar.

    `client` is an httpx client over `MeshTransport`. Messages are sent again under the same messageId until their task
    is seen at rest: the other agent recognises them, so sending, retrying and following again are one and the same.
    `clock` gives seconds, `pause` waits that many.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        registry: Registry,
        trust: TrustStore,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock, self._pause = clock, pause
        self._http = client
        self._registry = registry
        self._trust = trust
        self._cards = CardCache()
        self._known: dict[str, _Known] = {}

    async def follow(self, agent: str, message: Message, tenant: str, accepted: Callable[[str], None]) -> A2ATask:
        """See `tasks.watch.Delegator`."""
        message.role = Role.ROLE_USER
        request = SendMessageRequest(message=message, tenant=tenant)
        attempt, trying_since, was_accepted = 0, None, bool(message.task_id)
        nothing_came_of_it = True

        def heard(task_id: str, state: int) -> None:
            nonlocal attempt, trying_since, was_accepted
            attempt, trying_since, was_accepted = 0, None, True
            if state not in TERMINAL:
                accepted(task_id)

        while True:
            sent = False
            failure: Exception = AgentUnavailable("its stream ends, and its task is not at rest")
            try:
                client = await self._client(agent)
                sent = True
                task = await _listen(client, request, heard)
                if task is not None:
                    return task
            except CardRejected as error:
                unavailable = NotTaken if nothing_came_of_it else AgentUnavailable
                raise unavailable(f"{agent} is not called: {error}") from error
            except (AgentUnavailable, A2AError, httpx.HTTPError, ParseError) as error:
                self._known.pop(agent, None)
                failure = error
            nothing_came_of_it = nothing_came_of_it and not was_accepted and (not sent or _refuses(failure))
            now = self._clock()
            trying_since = now if trying_since is None else trying_since
            patience = ACCEPTED_PATIENCE if was_accepted else UNACCEPTED_PATIENCE
            if not _may_pass(failure) or now - trying_since > patience:
                unavailable = NotTaken if nothing_came_of_it else AgentUnavailable
                raise unavailable(f"{agent} can't be reached or does not take this: {_words(failure)}") from failure
            await self._pause(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            attempt += 1

    async def cancel(self, agent: str, task_id: str, tenant: str) -> None:
        """See `tasks.watch.Delegator`."""
        try:
            client = await self._client(agent)
            await client.cancel_task(CancelTaskRequest(id=task_id, tenant=tenant))
        except (TaskNotCancelableError, TaskNotFoundError):
            return
        except (CardRejected, A2AError, httpx.HTTPError, ParseError) as error:
            raise _not_canceled(agent, error) from error

    async def withdraw(self, agent: str, message: Message, tenant: str) -> None:
        """See `tasks.watch.Delegator`: the same message again, with a word of our extension (`extension.Sent`).

        An agent that does not know the word takes the message as it is: what it makes of it is canceled at once.
        """
        try:
            known = await self._verified(agent)
            if not known.extended:
                log.error(
                    "%s may have taken the message %s and never said so, and has no way to withdraw it: see by hand "
                    "whether it works on it",
                    agent,
                    message.message_id,
                )
                return
            message.role = Role.ROLE_USER
            message.metadata.fields[URI].struct_value.fields["withdraw"].bool_value = True
            request = SendMessageRequest(message=message, tenant=tenant)
            async with contextlib.aclosing(_events(known.client, request)) as events:
                async for event in events:
                    task_id, state = _status(event)
                    if task_id and state not in TERMINAL:
                        await self.cancel(agent, task_id, tenant)
                    await _drain(events)
                    return
        except TaskNotFoundError:
            return  # its task has expired
        except (CardRejected, A2AError, httpx.HTTPError, ParseError) as error:
            raise _not_canceled(agent, error) from error
        raise AgentUnavailable(f"{agent} says nothing to a withdrawal")

    async def another(self, skill: str, like: str, tried: Sequence[str], tenant: str) -> str:
        """See `tasks.watch.Delegator`: the first by name whose card for this app has the skill with the same contract.

        What a card for a caller lists, that caller may invoke: so nobody is chosen who would refuse to be asked.
        """
        listed = await self._registry.agents()
        candidates = [one.app_id for one in listed if one.verified_at and skill in one.skills]
        if not (untried := [agent for agent in sorted(candidates) if agent not in tried]):
            return ""
        wanted = await self._card_for_us(like, tenant)
        for agent in untried:
            try:
                offered = await self._card_for_us(agent, tenant)
            except AgentUnavailable as error:
                log.info("%s is not asked for %s instead of %s: %s", agent, skill, like, error)
                continue
            if same_contract(wanted, offered, skill):
                return agent
        return ""

    async def _card_for_us(self, agent: str, tenant: str) -> AgentCard:
        """An agent's card as it is for this app. Raises AgentUnavailable."""
        try:
            client = await self._client(agent)
            return await client.get_extended_agent_card(GetExtendedAgentCardRequest(tenant=tenant))
        except (CardRejected, A2AError, httpx.HTTPError, ParseError) as error:
            raise AgentUnavailable(f"{agent} does not show this app its card: {_words(error)}") from error

    async def _client(self, agent: str) -> Client:
        return (await self._verified(agent)).client

    async def _verified(self, agent: str) -> _Known:
        """A client for an agent whose card has just been verified, or was a moment ago."""
        known = self._known.get(agent)
        if known is None or known.until < self._clock():
            enrolled = await self._registry.agent(agent)
            verified = await fetch_card(self._http, f"http://{agent}", self._trust, agent=agent, cache=self._cards)
            if verified.digest != enrolled.card_digest:
                raise AgentUnavailable(
                    f"{agent} shows another card than the registry lists; it may be enrolling right now"
                )
            factory = ClientFactory(ClientConfig(httpx_client=self._http, streaming=True))
            reached = reached_at(verified.card, f"http://{agent}")
            extended = any(extension.uri == URI for extension in verified.card.capabilities.extensions)
            known = _Known(factory.create(reached), self._clock() + VERIFIED_SECONDS, extended)
            self._known[agent] = known
        return known


async def _listen(client: Client, request: SendMessageRequest, heard: Callable[[str, int], None]) -> A2ATask | None:
    """Send a message and follow its task: the task once it rests, None when the stream ends before."""
    seen: A2ATask | None = None
    async with contextlib.aclosing(_events(client, request)) as events:
        async for event in events:
            if event.HasField("message"):
                return _task_of(event.message)
            task_id, state = _status(event)
            heard(task_id, state)
            if seen is not None or event.HasField("task"):
                seen = fold(seen or A2ATask(), event)
            if state not in RESTING:
                continue
            await _drain(events)
            if state in TERMINAL and seen is not None:
                return seen  # its stream has told all of it, and nothing changes it any more
            task = await client.get_task(GetTaskRequest(id=task_id, tenant=request.tenant))
            if task.status.state in RESTING:  # else somebody has just answered it
                return task
    return None


async def _events(client: Client, request: SendMessageRequest) -> AsyncGenerator[StreamResponse]:
    """The events of a message's stream that say something."""
    async for event in client.send_message(request):
        if event.WhichOneof("payload"):
            yield event


async def _drain(events: AsyncGenerator[StreamResponse]) -> None:
    """Let the other side end the stream, which it does at once (A2A 1.0 §11.7): cut off, it would count as failed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in events:
                pass


def _status(event: StreamResponse) -> tuple[str, int]:
    """The task of an event, and the state that it tells, if any."""
    match event.WhichOneof("payload"):
        case "task":
            return event.task.id, event.task.status.state
        case "status_update":
            return event.status_update.task_id, event.status_update.status.state
        case _:
            return event.artifact_update.task_id, TaskState.TASK_STATE_UNSPECIFIED


def _task_of(message: Message) -> A2ATask:
    """An answer without a task (A2A 1.0 §3.1.1), as a task that is done: its parts are the result."""
    return A2ATask(
        id=message.task_id,
        context_id=message.context_id,
        status=TaskStatus(state=TaskState.TASK_STATE_COMPLETED),
        artifacts=[Artifact(artifact_id="result", name="result", parts=message.parts)],
    )


def _may_pass(error: Exception) -> bool:
    """Whether trying again can help: the other side was not reached, or said that it can't right now."""
    if isinstance(error, AccessDenied):
        return False
    if isinstance(error, AgentUnavailable | A2AClientTimeoutError | httpx.HTTPError):
        return not isinstance(error, httpx.HTTPStatusError) or error.response.status_code >= 500  # noqa: PLR2004
    cause = error.__cause__
    if isinstance(cause, httpx.HTTPStatusError):
        return cause.response.status_code >= 500 or cause.response.status_code == 429  # noqa: PLR2004
    if isinstance(cause, httpx.HTTPError):
        return True
    return isinstance(error, A2AClientError) and isinstance(refusal_of(error), Unavailable)


def _refuses(error: Exception) -> bool:
    """Whether this is the other side's word that it has not taken a message."""
    answer = error if isinstance(error, httpx.HTTPStatusError) else error.__cause__
    if isinstance(answer, httpx.HTTPStatusError) and answer.response.status_code < 500:  # noqa: PLR2004
        return True
    said = refusal_of(error) if isinstance(error, A2AClientError) else error
    return isinstance(said, A2AError | AccessDenied) and not isinstance(said, Unavailable | InternalError)


def _not_canceled(agent: str, error: Exception) -> AgentUnavailable:
    """Why it can't be said that an agent has canceled something, or will not. A right may come back, a method won't."""
    final = isinstance(error, MethodNotFoundError | UnsupportedOperationError | InvalidParamsError)
    return (Refused if final else AgentUnavailable)(f"{agent} does not cancel: {_words(error)}")


def _words(error: Exception) -> str:
    """What went wrong, in one line: in the other side's own words, where it gave some."""
    if isinstance(error, ParseError):
        return f"what it answers is not A2A 1.0 ({str(error)[:200]})"
    answer = next((e.response for e in (error, error.__cause__) if isinstance(e, httpx.HTTPStatusError)), None)
    words = f"HTTP {answer.status_code}: {words_of(answer)}" if answer else str(error)
    return (words or type(error).__name__).replace("\n", " ")[:300]
