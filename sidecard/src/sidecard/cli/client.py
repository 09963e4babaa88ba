"""One agent, as a person or a program outside talks to it: by the official client, its card verified beforehand.

async with AgentClient.through_desk(Project(), "orchestrator") as desk:
    task = await desk.send("Book me a flight from London to Lisbon on 3 March for Ada Lovelace")
    task = await desk.answer(task, "LHR")
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Self, Unpack, cast

import httpx
from a2a.client import Client, ClientCallContext, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskState,
)
from a2a.utils.errors import A2AError, TaskNotFoundError, UnsupportedOperationError

from sidecard.card import fetch_card, reached_at
from sidecard.cli import way
from sidecard.cli.message import Content, compose
from sidecard.cli.project import Project
from sidecard.error_answers import refusal_of
from sidecard.errors import AgentUnavailable, CardRejected, ConfigurationError, SidecardError
from sidecard.extension import Asked, Granted
from sidecard.refusals import Unavailable
from sidecard.streamed import fold, is_last, place_of, task_id_of
from sidecard.tasks import reveal
from sidecard.tasks.handler import LAST_EVENT_HEADER
from sidecard.telemetry import Telemetry
from sidecard.trust import VerifiedCard, verify

PATIENCE = 30.0
"""Seconds of trying, without any sign of an agent, before a stream is given up."""
KEPT_OPEN_SECONDS = 20.0
"""A stream that ends as it should after more than this was kept open by the agent's pings, even if it had no event."""
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0)
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)  # a silent stream still has a ping every 15 s


