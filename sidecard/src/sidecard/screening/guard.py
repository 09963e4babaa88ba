"""Screens what goes in and out of an agent's tasks, by each skill's policy."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from a2a.types import Artifact, Message, Part
from a2a.types import Task as A2ATask
from google.protobuf.struct_pb2 import Struct, Value
from opentelemetry import trace

from sidecard.agent import Agent
from sidecard.screening.finding import Action, Decision, Direction, Finding, Kind
from sidecard.screening.pieces import Pieces
from sidecard.screening.policy import CALLER, Policy
from sidecard.screening.screen import Screen, Text
from sidecard.screening.strings import Opaque, Spot, numbers_in, only_names, strings_of
from sidecard.screening.vault import WITHHELD, Vault
from sidecard.telemetry import ScreeningMetrics

MOST_DECISIONS = 50
"""Of one message, in the log; what is beyond is counted together."""
Content = Message | Artifact
Record = list[Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of something: `records` for the task's log, and why it is `withheld`, if it is.

    `changed` when it holds placeholders now, or nothing of what it held.
    """

    records: tuple[Record, ...] = ()
    withheld: str = ""
    changed: bool = False


@dataclass(frozen=True, slots=True)
class _Way:
    """What goes which way, of which skill, and from or to whom.

    What is redacted of the kinds in `returns`, the task's owner may have put back.
    """

    skill: str
    what: str
    direction: Direction
    other: str = CALLER
    returns: frozenset[Kind] = frozenset({Kind.PERSONAL})


CLEAN = Outcome()
_EVERYTHING = frozenset(Kind)
_TEXT = "parts[0].text"
_COMMON = frozenset({"", "text/plain", "application/json", "text/csv"})


