"""`sidecard audit`: who did what to which task with which right, and whether the record of it is whole."""

import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from sidecard.cli.console import Console
from sidecard.errors import ConfigurationError, SidecardError

if TYPE_CHECKING:
    from sidecard.tasks.act import Recorded
    from sidecard.tasks.audit_log import End, Trailed

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class AuditBroken(SidecardError):
    """The audit was altered, or the store has lost some of it."""


def audit(  # noqa: PLR0917 -- typer calls it by name
    agent: Annotated[str, typer.Argument(help="App-id of the agent, or `registry`: what operators did.")],
    task: Annotated[str, typer.Option("--task", help="Only what was done to this task.")] = "",
    caller: Annotated[str, typer.Option("--caller", help="Only what this caller did, or what was done for it.")] = "",
    since: Annotated[str, typer.Option("--since", help="Only the last 30s, 15m, 1h, 7d …")] = "",
    refused: Annotated[bool, typer.Option("--refused", help="Only what was refused.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check that no record was altered or taken out.")] = False,
    end: Annotated[
        list[str],
        typer.Option("--end", help="With --verify: an end SLOT:RECORDS:DIGEST that an earlier --verify has shown."),
    ] = [],  # noqa: B006 -- typer's own way to take many
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")] = False,
) -> None:
    """Show who did what at an agent, on all its replicas, oldest first; for operators.

    The registry's tells who was enrolled, dismissed, revoked and restored by whom.

    It is read through the agent's own sidecar with that sidecar's token, and nothing is written. With --verify every
    record is checked against the chain that it stands in, and that against what the agent has signed (within a minute
    or so of each record), by the keys of the trust file. The chain's ends are shown: write them down elsewhere, and
    --verify --end tells later whether the last records of all were taken away.
    """
    import asyncio

    from sidecard.cli.project import Project
    from sidecard.cli.stores import reaching, stores
    from sidecard.cli.way import pinned_keys
    from sidecard.registry import REGISTRY
    from sidecard.seals import Seals
    from sidecard.tasks.audit_log import in_order, read_audit

    console = Console(as_json=as_json)
    beginning, known = _beginning(since), _ends(end)
    if known and not verify:
        raise ConfigurationError("--end goes with --verify.")

    async def work() -> "list[Trailed]":
        project = Project()
        async with stores(project) as opened:
            store = opened.of(agent)
            seals = None
            if verify and agent != REGISTRY:  # which has no card, and no key to sign one with
                seals = Seals(agent, project.run_file.name, pinned_keys(project))
            with reaching(agent):
                return await read_audit(store, since=beginning, verify=verify, seals=seals, ends=known)

    trails = asyncio.run(work())
    shown = [one for one in in_order(trails) if _wanted(one, task=task, caller=caller, refused=refused)]
    for line in lines(shown):
        console.line(line)
    problems = [f"slot {trail.slot}: {problem}" for trail in trails for problem in trail.problems]
    if problems:
        raise AuditBroken(f"the audit of {agent} is not whole: {'; '.join(problems)}")
    if verify:
        for trail in trails:
            signed = "all signed" if trail.sealed == trail.number else f"signed up to record {trail.sealed}"
            digest = f"{trail.slot}:{trail.number}:{trail.digest.hex()}"
            console.line(f"[green]whole[/green]  slot {trail.slot}, {trail.number} records, {signed}: {digest}")
    ends = [
        {"slot": trail.slot, "records": trail.number, "signed": trail.sealed, "digest": trail.digest.hex()}
        for trail in trails
    ]
    console.result(ok=True, records=[one.as_values() for one in shown], ends=ends)


def lines(shown: "Iterable[Recorded]") -> Iterator[str]:
    """A line per record, for people."""
    from sidecard.cli.show import plain

    empty = True
    for one in shown:
        empty = False
        act = one.act
        moment = datetime.fromtimestamp(act.at / 1000, UTC).astimezone()
        when = f"[dim]{moment:%Y-%m-%d %H:%M:%S}.{act.at % 1000:03d} {one.replica:>5}[/dim]"
        who = act.caller or "nobody known"
        proof = f" [dim]({plain(act.identity)})[/dim]" if act.identity else ""
        whose = f" for {plain(act.subject)}" if act.subject not in ("", act.caller) else ""
        where = f" in {plain(act.tenant)}" if act.tenant else ""
        what = " ".join(plain(word) for word in (act.operation or "at the door", act.skill) if word)
        task = f"  [dim]task[/dim] {plain(act.task)}" if act.task else ""
        by = f"  [dim]by[/dim] {plain(act.right)}" if act.right else ""
        colour = "red" if act.refused else "yellow" if act.outcome == "dropped" else "green"
        times = f" {act.count} times" if act.count > 1 else ""
        trace = f"  [dim]trace {act.trace}[/dim]" if act.trace else ""
        outcome = f"[{colour}]{plain(act.outcome)}[/{colour}]{times}"
        yield f"{when}  {plain(who)}{proof}{whose}{where}  {what}{task}{by}  {outcome}{trace}"
    if empty:
        yield "nothing is recorded"


def _wanted(one: "Recorded", *, task: str, caller: str, refused: bool) -> bool:
    act = one.act
    if task and act.task != task:
        return False
    if caller and caller not in (act.caller, act.subject):
        return False
    return act.refused or not refused


def _ends(texts: Iterable[str]) -> "list[End]":
    """Ends as --verify shows them. Raises ConfigurationError."""
    from sidecard.tasks.audit_log import End

    ends = []
    for text in texts:
        found = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,18}):([0-9a-f]{64})", text)
        if found is None:
            raise ConfigurationError(f"--end takes SLOT:RECORDS:DIGEST, as --verify shows it; {text!r} is none")
        ends.append(End(int(found[1]), int(found[2]), found[3]))
    return ends


def _beginning(since: str) -> int:
    """The moment from which records are shown, UTC in milliseconds. Raises ConfigurationError."""
    if not since:
        return 0
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", since)
    if found is None:
        raise ConfigurationError(f"--since takes a number and s, m, h or d, as in 15m; {since!r} is none of these")
    return time.time_ns() // 1_000_000 - int(found[1]) * _UNITS[found[2]] * 1_000
