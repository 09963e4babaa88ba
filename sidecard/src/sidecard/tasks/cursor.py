"""How far one receiver of a task's events has been told, and when it is tried again.

push:{task}:{receiver}  [place, version, attempts, failing_since, next_at, over, problem], see Cursor
"""

import hashlib
import random
from dataclasses import dataclass, field

import msgpack

from sidecard.tasks.state import Place, Webhook

GONE = "gone"
"""The receiver said 410: nothing more is sent to it."""
DEAD = "dead"
"""It could not be reached for as long as we are patient: what it has missed stays in the log, from the cursor on."""


TOPIC = "topic"
"""Stands for the pub/sub topic where webhooks have the name of their configuration."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """When a delivery that failed is tried again, and when no more; in seconds."""

    first: float = 1.0
    most: float = 3_600.0
    longest_asked: float = 86_400.0
    """What a receiver's Retry-After is believed up to."""
    patience: float = 3 * 86_400.0
    chance: random.Random = field(default_factory=random.Random)

    def delay(self, attempts: int, asked: float = 0.0) -> float:
        """After so many failed attempts: doubled each time, less up to a half by chance; what was asked at least."""
        grown = min(self.most, self.first * 2.0 ** min(attempts - 1, 40))
        return max(grown * self.chance.uniform(0.5, 1.0), min(asked, self.longest_asked))


@dataclass(slots=True)
class Cursor:
    """Everything before `place` is delivered. `over` says why nothing more is sent, to this `version` of the webhook.

    `attempts` at what stands at `place` have failed, since `failing_since`; times are UTC in milliseconds.
    """

    place: Place
    version: Place
    attempts: int = 0
    failing_since: int = 0
    next_at: int = 0
    over: str = ""
    problem: str = ""

    @classmethod
    def of(cls, webhook: Webhook, stored: bytes | None) -> "Cursor":
        """Where a webhook goes on: where it was, unless it was deleted in between and made again."""
        start = cls((webhook.since[0], webhook.since[1] + 1), webhook.version)
        if stored is None:
            return start
        place, version, *rest = msgpack.unpackb(stored)
        known = cls(tuple(place), tuple(version), *rest)
        return known.renewed(webhook) if known.place >= start.place else start

    def renewed(self, webhook: Webhook) -> "Cursor":
        """The same place, for what the webhook is now: one that was set anew is tried anew."""
        return self if self.version == webhook.version else Cursor(self.place, webhook.version)

    def revived(self) -> "Cursor":
        """The same place, tried anew: with what could not be delivered comes all that happened since."""
        return Cursor(self.place, self.version)

    def pack(self) -> bytes:
        """As it is stored."""
        packed: bytes = msgpack.packb(
            [self.place, self.version, self.attempts, self.failing_since, self.next_at, self.over, self.problem]
        )
        return packed

    def delivered(self) -> None:
        """What stood at `place` is delivered."""
        self.attempts = self.failing_since = self.next_at = 0
        self.problem = ""

    def failed(self, now: int, backoff: Backoff, problem: str, asked: float = 0.0) -> None:
        """It is not, at `now`; the receiver asked for so many seconds of peace."""
        self.attempts += 1
        self.failing_since = self.failing_since or now
        self.problem = problem
        if now - self.failing_since >= backoff.patience * 1000:
            self.over = DEAD
        else:
            self.next_at = now + round(backoff.delay(self.attempts, asked) * 1000)


def name_of(config_id: str) -> str:
    """What stands for a configuration's id, which callers choose, in keys, headers and logs."""
    return hashlib.sha256(config_id.encode()).hexdigest()[:16]


def cursor_key(task_id: str, config_id: str) -> str:
    """Key of a webhook's cursor."""
    return f"push:{task_id}:{name_of(config_id)}"


def topic_key(task_id: str) -> str:
    """Key of the topic's cursor."""
    return f"push:{task_id}:{TOPIC}"


def name_of_child(step: str) -> str:
    """What stands for a delegated task that is to be canceled; it is no name of a webhook, whatever that is called."""
    return f"child-{step}"


def child_key(task_id: str, step: str) -> str:
    """Key of the cursor that says whether it is."""
    return f"push:{task_id}:{name_of_child(step)}"
