"""A task that has something to tell, and to whom.

Its events to its callers' webhooks and the operator's topic; its end to what it has delegated, which is to be canceled.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from a2a.types import TaskPushNotificationConfig

from sidecard.tasks.cursor import DEAD, TOPIC, Cursor, child_key, cursor_key, name_of, name_of_child, topic_key
from sidecard.tasks.entry import Record
from sidecard.tasks.events import Update, event_of
from sidecard.tasks.state import FoldedTask, Orphan, Place, Webhook

_FROM_THE_BEGINNING = Webhook(b"", (1, -1), (0, 0))
_MARK = "dead:"


def mark(task_id: str) -> str:
    """What stands on a replica's outbox list for a task with a delivery that was given up."""
    return _MARK + task_id


def task_of(name: str) -> str:
    """The task that a name on the outbox list speaks of."""
    return name.removeprefix(_MARK)


def is_mark(name: str) -> bool:
    """Whether it says that a delivery was given up, and not that something is due."""
    return name.startswith(_MARK)


@dataclass(slots=True, eq=False)
class Hook:
    """Who is told: a webhook, which has a `config`; a delegated task, which is an `orphan`; else the topic.

    `webhook` says from where on. Without a cursor nothing is known yet. `noted` is the entry up to which it was last
    stored how far it is.
    """

    name: str
    key: str
    webhook: Webhook
    config: TaskPushNotificationConfig | None = None
    orphan: Orphan | None = None
    cursor: Cursor | None = None
    worker: "asyncio.Task[None] | None" = None
    noted: int = 0

    def __str__(self) -> str:
        if self.orphan is not None:
            what = self.orphan.task_id or "of a message that it may have taken"
            return f"the cancel of {self.orphan.agent}'s task {what}"
        return f"webhook {self.name}" if self.config else "the topic"

    def hears(self, record: Record, meta: Mapping[str, str], place: Place) -> "Update | Orphan | None":
        """What a record at this place of the task's log is to it."""
        if self.orphan is not None:
            return self.orphan if place == self.orphan.place else None
        return event_of(record, meta, place)

    @property
    def dead(self) -> bool:
        """Whether its delivery was given up."""
        return self.cursor is not None and self.cursor.over == DEAD


def hook_of(task_id: str, config_id: str, webhook: Webhook) -> Hook:
    """A webhook."""
    config = TaskPushNotificationConfig.FromString(webhook.config)
    return Hook(name_of(config_id), cursor_key(task_id, config_id), webhook, config)


def hook_of_topic(task_id: str) -> Hook:
    """The topic, which hears everything from a task's first event on."""
    return Hook(TOPIC, topic_key(task_id), _FROM_THE_BEGINNING)


def hook_of_child(task_id: str, step: str, orphan: Orphan) -> Hook:
    """A delegated task: all that it is told stands in one record."""
    n, number = orphan.place
    webhook = Webhook(b"", (n, number - 1), orphan.place)
    return Hook(name_of_child(step), child_key(task_id, step), webhook, orphan=orphan)


@dataclass(slots=True, eq=False)
class Mail:
    """A task's log up to entry `end`, and by their names those who are told of it."""

    task_id: str
    meta: dict[str, str]
    end: int = 0
    ended: bool = False
    hooks: dict[str, Hook] = field(default_factory=dict)

    def renew(self, folded: FoldedTask, *, topic: bool) -> list[Hook]:
        """Be what a task is now; returns the hooks that are no more."""
        self.end, self.ended = folded.n, folded.ended
        known, self.hooks = self.hooks, {}
        gone = []
        for config_id, webhook in folded.push.items():
            name = name_of(config_id)
            hook = known.pop(name, None)
            if hook is None or hook.webhook.version != webhook.version:
                renewed = hook_of(self.task_id, config_id, webhook)
                if hook is not None:
                    renewed.cursor = hook.cursor.renewed(webhook) if hook.cursor else None
                    gone.append(hook)
                hook = renewed
            self.hooks[name] = hook
        for step, orphan in folded.orphans.items():
            name = name_of_child(step)
            self.hooks[name] = known.pop(name) if name in known else hook_of_child(self.task_id, step, orphan)
        if topic:
            self.hooks[TOPIC] = known.pop(TOPIC) if TOPIC in known else hook_of_topic(self.task_id)
        return [*gone, *known.values()]

    def owes(self, hook: Hook) -> bool:
        """Whether there is something left to tell."""
        return hook.cursor is None or (not hook.cursor.over and hook.cursor.place[0] <= self.end)

    def is_done(self, hook: Hook) -> bool:
        """Whether it is told everything, or is over, and this is stored: entries may have come meanwhile."""
        return not self.owes(hook) and hook.noted >= self.end

    def through(self) -> int:
        """The last entry that all are told of, or will never be."""
        return min((self._through(hook) for hook in self.hooks.values()), default=self.end)

    def _through(self, hook: Hook) -> int:
        if hook.cursor is None:
            return hook.webhook.since[0] - 1
        return self.end if hook.cursor.over else hook.cursor.place[0] - 1

    @property
    def dead(self) -> bool:
        """Whether a delivery was given up."""
        return any(hook.dead for hook in self.hooks.values())

    @property
    def over(self) -> bool:
        """Whether nothing is left to be told, now or ever."""
        return self.ended and not self.dead and self.through() >= self.end