class Guard:
    """One agent's screening. What it is given it changes in place: nothing redacted or blocked is left in it."""

    def __init__(self, agent: Agent, screen: Screen, vault: Vault) -> None:
        self._agent = agent
        self._screen = screen
        self._vault = vault
        self._metrics = ScreeningMetrics(agent.name)
        self.reveal = vault.reveal
        self.blind = vault.blind

    async def received(self, skill: str, task_id: str, message: Message, *, own: bool) -> Outcome:
        """A message somebody sends to a skill, before anything of it is stored; the task's owner, if it is their `own`.

        The owner may have all that they said themselves put back, nothing that others did, and of everything else the
        personal data: a credential that a skill, a tool or another agent let slip is nobody's to have.
        """
        if self._clean(message):
            return CLEAN
        returns = _EVERYTHING if own else frozenset[Kind]()
        return await self._pass(_Way(skill, "message", Direction.IN, returns=returns), task_id, message)

    async def gives(self, skill: str, task_id: str, artifact: Artifact) -> Outcome:
        """An artifact that a skill gives out."""
        if self._clean(artifact):
            return CLEAN
        return await self._pass(_Way(skill, "artifact", Direction.OUT), task_id, artifact)

    async def gives_on(self, skill: str, task_id: str, artifact: Artifact, before: str, pieces: Pieces) -> Outcome:
        """A piece of an artifact's text, behind what has gone `before`. Raises ScreeningFailed."""
        if self._screen.clean([before + artifact.parts[0].text, artifact.name]):
            return CLEAN
        return await self._pass(_Way(skill, "artifact", Direction.OUT), task_id, artifact, before, pieces)

    async def says(self, skill: str, task_id: str, message: Message) -> Outcome:
        """What a skill says or asks in a status."""
        if self._clean(message):
            return CLEAN
        return await self._pass(_Way(skill, "status", Direction.OUT), task_id, message)

    async def asks(self, skill: str, task_id: str, agent: str, message: Message) -> Outcome:
        """What a skill sends to another agent."""
        if self._clean(message):
            return CLEAN
        return await self._pass(_Way(skill, f"request to {agent}", Direction.OUT, agent), task_id, message)

    async def hears(self, skill: str, task_id: str, agent: str, task: A2ATask) -> Outcome:
        """What another agent's task says at rest: its artifacts, and its last words or its question.

        Its state is kept, since the state is a fact; when something is withheld, all of it is.
        """
        contents: list[Content] = [*task.artifacts]
        if task.status.HasField("message"):
            contents.append(task.status.message)
        about = Message()
        if task.HasField("metadata"):
            about.metadata.CopyFrom(task.metadata)
            contents.append(about)
        way = _Way(skill, f"answer of {agent}", Direction.IN, agent)
        outcomes = [CLEAN if self._clean(one) else await self._pass(way, task_id, one) for one in contents]
        withheld = next((one.withheld for one in outcomes if one.withheld), "")
        if withheld:
            for content in contents:
                _empty(content)
        task.ClearField("metadata")
        if about.metadata.fields:
            task.metadata.CopyFrom(about.metadata)
        records = tuple(record for one in outcomes for record in one.records)
        return Outcome(records, withheld, changed=any(one.changed for one in outcomes))

    async def passes(self, skill: str, task_id: str, tool: str, content: Message, direction: Direction) -> Outcome:
        """What goes to a tool, or comes from it; without a task, what is redacted can't be put back."""
        if self._clean(content):
            return CLEAN
        sent = direction is Direction.OUT
        way = _Way(skill, f"{'request to' if sent else 'result of'} {tool}", direction, tool)
        return await self._pass(way, task_id, content)

    def _clean(self, content: Content) -> bool:
        gist = _gist(content)
        return gist is not None and self._screen.clean(*gist)

    async def _pass(
        self, way: _Way, task_id: str, content: Content, before: str = "", pieces: Pieces | None = None
    ) -> Outcome:
        spots, opaque = _parted(content)
        texts = [spot.text for spot in spots]
        inspected = await self._screen.inspect([_behind(before, text) for text in texts], way.direction)
        if pieces is not None:
            inspected = [_new(found, text, before, pieces) for found, text in zip(inspected, texts, strict=True)]
        policy, prompts_model = self._policy(way.skill)
        decided: Counter[Decision] = Counter()
        redacted: list[tuple[Spot, list[Finding]]] = []
        for one in opaque:
            unread = Finding(Kind.UNREAD, one.media_type[:80] or "application/octet-stream", "not text", 0, 0)
            decided[_decision(policy.unread, unread, one.place)] += 1
        for spot, findings in zip(spots, inspected, strict=True):
            hidden = []
            for finding in findings:
                action = policy.action(finding, way.direction, way.other, prompts_model=prompts_model)
                decided[_decision(action, finding, spot.text.place)] += 1
                if action is Action.REDACT:
                    hidden.append(finding)
            if hidden:
                redacted.append((spot, hidden))
        if not decided:
            return CLEAN
        self._tell(decided, way)
        packed = _packed(decided)
        if blocked := next((one for one in decided if one.action is Action.BLOCK), None):
            _empty(content)
            record = ["screened", way.direction.value, way.what, packed, b""]
            return Outcome((record,), reason(way.what, blocked), changed=True)
        originals: dict[str, str] = {}
        for_owner: set[str] = set()
        for spot, hidden in redacted:
            text, kinds = self._redact(task_id, spot.text.text, hidden, originals)
            spot.put(text)
            for_owner |= {mark for mark, what in kinds.items() if what <= way.returns}
        sealed = self._vault.seal(task_id, originals, for_owner) if originals else b""
        return Outcome((["screened", way.direction.value, way.what, packed, sealed],), changed=bool(originals))

    def _policy(self, skill: str) -> tuple[Policy, bool]:
        known = self._agent.skills.get(skill)
        if known is None:  # a former skill, or a tool of its own: by the strictest reading
            return self._agent.screening, bool(skill)
        return known.screening or self._agent.screening, known.prompts_model

    def _redact(
        self, task_id: str, text: str, findings: list[Finding], originals: dict[str, str]
    ) -> tuple[str, dict[str, set[Kind]]]:
        """The text with a placeholder for each finding, and of which kinds those are; those that overlap have one."""
        spans: list[list[Any]] = []
        for one in sorted(findings, key=lambda one: (one.start, -one.end)):
            if spans and one.start < spans[-1][1]:
                spans[-1][1] = max(spans[-1][1], one.end)
                spans[-1][3].add(one.kind)
            else:
                spans.append([one.start, one.end, one.entity, {one.kind}])
        kinds: dict[str, set[Kind]] = {}
        pieces, at = [], 0
        for start, end, entity, what in spans:
            placeholder = self._vault.placeholder(task_id, entity, text[start:end])
            originals[placeholder] = text[start:end]
            kinds.setdefault(placeholder, set()).update(what)
            pieces += [text[at:start], placeholder]
            at = end
        return "".join([*pieces, text[at:]]), kinds

    def _tell(self, decided: Counter[Decision], way: _Way) -> None:
        span = trace.get_current_span()
        for one, count in decided.items():
            self._metrics.decided(way.direction.value, one.kind.value, one.action.value, count)
            if span.is_recording():
                about = {
                    "direction": way.direction.value,
                    "what": way.what,
                    "action": one.action.value,
                    "rule": one.rule,
                }
                span.add_event("screened", about | {"kind": one.kind.value, "entity": one.entity, "place": one.place})


