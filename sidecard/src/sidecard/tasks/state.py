"""What a task's log folds to. Pure: no clock, no store, no network."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import msgpack
from a2a.types import Artifact, Message, Part, TaskPushNotificationConfig, TaskStatus
from a2a.types import Task as A2ATask

from sidecard.errors import LogBroken
from sidecard.tasks.entry import Entry, Record
from sidecard.tasks.states import TERMINAL

ASK = "ask"
"""The kind of step that only a person ends."""
CALL = "call"
"""The kind of step that another agent ends."""
ENDS = frozenset({"done", "failed", "dropped"})
"""Records that end a step: it returned, it raised, or its branch was cancelled there."""
EVENTS = frozenset({"status", "artifact"})
"""Records that streams and webhooks are told of."""

TAKEN, DIED, HELD, ALONE = "taken", "died", "held", "alone"
"""How a replica came to own a task: by its first entry or while it rested; because its owner died; then HELD, since it
may be what its owners die of, and later run ALONE of its kind."""
PROGRESS = ENDS | {"begun", "artifact", "child", "question"}
"""Records that a run makes when it gets further than the runs before."""


@dataclass(slots=True)
class Step:
    """A recorded step. `end` is one of ENDS, or "": begun only, so it waits, or its effect may have happened."""

    kind: str
    arguments: str
    end: str
    value: Any

    @property
    def done(self) -> bool:
        """Whether it has an outcome: a dropped step has none."""
        return self.end in ("done", "failed")


@dataclass(slots=True)
class Question:
    """The one open question of a task that waits for a person."""

    id: str
    step: str
    spec: dict[str, Any]


@dataclass(slots=True)
class Child:
    """A task that this one has delegated."""

    agent: str
    task_id: str


Place = tuple[int, int]
"""A record's place in a log: its entry, from 1, and its number in the entry, from 0."""


@dataclass(slots=True)
class Orphan:
    """A delegated task that was not known to be canceled when this one ended, as is recorded at `place`.

    Where its id was never heard it has the A2A `message` that it was to be made of.
    """

    agent: str
    task_id: str
    place: Place
    message: bytes = b""


@dataclass(slots=True)
class Webhook:
    """A push notification configuration: told of every event after `since`; `version` is where it was last set."""

    config: bytes
    since: Place
    version: Place


@dataclass(slots=True)
class Preview:
    """What an entry will make of a task, as far as lists must know before it is stored.

    `due`: somebody must be told of it.
    """

    state: int
    status_at: int
    must_move: bool
    due: bool


