"""Tasks, events and cards as lines for people (rich markup), and as ProtoJSON for programs.

Whatever an agent says is shown as plain text: neither markup nor a terminal's control characters in it have an effect.
"""

import contextlib
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from a2a.types import Artifact, ListTasksResponse, Message, Part, Role, StreamResponse, Task, TaskState, TaskStatus
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as Proto
from rich.console import Console
from rich.markup import escape

from sidecard.agent_card import caller_in
from sidecard.extension import Asked
from sidecard.tasks.binding import text_of
from sidecard.tasks.states import INTERRUPTED, TERMINAL, state_name
from sidecard.trust import VerifiedCard

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they can make a line read as another one
_SHOWN_TEXT = 60
_MOST_OF_A_LINE = 600


def proto_json(message: Proto) -> str:
    """An A2A object as ProtoJSON, in one line. A2A 1.0 §5.5."""
    return json.dumps(MessageToDict(message), ensure_ascii=False)


def plain(text: str) -> str:
    """Somebody else's text, safe to print as markup on a terminal."""
    return escape("".join(c for c in text if c in "\n\t" or (unicodedata.category(c) != "Cc" and c not in _BIDI)))


def one_line(text: str) -> str:
    """Somebody else's text as one line of bounded length, without control characters; markup stays as it is."""
    return " ".join("".join(c for c in text if unicodedata.category(c) != "Cc" or c in "\n\t").split())[
        :_MOST_OF_A_LINE
    ]


def doing(shown: Task) -> str:
    """What a task is at, in a line."""
    return (
        f"{state_name(shown.status.state)}  {plain(text_of(shown.status.message))}  [dim]task {plain(shown.id)}[/dim]"
    )


@contextlib.contextmanager
def waiting(title: str, *, quiet: bool) -> Iterator[Callable[[str], object]]:
    """Shows, on a terminal, that something is awaited; what is yielded tells how it goes."""
    with Console(stderr=True, quiet=quiet).status(plain(title)) as spinner:
        yield spinner.update


def task(shown: Task, how_to_answer: str = "") -> Iterator[str]:
    """A task: state, question or reason, artifacts, id. `how_to_answer` is shown with an open question."""
    yield from status(shown.status)
    if shown.status.state in INTERRUPTED and how_to_answer:
        yield f"  [dim]answer:[/dim] {plain(how_to_answer)}"
    for one in shown.artifacts:
        yield from artifact(one)
    if shown.id:
        yield f"[dim]task {plain(shown.id)}[/dim]"


def status(shown: TaskStatus) -> Iterator[str]:
    """A state with what the agent says about it, and the choices when it asks."""
    text = text_of(shown.message)
    yield f"[bold {_colour(shown.state)}]{state_name(shown.state)}[/]" + (f"  {plain(text)}" if text else "")
    asked = Asked.of(shown.message) if shown.state in INTERRUPTED else None
    options = [*asked.details.items(), *asked.options.items()] if asked else []
    width = max((len(value) for value, _ in options), default=0)
    for value, meaning in options:
        yield f"  [bold]{plain(value.ljust(width))}[/bold]  {plain(meaning)}"


def artifact(shown: Artifact) -> Iterator[str]:
    """An artifact's text; its data only when it has no text; of its files the names."""
    yield f"[bold]{plain(shown.name or shown.artifact_id)}[/bold]"
    has_text = any(part.WhichOneof("content") == "text" for part in shown.parts)
    for part in shown.parts:
        content = _part(part, has_text=has_text)
        if content:
            yield from (f"  {line}" for line in plain(content).splitlines())


def history(messages: Iterable[Message]) -> Iterator[str]:
    """A conversation, a message each."""
    for message in messages:
        who = "you" if message.role == Role.ROLE_USER else "agent"
        yield f"[cyan]{who:<6}[/cyan] {plain(_words(message))}"


def tasks(listed: ListTasksResponse) -> Iterator[str]:
    """One line per task: id, state, when it changed, how it began."""
    for one in listed.tasks:
        when = one.status.timestamp.ToDatetime().astimezone() if one.status.HasField("timestamp") else None
        state = state_name(one.status.state)
        first = _short(_words(one.history[0])) if one.history else ""
        yield (
            f"{plain(one.id)}  [{_colour(one.status.state)}]{state:<14}[/]  "
            f"[dim]{when:%Y-%m-%d %H:%M:%S}[/dim]  {plain(first)}"
            if when
            else f"{plain(one.id)}  {state}"
        )
    if not listed.tasks:
        yield "no tasks yet"
    elif listed.next_page_token:
        yield f"[dim]the last {len(listed.tasks)} of {listed.total_size}[/dim]"