def _gist(content: Content) -> tuple[list[str], list[str]] | None:
    """All its strings, cheaply: not its ids, which look like anything, nor the commonest media types.

    The second list has those of data, in protobuf's own bytes: before each are its tag, a control character, and its
    length, of which one character may be left. None when there is a file that may be no text.
    """
    texts = [content.name, content.description] if isinstance(content, Artifact) else []
    packed = [_bytes_of(part.metadata) for part in content.parts if part.HasField("metadata")]
    if content.HasField("metadata") and not only_names(content.metadata):
        packed.append(_bytes_of(content.metadata))
    for part in content.parts:
        match part.WhichOneof("content"):
            case "text":
                texts.append(part.text)
            case "data":
                packed.append(_bytes_of(part.data))
            case "raw" if not part.raw.isascii() or b"\0" in part.raw:
                return None
            case "raw":
                texts.append(part.raw.decode("ascii"))
            case _:
                texts.append(part.url)
        texts.append(part.filename)
        if part.media_type not in _COMMON:
            texts.append(part.media_type)
    return texts, packed


def _bytes_of(data: Struct | Value) -> str:
    packed = data.SerializeToString()
    return packed.decode("utf-8", "ignore") + numbers_in(packed)


def _parted(content: Content) -> tuple[list[Spot], list[Opaque]]:
    spots, opaque = [], []
    for one in strings_of(content):
        if isinstance(one, Spot):
            spots.append(one)
        else:
            opaque.append(one)
    return spots, opaque


def _behind(before: str, text: Text) -> Text:
    """A text with what went before it, if it is the text of an artifact."""
    return replace(text, text=before + text.text) if before and text.place == _TEXT else text


def _new(findings: list[Finding], text: Text, before: str, pieces: Pieces) -> list[Finding]:
    """What was found in a piece, without what was found in it before, and only what of it has not gone."""
    if text.place != _TEXT:
        return findings
    gone = len(before)
    new = [
        replace(one, start=max(0, one.start - gone), end=one.end - gone)
        for one in findings
        if one.end > gone and not (one.kind is Kind.INJECTION and pieces.told)
    ]
    pieces.told = pieces.told or any(one.kind is Kind.INJECTION for one in new)
    return new


def _decision(action: Action, finding: Finding, place: str) -> Decision:
    return Decision(action, finding.kind, finding.entity, finding.rule, place)


def _packed(decided: Counter[Decision]) -> list[list[str | int]]:
    """Decisions as they are stored, the severest first."""
    severity = list(Action)
    ordered = sorted(decided.items(), key=lambda one: -severity.index(one[0].action))
    packed = [[*one.packed()[:-1], count] for one, count in ordered[:MOST_DECISIONS]]
    for action in Action:
        rest = sum(count for one, count in ordered[MOST_DECISIONS:] if one.action is action)
        if rest:
            packed.append([action.value, "more", "", "", "", rest])
    return packed


def _empty(content: Content) -> None:
    """Leave nothing of what it says."""
    del content.parts[:]
    content.parts.append(Part(text=WITHHELD))
    content.ClearField("metadata")
    if isinstance(content, Artifact):
        content.ClearField("description")
        content.name = content.artifact_id


def reason(what: str, blocked: Decision) -> str:
    """Why something goes no further, without a word of it."""
    found = {
        Kind.INJECTION: "it reads like instructions to a language model",
        Kind.SECRET: "it holds a credential",
        Kind.PERSONAL: "it holds personal data",
        Kind.UNREAD: "it holds a file that can't be inspected",
    }[blocked.kind]
    return f"The {what} was withheld by content inspection: {found} ({blocked.entity} at {blocked.place})."
