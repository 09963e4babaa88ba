"""The inventory of agents as lines for people and as values for programs."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError
from rich.text import Text

from sidecard.cli.show import one_line, plain
from sidecard.errors import ConfigurationError
from sidecard.registry import HEARTBEAT_SECONDS, Demand, Enrolment, ForeignRequest
from sidecard.validation import explain

MISSED = timedelta(seconds=3 * HEARTBEAT_SECONDS)
"""An agent that was not seen for so long is marked."""
MOST_SHOWN = 3
WIDTH = 120
GAP = 2
SHORTEST = 10
"""Characters that a column keeps, however narrow it gets."""
_TITLES = ("agent", "version", "publisher", "skills", "calls", "called by", "seen", "verified")
_LEAST_FIRST = tuple(_TITLES.index(title) for title in ("publisher", "version", "verified", "skills"))


def request(url: str, *, name: str, publisher: str, pin: bool, digest: str) -> ForeignRequest:
    """What an operator asks for. Raises ConfigurationError for what can't be asked for."""
    try:
        return ForeignRequest(url=url, name=name or None, publisher=publisher, pin=pin, digest=digest)
    except ValidationError as error:
        raise ConfigurationError(f"This can't be enrolled: {explain(error)}") from error


def calls(agent: Enrolment, estate: list[Enrolment]) -> dict[str, list[str]]:
    """What an agent can call: who lets it, by what they said when they enrolled, and with which scopes."""
    return {other.app_id: other.lets[agent.app_id] for other in estate if agent.app_id in other.lets}


def table(estate: list[Enrolment], now: datetime | None = None, width: int = WIDTH) -> Iterator[str]:
    """One line for each agent, of so many characters at the most; what is left out `detail` and `values` have.

    Where that is too little columns go, those first that say least, and then what is too long is cut.
    """
    at = now or datetime.now(UTC)
    if not estate:
        yield "nobody is enrolled yet"
        return
    rows = [[one_line(cell) for cell in row] for row in (_TITLES, *(_row(one, estate, at) for one in estate))]
    marks = ["", *(_mark(one, at) for one in estate)]
    widths = {column: max(len(row[column]) for row in rows) for column in range(len(_TITLES))}
    room = width - max(len(Text.from_markup(mark).plain) for mark in marks)
    for column in _LEAST_FIRST:
        if sum(widths.values()) + GAP * len(widths) > room:
            del widths[column]
    while (over := sum(widths.values()) + GAP * len(widths) - room) > 0:
        longest = max(widths, key=lambda column: widths[column])
        if widths[longest] <= SHORTEST:
            break
        widths[longest] = max(SHORTEST, widths[longest] - over)
    for number, (row, mark) in enumerate(zip(rows, marks, strict=True)):
        cells = "".join(plain(_cut(row[column], size).ljust(size + GAP)) for column, size in widths.items())
        line = f"{cells}{mark}".rstrip()
        yield f"[dim]{line}[/dim]" if not number else line


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[: size - 1]}…"


def _row(one: Enrolment, estate: list[Enrolment], now: datetime) -> tuple[str, ...]:
    return (
        one.app_id,
        one.version or "-",
        one.publisher or ("-" if one.kind == "a2a" else "(MCP)"),
        _some(one.skills),
        _some(sorted(calls(one, estate))),
        _some(sorted(one.lets)),
        _ago(one.last_seen, now),
        _ago(one.verified_at, now),
    )


def detail(agent: Enrolment, estate: list[Enrolment], now: datetime | None = None) -> Iterator[str]:
    """All that is known of one agent."""
    at = now or datetime.now(UTC)
    where = "outside the mesh" if agent.foreign else "in the mesh"
    yield f"[bold]{plain(agent.app_id)}[/bold] {plain(agent.version)}  {where}, {plain(agent.card_url)}"
    if agent.problem:
        yield f"[red]not used[/red]: {plain(one_line(agent.problem))}"
    if agent.kind == "a2a":
        how = "the pinned digest" if agent.pinned else f"the pinned key {plain(agent.kid)}"
        who = f"{plain(agent.publisher) or 'nobody'}" + (" (as it says)" if agent.pinned else "")
        yield f"  published by  {who}, verified by {how} {_ago(agent.verified_at, at)}"
        yield f"  card          {plain(one_line(agent.name))}, digest {agent.card_digest}"
        if agent.signed_at:
            yield f"  signed        {agent.signed_at:%Y-%m-%d %H:%M:%S} UTC"
        yield f"  skills        {plain(', '.join(agent.skills)) or '-'}"
    yield f"  seen          {_ago(agent.last_seen, at)}, enrolled {_ago(agent.enrolled_at, at)}"
    for either in agent.demands:
        yield f"  demands       {plain(one_line(' and '.join(map(_demand, either)))) or 'nothing'}"
    for title, others in (("can call", calls(agent, estate)), ("called by", agent.lets)):
        for other, scopes in sorted(others.items()):
            yield f"  {title:<12}  {plain(other)}: {plain(', '.join(scopes))}"


def values(agent: Enrolment, estate: list[Enrolment]) -> dict[str, Any]:
    """One agent for programs, with what it can call."""
    return {**agent.model_dump(mode="json"), "calls": calls(agent, estate)}


def _demand(one: Demand) -> str:
    issuer = f" by {one.issuer}" if one.issuer else ""
    return f"{one.kind}{issuer}" + (f", scopes {', '.join(one.scopes)}" if one.scopes else "")


def _some(names: list[str]) -> str:
    more = f" +{len(names) - MOST_SHOWN}" if len(names) > MOST_SHOWN else ""
    return (", ".join(names[:MOST_SHOWN]) or "-") + more


def _mark(agent: Enrolment, now: datetime) -> str:
    if agent.problem:
        return "[red]not used[/red]"
    if not agent.foreign and now - agent.last_seen > MISSED:
        return "[yellow]gone?[/yellow]"
    return "outside, pinned" if agent.pinned else "outside" if agent.foreign else ""


def _ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "never"
    seconds = max(0, int((now - moment).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