class AgentClient:
    """Talks to one agent, whose card has been fetched and verified when the `async with` block begins.

    Methods raise what the agent refuses with (`a2a.utils.errors.A2AError` and its kinds, `sidecard.refusals`),
    AgentUnavailable when it can't be reached, ConfigurationError when nobody lets this caller in; entering the block
    also CardRejected. Work that waits is resumed over lost connections and restarts of the agent, for `PATIENCE`.
    """

    def __init__(self, route: way.Way, *, tenant: str = "", telemetry: Telemetry | None = None) -> None:
        self.agent = route.agent
        self._route, self._tenant = route, tenant
        self._telemetry = telemetry or Telemetry()
        self._verified: VerifiedCard | None = None

    @classmethod
    def through_desk(
        cls, project: Project, agent: str, *, tenant: str = "", telemetry: Telemetry | None = None
    ) -> Self:
        """A client that goes through the user's sidecar, as caller `desk`. Raises ConfigurationError."""
        return cls(way.through_desk(project, agent), tenant=tenant, telemetry=telemetry)

    @classmethod
    def direct(
        cls, project: Project, agent: str, *, caller: str, tenant: str = "", telemetry: Telemetry | None = None
    ) -> Self:
        """A client that goes to the agent's own port with the key of a caller. Raises ConfigurationError."""
        return cls(way.directly(project, agent, caller), tenant=tenant, telemetry=telemetry)

    @property
    def verified(self) -> VerifiedCard:
        """The agent's card and who signed it; inside the block only."""
        if self._verified is None:
            raise RuntimeError("use `async with` to open the client first")
        return self._verified

    async def __aenter__(self) -> Self:
        self._http = httpx.AsyncClient(transport=self._route.transport, timeout=_TIMEOUT)
        self._telemetry.instrument_client(self._http)
        try:
            self._verified = await fetch_card(self._http, self._route.url, self._route.trust, agent=self.agent)
            self._http.headers.update(self._route.headers)
            if self._route.auth is not None:
                self._http.auth = self._route.auth
            here = reached_at(self._verified.card, self._route.url)
            self._streaming = self._client(here, streaming=True)
            self._unary = self._client(here, streaming=False)
        except BaseException:
            await self._http.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    def _client(self, card: AgentCard, *, streaming: bool) -> Client:
        return ClientFactory(ClientConfig(httpx_client=self._http, streaming=streaming)).create(card)

    # -- saying something ---------------------------------------------------------------------------------------------

    async def send(
        self,
        text: str = "",
        *,
        wait: bool = True,
        seen: Callable[[Task], object] | None = None,
        **content: Unpack[Content],
    ) -> Task:
        """Send a message; returns its task once that has ended or waits for somebody, or at once without `wait`.

        `seen` is called with the task as it stands, each time something of it is heard. Whoever answers another's
        question does not see the task afterwards: they get what the answer's own stream told.
        """
        task = Task()
        if not wait:
            request = self._request(text, content)
            request.configuration.return_immediately = True
            with self._in_our_words():
                async for event in self._unary.send_message(request):
                    task = fold(task, event)
            return task
        async with contextlib.aclosing(self.stream(text, **content)) as events:
            async for event in events:
                task = fold(task, event)
                if seen:
                    seen(task)
        with contextlib.suppress(TaskNotFoundError):
            return await self.get(task.id) if task.id else task
        return task

    async def answer(self, task: Task, text: str = "", *, wait: bool = True, **content: Unpack[Content]) -> Task:
        """Answer the question that a task waits with; see `send`."""
        content["answers"] = task
        return await self.send(text, wait=wait, **content)

    async def decide(self, task: Task, *, granted: bool, seen: Callable[[Task], object] | None = None) -> Task:
        """Grant or refuse the authority that a task of one's own waits for; see `send`."""
        asked = Asked.of(task.status.message)
        authority = asked.authority if asked else ""
        words = f"{'Granted' if granted else 'Refused'}: {authority}"
        return await self.send(words, answers=task, grant=Granted(authority=authority, granted=granted), seen=seen)

    async def try_answer(self, task: Task, text: str = "", **content: Unpack[Content]) -> str:
        """Answer, and return the agent's reason when it refuses that; empty when it takes the answer."""
        try:
            await self.answer(task, text, wait=False, **content)
        except A2AError as refusal:
            return refusal.message
        return ""

    async def stream(self, text: str = "", **content: Unpack[Content]) -> AsyncGenerator[StreamResponse]:
        """Send a message, and give every event of its task until that has ended or waits for somebody.

        A stream that ends before is resumed by itself, behind the last event that was seen: none comes twice. An agent
        that gives its events no place (it is none of ours) then shows the task as it is by now, as a `task` event.
        """
        async with contextlib.aclosing(self._events(self._request(text, content), "")) as events:
            async for event in events:
                yield event

    async def follow(self, task_id: str) -> AsyncGenerator[StreamResponse]:
        """Every event of a task, the task as it is now first, until it has ended or waits for somebody."""
        async with contextlib.aclosing(self._events(None, task_id)) as events:
            async for event in events:
                yield event

    def _request(self, text: str, content: Content) -> SendMessageRequest:
        return SendMessageRequest(message=compose(text, **content), tenant=self._tenant)

    async def _events(self, request: SendMessageRequest | None, task_id: str) -> AsyncGenerator[StreamResponse]:
        attempt, place, trying_since = 0, "", None
        while True:
            failure: Exception = AgentUnavailable(f"{self.agent} ends its streams without an event: see its log.")
            opened = time.monotonic()
            try:
                async with contextlib.aclosing(self._open(request, task_id, place)) as events:
                    async for event in events:
                        attempt, trying_since = 0, None
                        task_id, place = task_id_of(event) or task_id, place_of(event)
                        yield event
                        if is_last(event):
                            return
                if time.monotonic() - opened > KEPT_OPEN_SECONDS:
                    attempt, trying_since = 0, None
            except TaskNotFoundError:
                if request is None or not task_id:
                    raise
                return  # it was somebody else's, and seen only as long as its question was open
            except (AgentUnavailable, Unavailable) as error:
                failure = error
            now = time.monotonic()
            trying_since = now if trying_since is None else trying_since
            if now - trying_since >= PATIENCE:
                raise failure
            await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            attempt += 1

    async def _open(
        self, request: SendMessageRequest | None, task_id: str, place: str
    ) -> AsyncGenerator[StreamResponse]:
        """One stream: of a message that no answer has come to yet (sent again, it is recognised), else of a task."""
        with self._in_our_words():
            if request is not None and not task_id:
                async for event in self._streaming.send_message(request):
                    yield event
                return
            if self.verified.card.capabilities.streaming:
                subscription = SubscribeToTaskRequest(id=task_id, tenant=self._tenant)
                behind = ClientCallContext(service_parameters={LAST_EVENT_HEADER: place} if place else None)
                try:
                    async for event in self._streaming.subscribe(subscription, context=behind):
                        yield event
                except UnsupportedOperationError:
                    pass  # it has ended meanwhile
                else:
                    return
        yield StreamResponse(task=await self.get(task_id))

    # -- tasks --------------------------------------------------------------------------------------------------------

    async def get(self, task_id: str, *, history: int | None = None) -> Task:
        """A task as it is now, with its last `history` messages; None for all of them."""
        request = GetTaskRequest(id=task_id, tenant=self._tenant)
        if history is not None:
            request.history_length = history
        with self._in_our_words():
            return await self._unary.get_task(request)

    async def reveal(self, task_id: str) -> Task:
        """A task of one's own, its messages too, with what its agent redacted in it put back; see `tasks.reveal`.

        Of an agent that can't, and of what isn't the caller's to have back, the placeholders stay.
        """
        asking = ClientCallContext(service_parameters=dict(reveal.ASKED))
        with self._in_our_words():
            return await self._unary.get_task(GetTaskRequest(id=task_id, tenant=self._tenant), context=asking)

    async def tasks(self, *, limit: int = 50, state: int = TaskState.TASK_STATE_UNSPECIFIED) -> ListTasksResponse:
        """The caller's own tasks at this agent, last changed first; `limit` from 1 to 100; only those in a `state`."""
        request = ListTasksRequest(tenant=self._tenant, page_size=limit, status=cast("TaskState", state))
        with self._in_our_words():
            return await self._unary.list_tasks(request)

    async def extended_card(self) -> VerifiedCard:
        """The agent's card as it is for this caller, verified as the public one is. Raises also CardRejected."""
        with self._in_our_words():
            shown = await self._unary.get_extended_agent_card(GetExtendedAgentCardRequest(tenant=self._tenant))
        extended = verify(shown, self._route.trust)
        if extended.card.name != self.agent:
            raise CardRejected(f"{self.agent} shows another agent's card: don't use it, and tell its owner.")
        return extended

    async def cancel(self, task_id: str) -> Task:
        """Cancel a task and what it has delegated; returns when it has ended, one way or the other."""
        with self._in_our_words():
            return await self._unary.cancel_task(CancelTaskRequest(id=task_id, tenant=self._tenant))

    @contextlib.contextmanager
    def _in_our_words(self) -> Iterator[None]:
        """Errors of the SDK's client, which are about HTTP, as what they mean."""
        try:
            yield
        except A2AClientError as error:
            raise refusal_of(error) or _failure(error, self.agent) from error
        except httpx.HTTPError as error:
            raise AgentUnavailable(
                f"The connection to {self.agent} broke ({str(error) or type(error).__name__}): try again."
            ) from error


def _failure(error: A2AClientError, agent: str) -> SidecardError:
    """What remains: the agent can't be reached now, or something else than an agent is there."""
    cause = error.__cause__
    if isinstance(cause, httpx.HTTPStatusError) and cause.response.is_client_error:
        status = cause.response.status_code
        return ConfigurationError(f"{agent} answers HTTP {status}: check that what runs there is an agent of A2A 1.0.")
    reason = (error.message or type(error).__name__).replace("\n", " ")[:300]
    return AgentUnavailable(f"{agent} does not answer as it should ({reason}): try again, then see its log.")
