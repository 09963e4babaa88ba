"""A log as lines for people (rich markup), and as plain values for programs."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from a2a.types import Artifact, Message, TaskPushNotificationConfig
from a2a.types import Task as A2ATask
from google.protobuf.json_format import MessageToDict

from sidecard.cli.show import one_line, plain
from sidecard.extension import Sent
from sidecard.tasks.binding import data_of, text_of
from sidecard.tasks.entry import Record
from sidecard.tasks.state import iso
from sidecard.tasks.states import state_name
from sidecard.tasks.tree import Logged

SHOWN = 140
_DECISION = ("action", "kind", "entity", "rule", "place", "count")


def lines(logged: Logged, indent: str = "") -> Iterator[str]:
    """A task's log, a line per record: its place, when it was stored, what it says; what was delegated, below it."""
    if logged.missing:
        yield f"{indent}[bold]{plain(logged.agent)}[/bold]  [dim]task {plain(logged.task_id)}[/dim]"
        yield f"{indent}[yellow]no log[/yellow]  {plain(one_line(logged.missing))}"
        return
    folded, meta = logged.folded, logged.folded.meta
    took = f"{len(logged.entries)} entries in {_seconds(folded.at - folded.created)}"
    yield (
        f"{indent}[bold]{plain(logged.agent)} {plain(meta['skill'])}[/bold]  {state_name(folded.state)}  "
        f"[dim]task {plain(logged.task_id)}  {took}[/dim]"
    )
    for n, entry in enumerate(logged.entries, 1):
        for number, record in enumerate(entry.records):
            place = f"{n}.{number}"
            when = _clock(entry.at) if number == 0 else ""
            said = plain(_short(" ".join(words(record).split())))
            yield f"{indent}[dim]{place:>6}  {when:<12}[/dim]  {said}"
            if place in logged.children:
                yield from lines(logged.children[place], f"{indent}        [dim]│[/dim] ")


def words(record: Record) -> str:  # noqa: C901, PLR0911, PLR0912 -- one case per kind of record
    """A record in words: who did what, and where in the run."""
    match record:
        case ["new", meta]:
            tenant = f", tenant {meta['tenant']}" if meta["tenant"] else ""
            subject = f" on behalf of {meta['subject']}" if meta["subject"] != meta["owner"] else ""
            return f"new       {meta['owner']} starts {meta['skill']}, version {meta['version']}{subject}{tenant}"
        case ["message", _, _, by, data]:
            return f"message   {by}: {_said(Message.FromString(data))}"
        case ["grant", _, _, by, data, _]:
            return f"grant     {by}: {_decision(data)}"
        case ["status", _, state, data, branch, number]:
            text = text_of(Message.FromString(data))
            return f"status    {state_name(state)}  {text}{_made(branch, number)}"
        case ["artifact", data, append, last, branch, number, *_]:
            artifact = Artifact.FromString(data)
            chunk = (", last chunk" if last else ", chunk") if append else ""
            said = _said(Message(parts=artifact.parts))
            return f"artifact  {artifact.name}{chunk}: {said}{_made(branch, number)}"
        case ["begun", key, kind, arguments, details]:
            return f"begun     {key} {kind} {_details(kind, arguments, details)}"
        case ["done", key, kind, arguments, result]:
            return f"done      {key} {kind} {_name(arguments)} → {_result(kind, result)}"
        case ["failed", key, kind, arguments, reason]:
            return f"failed    {key} {kind} {_name(arguments)}: {reason}"
        case ["dropped", key, kind, arguments, _]:
            return f"dropped   {key} {kind} {_name(arguments)}: its branch was cancelled here"
        case ["withdrawn", key]:
            return f"withdrawn {key}: the agent stopped before it was done"
        case ["question", _, key, spec]:
            who = " from somebody else" if spec["by_other"] else ""
            right = f" with the right {spec['scope']}" if spec["scope"] else ""
            what = f"the authority {spec['authority']}" if spec.get("authority") else "an answer"
            return f"question  {key} waits for {what}{who}{right}: {spec['prompt']}"
        case ["child", key, agent, task_id]:
            return f"child     {key} {agent} has taken it as task {task_id}"
        case ["orphan", key, agent, task_id]:
            what = f"its task {task_id}" if task_id else "what it may have made of this"
            return f"orphan    {key} {agent} is yet to be told that {what} is canceled"
        case ["screened", direction, what, decisions, sealed]:
            found = "; ".join(_decided(decision) for decision in decisions)
            kept = "; originals are sealed" if sealed else ""
            return f"screened  {direction} {what}: {found}{kept}"
        case ["lease", owner, how]:
            return f"lease     replica {owner} moves it on ({how})"
        case ["cancel", by]:
            return f"cancel    {by} asks to cancel"
        case ["push", config_id, data]:
            return f"push      webhook {config_id} to {TaskPushNotificationConfig.FromString(data).url}"
        case ["unpush", config_id]:
            return f"unpush    webhook {config_id} is removed"
        case ["snapshot", data]:
            return f"snapshot  {len(data)} bytes"
        case _:
            return str(record[0])


def as_values(logged: Logged) -> dict[str, Any]:
    """The tree for programs. Records have their place, kind and what they hold; A2A objects are ProtoJSON."""
    if logged.missing:
        return {"agent": logged.agent, "task": logged.task_id, "missing": logged.missing}
    folded, meta = logged.folded, logged.folded.meta
    entries = []
    for n, entry in enumerate(logged.entries, 1):
        records = [_values(record) | {"place": f"{n}.{i}"} for i, record in enumerate(entry.records)]
        entries.append({"entry": n, "at": iso(entry.at), "epoch": entry.epoch, "records": records})
    children = [{"place": place, **as_values(child)} for place, child in logged.children.items()]
    return {
        "agent": logged.agent,
        **meta,
        "state": state_name(folded.state),
        "createdAt": iso(folded.created),
        "lastModified": iso(folded.at),
        "replica": folded.owner_replica,
        "entries": entries,
        "children": children,
    }


