"""Receivers of a task's events, which take them or fail as told: webhooks, and the topic."""

import asyncio
from collections.abc import Mapping
from typing import Any

from a2a.types import TaskPushNotificationConfig

from sidecard.egress import Destinations
from sidecard.loopback import NO_CERTIFICATES
from sidecard.push import Outcome, Webhooks
from sidecard.tasks.events import Update
from sidecard.tasks.state import Place
from sidecard.topic import cloud_event


class FakeWebhooks(Webhooks):
    """Receivers of push notifications: `received` are the (url, webhook-id, body) that were delivered, in order.

    `answers` holds, per url, what becomes of each attempt in turn; then everything is delivered. Nothing is sent.
    """

    def __init__(self, allowed: str = "public") -> None:
        super().__init__(Destinations.parse(allowed), tls=NO_CERTIFICATES)
        self.received: list[tuple[str, str, bytes]] = []
        self.attempts: list[tuple[str, str]] = []
        self.answers: dict[str, list[Outcome]] = {}
        self.hold: dict[str, asyncio.Event] = {}

    async def send(self, config: TaskPushNotificationConfig, webhook_id: str, body: bytes) -> Outcome:
        """See push.Webhooks."""
        self.attempts.append((config.url, webhook_id))
        if config.url in self.hold:
            await self.hold[config.url].wait()
        answers = self.answers.get(config.url)
        outcome = answers.pop(0) if answers else Outcome(delivered=True)
        if outcome.delivered:
            self.received.append((config.url, webhook_id, body))
        return outcome


class FakeTopic:
    """A topic: `published` are the events as CloudEvents, in order. `answers` holds what becomes of each attempt."""

    def __init__(self, agent: str = "shop") -> None:
        self._agent = agent
        self.published: list[dict[str, Any]] = []
        self.answers: list[Outcome] = []
        self.hold: asyncio.Event | None = None

    async def publish(self, meta: Mapping[str, str], place: Place, at: int, event: Update) -> Outcome:
        """See topic.Topic."""
        if self.hold is not None:
            await self.hold.wait()
        outcome = self.answers.pop(0) if self.answers else Outcome(delivered=True)
        if outcome.delivered:
            self.published.append(cloud_event(self._agent, meta, place, at, event))
        return outcome