@dataclass(slots=True)
class FoldedTask:
    """The state of one task after entry `n` of its log.

    `lease` says how its owner came to it, `deaths` counts the owners that died running it without any progress.

    `created` and `at` (its last entry) are UTC in milliseconds, `waiting` are the steps that have begun and not ended,
    questions aside, and `snapshot_at` is the entry that holds the last snapshot. `unheard` are the
    calls, with agent and message, of which neither the end nor the delegated task is known, and `sealed` are the
    originals of what was redacted, as screening.vault opens them. `in_chunks` are the artifacts that are made so.
    """

    n: int = 0
    nonce: bytes = b""
    epoch: int = 0
    at: int = 0
    created: int = 0
    owner_replica: str = ""
    meta: dict[str, str] = field(default_factory=dict)
    task: A2ATask = field(default_factory=A2ATask)
    messages: dict[str, str] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    emitted: dict[str, int] = field(default_factory=dict)
    question: Question | None = None
    children: dict[str, Child] = field(default_factory=dict)
    unheard: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    orphans: dict[str, Orphan] = field(default_factory=dict)
    push: dict[str, Webhook] = field(default_factory=dict)
    sealed: list[bytes] = field(default_factory=list)
    in_chunks: set[str] = field(default_factory=set)
    cancel_by: str | None = None
    lease: str = ""
    deaths: int = 0
    progressed: bool = False
    waiting: set[str] = field(default_factory=set)
    snapshot_at: int = 0
    snapshot_bytes: int = 0
    _artifacts: dict[str, int] = field(default_factory=dict)

    @property
    def state(self) -> int:
        """The A2A TaskState."""
        return self.task.status.state

    @property
    def ended(self) -> bool:
        """True once the task is in a terminal state, which it never leaves (A2A 1.0 §4.1.3)."""
        return self.task.status.state in TERMINAL

    @property
    def must_move(self) -> bool:
        """True while anything but a person has to move this task on: then a replica lists it and takes it up again."""
        return not self.ended and (self.question is None or self.cancel_by is not None or bool(self.waiting))

    def preview(self, records: list[Record], *, published: bool = False) -> Preview:  # noqa: C901 -- as `_fold`
        """What these records will make of it, without folding them in: cheap, whatever the size of the task.

        `published` tasks have somebody to be told besides their webhooks.
        """
        state, at = self.state, 0
        asking = self.question.step if self.question else None
        cancel = self.cancel_by is not None
        waits: dict[str, bool] = {}
        webhooks, due = set(self.push), False
        for record in records:
            due = due or ((published or bool(webhooks)) and record[0] in EVENTS)
            match record:
                case ["status", at_ms, new, *_]:
                    state, at = new, at_ms
                case ["push", config_id, _]:
                    webhooks.add(config_id)
                case ["unpush", config_id]:
                    webhooks.discard(config_id)
                case ["begun", key, kind, *_] if kind != ASK:
                    waits[key] = True
                case ["withdrawn", key]:
                    waits[key] = False
                case ["question", _, key, *_]:
                    asking = key
                case [("message" | "grant"), *_]:
                    asking = None
                case ["cancel", *_]:
                    cancel = True
                case ["orphan", *_]:
                    due = True
                case [kind, key, *_] if kind in ENDS:
                    waits[key] = False
                    asking = None if asking == key else asking
        waiting = len(self.waiting) + sum(now - (key in self.waiting) for key, now in waits.items())
        return Preview(state, at, state not in TERMINAL and (asking is None or cancel or waiting > 0), due)

    def apply(self, entry: Entry) -> None:
        """Fold the next entry in. Raises LogBroken, and changes nothing, when it does not follow this state."""
        if entry.previous != self.nonce or entry.epoch < self.epoch:
            raise LogBroken(
                f"entry {self.n + 1} of task {self.task.id or '(new)'} does not follow entry {self.n}: "
                "the state store lost or mixed writes. The task is stopped; compare the store with its backup."
            )
        self.n, self.nonce, self.epoch, self.at = self.n + 1, entry.nonce, entry.epoch, entry.at
        for number, record in enumerate(entry.records):
            self._fold(record, entry.at, number)
            self.progressed = self.progressed or record[0] in PROGRESS

    def deaths_after_another(self) -> int:
        """What `deaths` will be when the present owner is found dead: a task that was only held is innocent."""
        return 0 if self.progressed else self.deaths + (self.lease != HELD)

    def _fold(self, record: Record, at: int, number: int) -> None:  # noqa: C901, PLR0912, PLR0915 -- one case per kind of record
        match record:
            case ["new", meta]:
                self.meta, self.created = meta, at
                self.task.id, self.task.context_id = meta["task"], meta["context"]
            case ["message", message_id, digest, by, data]:
                self._message(message_id, digest, by, data)
            case ["grant", message_id, digest, by, data, granted_at]:  # no part of the history: no model reads it
                self.messages[message_id] = digest
                self._answered([by, data, granted_at])
            case ["status", at_ms, state, message, branch, output]:
                self._status(at_ms, state, message)
                self._emit(branch, output)
            case ["artifact", data, append, _, branch, output, *_]:
                self._artifact(Artifact.FromString(data), append=append)
                self._emit(branch, output)
            case ["begun", key, kind, arguments, details]:
                self.steps[key] = Step(kind, arguments, "", details)
                if kind != ASK:
                    self.waiting.add(key)
                if kind == CALL:
                    agent, data = details
                    self.unheard[key] = (agent, data)
            case [("done" | "failed" | "dropped") as end, key, kind, arguments, result]:
                self._end_step(key, Step(kind, arguments, end, result))
            case ["withdrawn", key]:
                del self.steps[key]
                self.waiting.discard(key)
            case ["question", question_id, key, spec]:
                self.question = Question(question_id, key, spec)
            case ["child", key, agent, task_id]:
                self.children[key] = Child(agent, task_id)
                self.unheard.pop(key, None)
            case ["orphan", key, agent, task_id]:
                self._orphan(key, agent, task_id, (self.n, number))
            case ["screened", _, _, _, sealed]:
                if sealed:
                    self.sealed.append(sealed)
            case ["lease", owner, how]:
                if how in (DIED, HELD):
                    self.deaths = self.deaths_after_another()
                self.owner_replica, self.lease, self.progressed = owner, how, False
            case ["cancel", by]:
                self.cancel_by = by
            case ["push", config_id, data]:
                known = self.push.get(config_id)
                place = (self.n, number)
                self.push[config_id] = Webhook(data, known.since if known else place, place)
            case ["unpush", config_id]:
                self.push.pop(config_id, None)
            case ["snapshot", data]:  # a shortcut for readers; it adds nothing to the state
                self.snapshot_at, self.snapshot_bytes = self.n, len(data)
            case _:
                raise LogBroken(f"unknown record {record[0]!r}: a newer version wrote this log, upgrade this replica")

    def _message(self, message_id: str, digest: str, by: str, data: bytes) -> None:
        self.messages[message_id] = digest
        if self.question is not None:
            self._past_status()  # so that the history has the question before its answer
        self.task.history.append(Message.FromString(data))
        self._answered([by, data])

    def _answered(self, value: list[Any]) -> None:
        if self.question is not None:
            step = self.steps[self.question.step]
            self._end_step(self.question.step, Step(step.kind, step.arguments, "done", value))

    def _end_step(self, key: str, step: Step) -> None:
        """The first end of a step counts: a branch may be cancelled just when its step's result arrives."""
        known = self.steps.get(key)
        if known is None or not known.end:
            self.steps[key] = step
        self.waiting.discard(key)
        if step.end == "done":  # one that failed may have reached the other agent, which then works on it unheard
            self.unheard.pop(key, None)
        if self.question is not None and self.question.step == key:
            self.question = None

    def _orphan(self, key: str, agent: str, task_id: str, place: Place) -> None:
        """What was not heard of when its cancel failed may have been since, at the last moment."""
        if not task_id and key in self.children:
            task_id = self.children[key].task_id
        message = b"" if task_id else self.unheard.get(key, ("", b""))[1]
        if task_id or message:
            self.orphans[key] = Orphan(agent, task_id, place, message)

    def _status(self, at_ms: int, state: int, message: bytes) -> None:
        self._past_status()
        if not self.task.HasField("status"):
            self.created = min(self.created, at_ms)
        if state in TERMINAL:
            self.question = None
            self._join_chunks()
        self.task.status.CopyFrom(status_of(at_ms, state, message))

    def _past_status(self) -> None:
        """What the agent said with its last status becomes history."""
        if self.task.status.HasField("message"):
            self.task.history.append(self.task.status.message)
            self.task.status.ClearField("message")

    def _artifact(self, artifact: Artifact, *, append: bool) -> None:
        at = self._artifacts.get(artifact.artifact_id)
        if at is None:
            self._artifacts[artifact.artifact_id] = len(self.task.artifacts)
            self.task.artifacts.append(artifact)
        elif append:
            self.task.artifacts[at].parts.extend(artifact.parts)
            self.in_chunks.add(artifact.artifact_id)
        else:
            self.task.artifacts[at].CopyFrom(artifact)
            self.in_chunks.discard(artifact.artifact_id)

    def _join_chunks(self) -> None:
        """However a text was cut, which says no more than how fast it came, it is one part once nothing follows."""
        for artifact in self.task.artifacts:
            if artifact.artifact_id in self.in_chunks:
                joined = [_one_part(list(parts)) for _, parts in groupby(artifact.parts, key=_kind_of_text)]
                del artifact.parts[:]
                artifact.parts.extend(part for parts in joined for part in parts)

    def _emit(self, branch: str, number: int) -> None:
        if branch:
            self.emitted[branch] = number

    def snapshot(self) -> bytes:
        """This state as bytes, for the log of a long task."""
        packed: bytes = msgpack.packb(
            {
                "n": self.n,
                "nonce": self.nonce,
                "epoch": self.epoch,
                "at": self.at,
                "created": self.created,
                "owner": self.owner_replica,
                "meta": self.meta,
                "task": self.task.SerializeToString(),
                "messages": self.messages,
                "steps": {key: [s.kind, s.arguments, s.end, s.value] for key, s in self.steps.items()},
                "emitted": self.emitted,
                "question": [self.question.id, self.question.step, self.question.spec] if self.question else None,
                "children": {key: [c.agent, c.task_id] for key, c in self.children.items()},
                "unheard": self.unheard,
                "orphans": {key: [o.agent, o.task_id, o.place, o.message] for key, o in self.orphans.items()},
                "push": {key: [w.config, w.since, w.version] for key, w in self.push.items()},
                "sealed": self.sealed,
                "in chunks": sorted(self.in_chunks),
                "cancel": self.cancel_by,
                "lease": [self.lease, self.deaths, self.progressed],
            }
        )
        return packed

    @classmethod
    def restore(cls, data: bytes) -> "FoldedTask":
        """The state that `snapshot` packed."""
        raw = msgpack.unpackb(data)
        task = A2ATask.FromString(raw["task"])
        steps = {key: Step(*value) for key, value in raw["steps"].items()}
        lease, deaths, progressed = raw["lease"]
        return cls(
            n=raw["n"],
            nonce=raw["nonce"],
            epoch=raw["epoch"],
            at=raw["at"],
            created=raw["created"],
            owner_replica=raw["owner"],
            meta=raw["meta"],
            task=task,
            messages=raw["messages"],
            steps=steps,
            emitted=raw["emitted"],
            question=Question(*raw["question"]) if raw["question"] else None,
            children={key: Child(*value) for key, value in raw["children"].items()},
            orphans={
                key: Orphan(agent, task_id, tuple(place), message)
                for key, (agent, task_id, place, message) in raw.get("orphans", {}).items()  # older snapshots have none
            },
            unheard={key: (agent, message) for key, (agent, message) in raw.get("unheard", {}).items()},
            push={key: Webhook(data, tuple(since), tuple(at)) for key, (data, since, at) in raw["push"].items()},
            sealed=raw.get("sealed", []),  # older snapshots have none
            in_chunks=set(raw.get("in chunks", [])),
            cancel_by=raw["cancel"],
            lease=lease,
            deaths=deaths,
            progressed=progressed,
            waiting={key for key, step in steps.items() if not step.end and step.kind != ASK},
            _artifacts={artifact.artifact_id: at for at, artifact in enumerate(task.artifacts)},
        )

    def public(self) -> A2ATask:
        """A copy of the task as callers see it, `createdAt` and `lastModified` (UTC, ms) in its metadata."""
        task = A2ATask()
        task.CopyFrom(self.task)
        fields = task.metadata.fields
        fields["createdAt"].string_value, fields["lastModified"].string_value = iso(self.created), iso(self.at)
        return task

    def push_configs(self) -> list[TaskPushNotificationConfig]:
        """The webhook configurations, oldest first."""
        return [TaskPushNotificationConfig.FromString(webhook.config) for webhook in self.push.values()]


def _kind_of_text(part: Part) -> str:
    """What parts must have in common that may be one text; "" for those that are none."""
    return part.media_type if part.WhichOneof("content") == "text" else ""


def _one_part(parts: list[Part]) -> list[Part]:
    """These parts of one kind, as one if they are text."""
    kind = _kind_of_text(parts[0])
    return [Part(text="".join(part.text for part in parts), media_type=kind)] if kind else parts


def status_of(at_ms: int, state: int, message: bytes) -> TaskStatus:
    """The A2A TaskStatus of a status record."""
    status = TaskStatus(state=state)  # type: ignore[arg-type]
    status.timestamp.FromMilliseconds(at_ms)
    if message:
        status.message.ParseFromString(message)
    return status


_EPOCH = datetime(1970, 1, 1)
"""In UTC, but without its offset, so that none is written."""


def iso(at_ms: int) -> str:
    """2026-03-03T10:00:00.000Z, as A2A 1.0 §5.6.1 wants timestamps."""
    moment = _EPOCH + timedelta(milliseconds=at_ms)
    return moment.isoformat("T", "milliseconds") + "Z"