def _values(record: Record) -> dict[str, Any]:  # noqa: C901, PLR0911, PLR0912 -- one case per kind of record
    kind = record[0]
    match record:
        case ["new", meta]:
            return {"kind": kind, **meta}
        case ["message", message_id, digest, by, data]:
            message = MessageToDict(Message.FromString(data))
            return {"kind": kind, "messageId": message_id, "digest": digest, "by": by, "message": message}
        case ["grant", message_id, digest, by, data, at]:
            grant = Sent.of_message(Message.FromString(data)).grant
            decided = grant.model_dump() if grant else {}
            return {"kind": kind, "messageId": message_id, "digest": digest, "by": by, "at": iso(at), **decided}
        case ["status", at, state, data, branch, number]:
            message = MessageToDict(Message.FromString(data))
            made = {"branch": branch, "number": number}
            return {"kind": kind, "at": iso(at), "state": state_name(state), "message": message, **made}
        case ["artifact", data, append, last, branch, number, *_]:
            artifact = MessageToDict(Artifact.FromString(data))
            made = {"branch": branch, "number": number}
            return {"kind": kind, "artifact": artifact, "append": append, "lastChunk": last, **made}
        case ["begun" | "done" | "failed" | "dropped", key, step, arguments, value]:
            return {"kind": kind, "step": key, "of": step, "arguments": arguments, "value": _value(step, kind, value)}
        case ["withdrawn", key]:
            return {"kind": kind, "step": key}
        case ["question", question_id, key, spec]:
            return {"kind": kind, "id": question_id, "step": key, **spec}
        case ["child" | "orphan", key, agent, task_id]:
            return {"kind": kind, "step": key, "agent": agent, "task": task_id}
        case ["screened", direction, what, decisions, sealed]:
            found = [dict(zip(_DECISION, decision, strict=True)) for decision in decisions]
            return {"kind": kind, "direction": direction, "what": what, "decisions": found, "sealed": bool(sealed)}
        case ["lease", owner, how]:
            return {"kind": kind, "replica": owner, "how": how}
        case ["cancel", by]:
            return {"kind": kind, "by": by}
        case ["push", config_id, data]:  # not its token and credentials
            return {"kind": kind, "id": config_id, "url": TaskPushNotificationConfig.FromString(data).url}
        case ["unpush", config_id]:
            return {"kind": kind, "id": config_id}
        case _:
            return {"kind": kind}


def _value(step: str, kind: str, value: Any) -> Any:  # noqa: ANN401 -- whatever a step holds
    match step, kind, value:
        case "call", "begun", [agent, data]:
            return {"agent": agent, "message": MessageToDict(Message.FromString(data))}
        case "call", "done", bytes():
            return MessageToDict(A2ATask.FromString(value))
        case "ask", "done", [by, data, at]:
            return {"by": by, "at": iso(at), "message": MessageToDict(Message.FromString(data))}
        case "ask", "done", [by, data]:
            return {"by": by, "message": MessageToDict(Message.FromString(data))}
        case _, _, bytes():
            return json.loads(value)
        case _:
            return value


def _details(kind: str, arguments: str, details: Any) -> str:  # noqa: ANN401 -- whatever a step holds
    match kind, details:
        case "call", [agent, data]:
            return f"{agent}: {_said(Message.FromString(data))}"
        case "sleep", int():
            return f"until {iso(details)}"
        case _:
            return _name(arguments)


def _result(kind: str, result: Any) -> str:  # noqa: ANN401, PLR0911 -- whatever a step returned
    match kind, result:
        case "call", [_, why]:
            return f"waits for a token: {why}"
        case "call", bytes():
            task = A2ATask.FromString(result)
            said = next((_said(Message(parts=one.parts)) for one in task.artifacts), text_of(task.status.message))
            return f"{state_name(task.status.state)}  {said}"
        case "ask", [by, data, _]:
            return f"{by}: {_decision(data)}"
        case "ask", [by, data]:
            return f"{by}: {_said(Message.FromString(data))}"
        case "now", int():
            return iso(result)
        case _, bytes():
            return result.decode(errors="replace")
        case _:
            return "" if result is None else str(result)


def _decided(decided: list[Any]) -> str:
    action, kind, entity, rule, place, count = decided
    times = f", {count} times" if count > 1 else ""
    return f"{action} {entity or kind} at {place}{times} ({rule})" if place else f"{action} {count} more"


def _said(message: Message) -> str:
    data = data_of(message)
    return text_of(message) or (json.dumps(data, ensure_ascii=False) if data else f"{len(message.parts)} parts")


def _decision(data: bytes) -> str:
    grant = Sent.of_message(Message.FromString(data)).grant
    return f"{'grants' if grant and grant.granted else 'refuses'} {grant.authority if grant else ''}"


def _name(arguments: str) -> str:
    return arguments.rpartition("#")[0]


def _made(branch: str, number: int) -> str:
    return f"  (output {number} of branch {branch})" if branch else ""


def _short(text: str) -> str:
    kind, _, rest = text.partition(" ")
    shown = f"{kind:<9} {rest}"
    return shown if len(shown) <= SHOWN else shown[: SHOWN - 1] + "…"


def _clock(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000).astimezone():%H:%M:%S}.{at % 1000:03d}"


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f} s"
