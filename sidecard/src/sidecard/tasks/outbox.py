"""Webhooks, the topic and delegated tasks: each is told all that is due to it, in order, at least once, over restarts.

To webhooks and the topic that is every event of their task; to a delegated one that it is to be canceled.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Coroutine, Iterator
from functools import partial
from typing import Any

from sidecard.errors import LogBroken
from sidecard.tasks.cursor import Cursor, topic_key
from sidecard.tasks.delivery import Delivery
from sidecard.tasks.entry import Entry, Record, log_key
from sidecard.tasks.journal import Journal
from sidecard.tasks.lives import Lives
from sidecard.tasks.mail import Hook, Mail, is_mark, task_of
from sidecard.tasks.patience import patiently
from sidecard.tasks.state import EVENTS, FoldedTask
from sidecard.tasks.told import Told

log = logging.getLogger("sidecard.tasks")

TURN_EVENTS = 32
TURN_SECONDS = 5.0
"""After so many events, or so long, a receiver's cursor is stored, and others have their turn."""
TAKE_UP = 16
MOST_WAITING = 4_096
"""Tasks in memory that wait for the topic alone. The others wait on the list: a broker that is down fills no memory."""
CHANGES = frozenset({"push", "unpush"})


class Outbox:
    """Delivers what is due by a stored log entry, and reads it from the log: memory holds cursors, not events.

    A receiver has one delivery under way at a time; receivers wait for each other in no way but for a turn. A task
    stays on the journal's outbox list until all its receivers are told, so that a restart goes on, and under its mark
    (see mail.py) while one of them was given up. How far each is stands beside the log, which may have ended, in a
    cursor: a crash repeats at most what one turn has delivered.
    """

    def __init__(self, journal: Journal, lives: Lives, delivery: Delivery, clock: Callable[[], int]) -> None:
        """`clock` gives UTC in milliseconds."""
        self._journal = journal
        self._lives = lives
        self._delivery = delivery
        self._clock = clock
        self._mail: dict[str, Mail] = {}
        self.dead: set[str] = set()
        """Tasks with a delivery that was given up."""
        self._for_topic: set[str] = set()
        self._left_listed = False
        self._working: set[asyncio.Task[None]] = set()
        self._last_words: list[asyncio.Future[None]] = []
        self._stopping = False

    def __len__(self) -> int:
        """Tasks with deliveries under way."""
        return len(self._mail)

    def start(self, listed: Collection[str]) -> None:
        """Tell receivers from now on, beginning with what the last stop left on the outbox list."""
        self._stopping = False
        self._mail.clear()
        self._for_topic.clear()
        self.dead.clear()
        self.take_up(listed)

    def take_up(self, listed: Collection[str]) -> None:
        """Go on with what this list names: another replica left it undelivered, or gave it up."""
        self.dead.update(task_of(name) for name in listed if is_mark(name))
        if listed:
            self._spawn(self._take_up(set(listed)), "take up deliveries")

    async def stop(self, seconds: float) -> None:
        """Break off what is under way and store how far each webhook is, if the store takes it within that time."""
        self._stopping = True
        working = list(self._working)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        if self._last_words:
            await asyncio.wait(self._last_words, timeout=seconds)

    def stored(self, folded: FoldedTask, records: list[Record]) -> None:
        """An entry of a task is stored: deliver it, to those whom the task has to tell now."""
        if folded.orphans:
            self._serve(folded)
            return
        if not (folded.push or self._delivery.to_topic or folded.task.id in self._mail):
            return
        kinds = {record[0] for record in records}
        if ((folded.push or self._delivery.to_topic) and kinds & EVENTS) or (
            folded.task.id in self._mail and kinds & CHANGES
        ):
            self._serve(folded, new=folded.n == 1)

    async def revive(self, task_id: str, names: Collection[str]) -> None:
        """Tell receivers that were given up after all, from what on they could not be told; see mail.Mail.

        Returns when that is stored: whatever happens now, it is tried again. Raises StoreUnavailable, LogBroken.
        """
        async with self._lives.borrow(task_id) as live:
            if live is None:
                self._forget(task_id)
                return
            mail = self._mail_of(live.folded)
            cursors = {}
            for hook in list(mail.hooks.values()):
                cursor = await self._cursor_of(hook)
                if hook.dead and hook.name in names:
                    hook.cursor = cursor.revived()
                    cursors[hook.key] = hook.cursor.pack()
            await self._journal.told(Told(task_id, mail.through(), mail.end, cursors, dead=self._is_dead(mail)))
            self._serve(live.folded)

    # -- who is to be told --------------------------------------------------------------------------------------------

    async def _take_up(self, listed: Collection[str]) -> None:
        """Some at once; what can't be delivered by the operator's will is said."""
        task_ids = sorted(set(map(task_of, listed)))
        left = iter(task_ids)
        waiting: list[str] = []
        await asyncio.gather(*(self._take_up_each(left, waiting) for _ in range(min(TAKE_UP, len(task_ids)))))
        if due := [task_id for task_id in waiting if task_id in listed]:
            log.warning("the webhooks of %d tasks wait until push notifications are allowed", len(due))

    async def _take_up_each(self, task_ids: Iterator[str], waiting: list[str]) -> None:
        for task_id in task_ids:
            try:
                await patiently(partial(self._take_up_one, task_id, waiting))
            except Exception:
                log.exception("the receivers of task %s can't be told", task_id)

    async def _take_up_one(self, task_id: str, waiting: list[str]) -> None:
        async with self._lives.borrow(task_id) as live:
            if live is not None:
                self._serve(live.folded)
                if live.folded.push and not self._delivery.to_webhooks:
                    waiting.append(task_id)
            elif task_id in self.dead or not self._journal.store.atomic:  # expired, or announced and never stored
                self._forget(task_id)
            else:
                raise LogBroken(f"task {task_id} is listed and has no log")

    def _forget(self, task_id: str) -> None:
        self.dead.discard(task_id)
        self._journal.told(Told(task_id, 0, 0, {}))

    def _mail_of(self, folded: FoldedTask) -> Mail:
        """What a task has to tell now. Who is not to be told any more hears not a word more."""
        task_id = folded.task.id
        mail = self._mail.setdefault(task_id, Mail(task_id, folded.meta))
        for hook in mail.renew(folded, topic=self._delivery.to_topic):
            if hook.worker:
                hook.worker.cancel()
        return mail

    def _serve(self, folded: FoldedTask, *, new: bool = False) -> None:
        if self._stopping or self._leaves_listed(folded):
            return
        mail = self._mail_of(folded)
        for hook in mail.hooks.values():
            if new and hook.cursor is None:
                hook.cursor = Cursor.of(hook.webhook, None)  # there can't be one: no need to look
            if hook.worker is None and self._delivery.reaches(hook):
                self._work_on(mail, hook)
        if any(hook.worker for hook in mail.hooks.values()):
            return
        self._mail.pop(mail.task_id)
        self._for_topic.discard(mail.task_id)
        if not mail.hooks:  # else there is no way to any of them, and it waits on the list
            self.dead.discard(mail.task_id)
            self._journal.told(Told(mail.task_id, mail.end, mail.end, {}))

    def _leaves_listed(self, folded: FoldedTask) -> bool:
        """Whether so many wait for the topic that this one has to wait on the list."""
        task_id, others = folded.task.id, folded.push or folded.orphans
        if not others and task_id not in self._mail and len(self._for_topic) >= MOST_WAITING:
            self._left_listed = True
            return True
        (self._for_topic.discard if others else self._for_topic.add)(task_id)
        return False

    def _take_up_listed(self) -> None:
        """Go on with those who wait on the list, once half of those in memory are told."""
        room = MOST_WAITING - len(self._for_topic)
        if self._left_listed and room >= MOST_WAITING / 2 and not self._stopping:
            waiting = (name for name in self._journal.slot.outbox.all if not is_mark(name) and name not in self._mail)
            some = list(itertools.islice(waiting, room + 1))
            self._left_listed = len(some) > room
            self.take_up(some[:room])

    def _work_on(self, mail: Mail, hook: Hook) -> None:
        hook.worker = self._spawn(self._work(mail, hook), f"{hook} of {mail.task_id}")
        hook.worker.add_done_callback(lambda done: self._worked(mail, hook, done))

    def _worked(self, mail: Mail, hook: Hook, done: "asyncio.Task[None]") -> None:
        hook.worker = None
        if done.cancelled() or self._stopping or hook not in mail.hooks.values():
            return
        if not mail.is_done(hook) and done.exception() is None:  # just now
            self._work_on(mail, hook)
        elif self._mail.get(mail.task_id) is mail and not any(other.worker for other in mail.hooks.values()):
            del self._mail[mail.task_id]
            self._for_topic.discard(mail.task_id)
            self._take_up_listed()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task

    # -- telling ------------------------------------------------------------------------------------------------------

    async def _work(self, mail: Mail, hook: Hook) -> None:
        """Tell one receiver until it is told everything, or is over."""
        try:
            hook.cursor = await self._cursor_of(hook)
            while True:
                if mail.owes(hook):
                    await asyncio.sleep(max(0, hook.cursor.next_at - self._clock()) / 1000)
                    async with self._delivery.turn(mail, hook):
                        await self._turn(mail, hook, hook.cursor)
                await self._note(mail, hook, hook.cursor)
                if mail.is_done(hook):
                    return
        except asyncio.CancelledError:
            if self._stopping and hook.cursor is not None:
                self._last_words.append(self._note(mail, hook, hook.cursor))
            raise
        except Exception:
            log.exception("%s of task %s is told no more until this agent restarts", hook, mail.task_id)
            raise

    async def _cursor_of(self, hook: Hook) -> Cursor:
        """How far a receiver is, by the store if that is not known here yet."""
        if hook.cursor is None:
            stored = await patiently(partial(self._journal.store.read, [hook.key]))
            hook.cursor = hook.cursor or Cursor.of(hook.webhook, stored.get(hook.key))  # others may have asked too
        return hook.cursor

    def _note(self, mail: Mail, hook: Hook, cursor: Cursor) -> asyncio.Future[None]:
        """Store how far a receiver is. The topic's cursor goes with the last word of its task; nobody needs it then."""
        hook.noted = mail.end
        cursors: dict[str, bytes | None] = {hook.key: cursor.pack()}
        if self._delivery.to_topic and mail.over:
            cursors[topic_key(mail.task_id)] = None
        return self._journal.told(Told(mail.task_id, mail.through(), mail.end, cursors, dead=self._is_dead(mail)))

    def _is_dead(self, mail: Mail) -> bool:
        """Whether a delivery was given up; what was said of a receiver holds until its cursor is known."""
        unknown = mail.task_id in self.dead and any(hook.cursor is None for hook in mail.hooks.values())
        dead = mail.dead or unknown
        (self.dead.add if dead else self.dead.discard)(mail.task_id)
        return dead

    async def _turn(self, mail: Mail, hook: Hook, cursor: Cursor) -> None:
        """Deliver some events, until one fails."""
        ends = asyncio.get_running_loop().time() + TURN_SECONDS
        left = TURN_EVENTS
        while mail.owes(hook):
            n, first = cursor.place
            entry = await patiently(partial(self._entry, mail.task_id, n))
            for number, record in enumerate(entry.records[first:], first):
                event = hook.hears(record, mail.meta, (n, number))
                if event is not None:
                    if not left or asyncio.get_running_loop().time() > ends:
                        return
                    left -= 1
                    if not await self._delivery.attempt(mail, hook, cursor, event, entry.at):
                        return
                cursor.place = (n, number + 1)
            cursor.place = (n + 1, 0)

    async def _entry(self, task_id: str, n: int) -> Entry:
        key = log_key(task_id, n)
        stored = (await self._journal.store.read([key])).get(key)
        if stored is None:
            raise LogBroken(f"entry {n} of task {task_id} is gone: the state store lost writes")
        return Entry.unpack(stored)
