"""One attempt to tell a receiver of one event, and who may make one now."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Protocol

from a2a.types import Message, TaskPushNotificationConfig

from sidecard.callers import Denied
from sidecard.egress import Origin
from sidecard.errors import AgentUnavailable
from sidecard.push import Outcome
from sidecard.streamed import named
from sidecard.tasks.cursor import DEAD, GONE, Backoff, Cursor
from sidecard.tasks.events import Update
from sidecard.tasks.mail import Hook, Mail
from sidecard.tasks.state import Orphan, Place
from sidecard.tasks.turns import Turns
from sidecard.tasks.watch import Delegator, Refused
from sidecard.telemetry import WebhookMetrics, continue_trace, span

log = logging.getLogger("sidecard.tasks")

AT_ONCE = {"receiver": 8, "owner": 32, "all": 64}
"""Deliveries under way at once: to one origin, for one owner in one tenant, in all."""
TOPIC_AT_ONCE = {"topic": 32}
"""The topic has places of its own: no webhook can hold it up."""
CHILDREN_AT_ONCE = {"agent": 8, "all": 32}
"""Cancels under way at once: to one agent, in all; no webhook can hold them up either."""
OWN_MOST_SECONDS = 30.0
"""How long a task waits at most before it tries the topic, or another agent, again: those are the operator's own, and
what is to be canceled works on meanwhile."""
CANCEL_SECONDS = 45.0
"""How long another agent may take to answer a cancel, or a withdrawal and then a cancel: each waits for an effect under
way, for as long as `engine.CANCEL_SECONDS`."""


class Sender(Protocol):
    """How webhooks are reached."""

    async def send(self, config: TaskPushNotificationConfig, webhook_id: str, body: bytes) -> Outcome:
        """Try once to deliver a StreamResponse; see push.Webhooks."""


class Publisher(Protocol):
    """How the topic is reached."""

    async def publish(self, meta: Mapping[str, str], place: Place, at: int, event: Update) -> Outcome:
        """Try once to publish an event of a task, which was stored at `at` (UTC, ms); see topic.Topic."""


class Delivery:
    """Delivers to webhooks and to the topic, as far as there is a way to them, and cancels to other agents."""

    def __init__(
        self,
        sender: Sender | None,
        topic: Publisher | None,
        delegator: Delegator,
        metrics: WebhookMetrics,
        *,
        clock: Callable[[], int],
        backoff: Backoff | None = None,
        denied: Denied | None = None,
    ) -> None:
        """`clock` gives UTC in milliseconds, `backoff` when what failed is tried again, `denied` whom not to tell."""
        self._sender = sender
        self._topic = topic
        self._delegator = delegator
        self._metrics = metrics
        self._clock = clock
        self._denied = denied or Denied()
        self._backoff = backoff or Backoff()
        self._own_backoff = replace(self._backoff, most=min(self._backoff.most, OWN_MOST_SECONDS))
        self._turns = Turns(AT_ONCE)
        self._topic_turns = Turns(TOPIC_AT_ONCE)
        self._child_turns = Turns(CHILDREN_AT_ONCE)

    @property
    def to_topic(self) -> bool:
        """Whether there is a topic."""
        return self._topic is not None

    @property
    def to_webhooks(self) -> bool:
        """Whether there is a way to webhooks."""
        return self._sender is not None

    def reaches(self, hook: Hook) -> bool:
        """Whether there is a way to this one now; else what is due to it waits."""
        return hook.orphan is not None or (self._topic if hook.config is None else self._sender) is not None

    def turn(self, mail: Mail, hook: Hook) -> AbstractAsyncContextManager[None]:
        """A place among those who deliver now; waits for it."""
        if hook.orphan is not None:
            return self._child_turns.turn(agent=hook.orphan.agent, all="")
        if hook.config is None:
            return self._topic_turns.turn(topic="")
        owner = repr((mail.meta["tenant"], mail.meta["owner"]))
        return self._turns.turn(receiver=str(Origin.of(hook.config.url)), owner=owner, all="")

    async def attempt(self, mail: Mail, hook: Hook, cursor: Cursor, event: Update | Orphan, at: int) -> bool:
        """Deliver what stands at the cursor, stored at `at`; False when it failed, as the cursor then says."""
        kind = "webhook" if hook.config else "cancel" if hook.orphan else "publish"
        with continue_trace(mail.meta["trace"]), span(kind, task_id=mail.task_id, attempt=cursor.attempts + 1):
            outcome = await self._send(mail, hook, cursor.place, event, at)
        if outcome.delivered:
            cursor.delivered()
            self._metrics.delivered((self._clock() - at) / 1000)
            return True
        backoff = self._backoff if hook.config else self._own_backoff
        cursor.failed(self._clock(), backoff, outcome.problem, outcome.retry_after)
        if outcome.gone:
            cursor.over = DEAD if hook.orphan else GONE  # an operator has to see what another agent does not cancel
        self._metrics.failed(cursor.over or "failed")
        where = f"{hook} of task {mail.task_id}"
        if cursor.over:
            log.error("%s is told no more after %d attempts: %s", where, cursor.attempts, cursor.problem)
        else:
            wait = (cursor.next_at - self._clock()) / 1000
            log.warning("%s: %s; tried again in %.1f s", where, cursor.problem, wait)
        return False

    async def _send(self, mail: Mail, hook: Hook, place: Place, event: Update | Orphan, at: int) -> Outcome:
        if isinstance(event, Orphan):
            return await self._cancel(event, mail.meta["tenant"])
        if hook.config is None and self._topic is not None:
            return await self._topic.publish(mail.meta, place, at, event)
        if hook.config is None or self._sender is None:
            raise AssertionError(f"there is no way to {hook}")
        if self._denied.covers((f"caller:{mail.meta['owner']}", f"app:{mail.meta['owner']}")):
            return Outcome(problem=f"{mail.meta['owner']} is revoked, and told nothing")
        webhook_id = f"msg_{mail.task_id}_{hook.name}_{place[0]}_{place[1]}"
        body = json.dumps(named(event), ensure_ascii=False, separators=(",", ":")).encode()
        return await self._sender.send(hook.config, webhook_id, body)

    async def _cancel(self, orphan: Orphan, tenant: str) -> Outcome:
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                if orphan.task_id:
                    await self._delegator.cancel(orphan.agent, orphan.task_id, tenant)
                else:
                    await self._delegator.withdraw(orphan.agent, Message.FromString(orphan.message), tenant)
        except AgentUnavailable as error:
            return Outcome(problem=str(error), gone=isinstance(error, Refused))
        except TimeoutError:
            return Outcome(problem=f"{orphan.agent} did not answer a cancel within {CANCEL_SECONDS:.0f} s")
        except Exception:
            log.exception("a cancel of %s's task %s failed", orphan.agent, orphan.task_id)
            return Outcome(problem=f"{orphan.agent} could not be told; the agent's log has the details")
        return Outcome(delivered=True)