def card(verified: VerifiedCard) -> Iterator[str]:
    """Who an agent is, who vouches for that, where it is and what it can do."""
    shown = verified.card
    yield f"[bold]{plain(shown.name)}[/bold] {plain(shown.version)}  {plain(shown.description)}"
    proof = f"signed by {plain(verified.publisher)} with the pinned key {plain(verified.kid)}"
    if not verified.kid:
        proof = f"the very card that an operator has pinned, published by {plain(verified.publisher)}, as it says"
    yield f"[green]verified[/green]: {proof}"
    yield f"[dim]digest {verified.digest}[/dim]"
    yield "[bold]interfaces[/bold]"
    for interface in shown.supported_interfaces:
        binding = f"{interface.protocol_binding} {interface.protocol_version}"
        yield f"  {plain(binding):<16}{plain(interface.url)}"
    yield "[bold]skills[/bold]"
    width = max((len(skill.id) for skill in shown.skills), default=0)
    for skill in shown.skills:
        first = skill.description.partition("\n\n")[0].replace("\n", " ")
        yield f"  {plain(skill.id.ljust(width))}  {plain(first)}"
    if known := caller_in(shown):
        held, tenants = ", ".join(known["scopes"]), ", ".join(filter(None, known["tenants"]))
        where = f", in the tenants {tenants}, too" if tenants else ""
        yield f"[bold]for you[/bold]  {plain(known['name'])}, who holds {plain(held or 'nothing')}{plain(where)}"


def card_json(verified: VerifiedCard) -> str:
    """A verified card with the proof of it, in one line."""
    proof = {"publisher": verified.publisher, "kid": verified.kid, "digest": verified.digest}
    return json.dumps({"verified": proof, "card": MessageToDict(verified.card)}, ensure_ascii=False)


class LiveView:
    """Shows a stream as it comes, nothing twice: after a reconnection the task is told anew from its beginning."""

    def __init__(self) -> None:
        self._status = b""
        self._artifacts: dict[str, bytes] = {}
        self._told = ""

    def lines(self, event: StreamResponse) -> Iterator[str]:
        """What an event adds to what has been shown."""
        match event.WhichOneof("payload"):
            case "task":
                if event.task.id != self._told:
                    self._told = event.task.id
                    yield f"[dim]task {plain(event.task.id)}[/dim]"
                for one in event.task.artifacts:
                    yield from self._artifact(one)
                yield from self._changed(event.task.status)
            case "status_update":
                yield from self._changed(event.status_update.status)
            case "artifact_update" if event.artifact_update.append:
                yield from artifact(event.artifact_update.artifact)
            case "artifact_update":
                yield from self._artifact(event.artifact_update.artifact)
            case _:
                yield f"[cyan]agent [/cyan] {plain(_words(event.message))}"

    def _changed(self, shown: TaskStatus) -> Iterator[str]:
        content = shown.SerializeToString(deterministic=True)
        if content != self._status:
            self._status = content
            yield from status(shown)

    def _artifact(self, shown: Artifact) -> Iterator[str]:
        content = shown.SerializeToString(deterministic=True)
        if self._artifacts.get(shown.artifact_id) != content:
            self._artifacts[shown.artifact_id] = content
            yield from artifact(shown)


def _part(part: Part, *, has_text: bool) -> str:
    match part.WhichOneof("content"):
        case "text":
            return part.text
        case "data":
            return "" if has_text else json.dumps(MessageToDict(part.data), indent=2, ensure_ascii=False)
        case "raw":
            return f"file {part.filename or 'without a name'} ({part.media_type}, {len(part.raw)} bytes)"
        case _:
            return f"file {part.filename} at {part.url}"


def _words(message: Message) -> str:
    return " ".join("; ".join(_part(part, has_text=False) for part in message.parts).split())


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 1] + "…"


def _colour(state: int) -> str:
    if state in INTERRUPTED:
        return "yellow"
    if state == TaskState.TASK_STATE_COMPLETED:
        return "green"
    return "red" if state in TERMINAL else "blue"
