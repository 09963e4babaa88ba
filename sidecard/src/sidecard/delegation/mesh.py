"""One way to call another agent: discover, verify its card, get credentials, send, track its task to where it rests."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import httpx
from a2a.types import AgentCard, CancelTaskRequest, GetExtendedAgentCardRequest, Message, Role, SendMessageRequest
from a2a.types import Task as A2ATask
from a2a.utils.errors import TaskNotCancelableError, TaskNotFoundError
from pydantic import ValidationError

from sidecard.agent_card import same_contract
from sidecard.callers import Bearing, bearing_none
from sidecard.delegation.failures import FAILURES, may_pass, never_arrived, not_canceled, refuses, words
from sidecard.delegation.handshake import Handshake, Outside
from sidecard.delegation.tracking import drain, events, listen, status, track
from sidecard.error_answers import wait_of
from sidecard.errors import AccessDenied, AgentUnavailable, CardRejected
from sidecard.extension import NOTHING_SENT, URI, Sent
from sidecard.registry import Registry
from sidecard.tasks.states import TERMINAL
from sidecard.tasks.watch import NotTaken, TokenMissing
from sidecard.trust import TrustStore, verify

log = logging.getLogger("sidecard")

UNACCEPTED_PATIENCE = 30.0
"""Seconds of trying before a task that the other agent has never taken is given up."""
ACCEPTED_PATIENCE = 900.0
"""Seconds of trying before a task that the other agent has taken, and then was not seen again, is given up."""
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0)


class Mesh:
    """Calls agents: those in the Dapr mesh by app-id through the own sidecar, foreign ones `outside` of it directly.

    `client` is an httpx client over `MeshTransport`. To agents that know our extension, messages are sent again under
    the same messageId until their task is seen at rest: they recognise them, so sending, retrying and following again
    are one and the same. Others may take a message that comes again for a new one: it is sent again only if it can't
    have arrived, and its task is followed by its id. `clock` gives seconds, `pause` waits that many.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        registry: Registry,
        trust: TrustStore,
        outside: Outside | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock, self._pause = clock, pause
        self._registry, self._trust = registry, trust
        self.handshake = Handshake(client, registry, trust, outside, clock)

    async def follow(
        self,
        agent: str,
        message: Message,
        tenant: str,
        accepted: Callable[[str], None],
        *,
        known: str = "",
        bearing: Bearing = bearing_none,
    ) -> A2ATask:
        """See `tasks.watch.Delegator`, and `Handshake.client` for whose rights travel."""
        message.role = Role.ROLE_USER
        request = SendMessageRequest(message=message, tenant=tenant)
        skill = _skill(message)
        attempt, trying_since, was_accepted = 0, None, bool(message.task_id)
        nothing_came_of_it = not known

        def heard(task_id: str, state: int) -> None:
            nonlocal attempt, trying_since, was_accepted, known
            attempt, trying_since, was_accepted, known = 0, None, True, task_id
            if state not in TERMINAL:
                accepted(task_id)

        while True:
            sent, in_doubt, presented = False, False, bearing()
            failure: Exception = AgentUnavailable("its stream ends, and its task is not at rest")
            try:
                client, met = await self.handshake.client(agent, skill, presented)
                if known and not met.extended:
                    return await track(client, known, tenant, heard, pause=self._pause, agent=agent)
                sent, in_doubt = True, not met.extended
                task = await listen(client, request if met.extended else _plain(request), heard, agent=agent)
                if task is not None:
                    return task
            except CardRejected as error:
                unavailable = NotTaken if nothing_came_of_it else AgentUnavailable
                raise unavailable(f"{agent} is not called: {error}") from error
            except FAILURES as error:
                self.handshake.forget(agent)
                failure = error
                if isinstance(error, AccessDenied) and presented != bearing():
                    continue  # it has run out meanwhile, at its issuer: with another one, or none, this is another case
            nothing_came_of_it = nothing_came_of_it and not was_accepted and (not sent or refuses(failure))
            now = self._clock()
            trying_since = now if trying_since is None else trying_since
            patience = ACCEPTED_PATIENCE if was_accepted else UNACCEPTED_PATIENCE
            in_doubt = in_doubt and not known and not never_arrived(failure)
            if in_doubt or not may_pass(failure) or now - trying_since > patience:
                raise _given_up(agent, failure, nothing_came_of_it=nothing_came_of_it) from failure
            await self._pause(max(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)], wait_of(failure)))
            attempt += 1

    async def cancel(self, agent: str, task_id: str, tenant: str, *, bearing: Bearing = bearing_none) -> None:
        """See `tasks.watch.Delegator`."""
        try:
            client, _ = await self.handshake.client(agent, "", bearing())
            await client.cancel_task(CancelTaskRequest(id=task_id, tenant=tenant))
        except (TaskNotCancelableError, TaskNotFoundError):
            return
        except (CardRejected, *FAILURES) as error:
            raise not_canceled(agent, error) from error

    async def withdraw(self, agent: str, message: Message, tenant: str) -> None:
        """See `tasks.watch.Delegator`: the same message again, with a word of our extension (`extension.Sent`).

        An agent that does not know the word takes the message as it is: what it makes of it is canceled at once.
        """
        try:
            client, met = await self.handshake.client(agent, _skill(message))
            if not met.extended:
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
            async with contextlib.aclosing(events(client.send_message(request))) as stream:
                async for event in stream:
                    task_id, state = status(event)
                    if task_id and state not in TERMINAL:
                        await self.cancel(agent, task_id, tenant)
                    await drain(stream)
                    return
        except TaskNotFoundError:
            return  # its task has expired
        except (CardRejected, *FAILURES) as error:
            raise not_canceled(agent, error) from error
        raise AgentUnavailable(f"{agent} says nothing to a withdrawal")

    async def another(self, skill: str, like: str, tried: Sequence[str], tenant: str) -> str:
        """See `tasks.watch.Delegator`: the first by name whose card for this app has the skill with the same contract.

        What a card for a caller lists, that caller may invoke: so nobody is chosen who would refuse to be asked.
        """
        listed = await self._registry.agents()
        candidates = [one.app_id for one in listed if one.verified_at and skill in one.skills]
        if not (untried := [agent for agent in sorted(candidates) if agent not in tried]):
            return ""
        wanted = await self._card_for_us(like, skill, tenant)
        for agent in untried:
            try:
                offered = await self._card_for_us(agent, skill, tenant)
            except AgentUnavailable as error:
                log.info("%s is not asked for %s instead of %s: %s", agent, skill, like, error)
                continue
            if same_contract(wanted, offered, skill):
                return agent
        return ""

    async def _card_for_us(self, agent: str, skill: str, tenant: str) -> AgentCard:
        """An agent's card as it is for this app. Raises AgentUnavailable."""
        try:
            client, met = await self.handshake.client(agent, skill)
            shown = await client.get_extended_agent_card(GetExtendedAgentCardRequest(tenant=tenant))
            believed = verify(shown, self._trust).card
            _refuse_another(believed, met.card)
            return believed
        except (CardRejected, *FAILURES) as error:
            raise AgentUnavailable(f"{agent} does not show this app its card: {words(error)}") from error


def _refuse_another(shown: AgentCard, met: AgentCard) -> None:
    """Raises CardRejected for a card that is not of the agent that was met, but of another one or another publisher."""
    if (shown.name, shown.provider.organization) != (met.name, met.provider.organization):
        raise CardRejected(f"it shows the card of {shown.name[:64]!r} by {shown.provider.organization[:64]!r}")


def _skill(message: Message) -> str:
    """The skill that a message of ours names."""
    try:
        return Sent.of(SendMessageRequest(message=message)).skill
    except ValidationError:
        return NOTHING_SENT.skill


def _given_up(agent: str, failure: Exception, *, nothing_came_of_it: bool) -> AgentUnavailable:
    """What is raised when trying again is of no use."""
    if isinstance(failure, TokenMissing):
        return TokenMissing(str(failure), untaken=nothing_came_of_it)
    unavailable = NotTaken if nothing_came_of_it else AgentUnavailable
    return unavailable(f"{agent} can't be reached or does not take this: {words(failure)}")


def _plain(request: SendMessageRequest) -> SendMessageRequest:
    """Without our extension, which this agent does not know: it need not learn on whose behalf it is asked."""
    plain = SendMessageRequest()
    plain.CopyFrom(request)
    plain.message.metadata.fields.pop(URI, None)
    plain.message.extensions[:] = [uri for uri in request.message.extensions if uri != URI]
    return plain
