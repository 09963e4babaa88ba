"""`sidecard agents`, `enrol` and `dismiss`: the inventory as people and programs see it, and who is asked."""

import contextlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.text import Text
from typer.testing import CliRunner

from sidecard.cli import app, inventory, way
from sidecard.errors import ConfigurationError
from sidecard.registry import Demand, Enrolment, ForeignRequest

NOW = datetime.now(UTC)
DIGEST = "ab" * 32


def enrolment(app_id: str, **changes) -> Enrolment:
    times = {"enrolled_at": NOW - timedelta(days=3), "last_seen": NOW, "verified_at": NOW}
    said = {"name": app_id, "version": "1.0.0", "publisher": "Desk", "kid": f"{app_id}-1", "card_url": "http://x"}
    return Enrolment.model_validate({"app_id": app_id, "kind": "a2a", "card_digest": DIGEST} | said | times | changes)


ESTATE = [
    enrolment("flights", skills=["search", "book"], lets={"orchestrator": ["flights:book"]}),
    enrolment("orchestrator", lets={"desk": ["trips:plan"]}, last_seen=NOW - timedelta(hours=2)),
    enrolment(
        "rail", foreign=True, pinned=True, kid="", publisher="Rail [bold]Inc\x1b[31m", problem="its card was altered",
        demands=[[Demand(scheme="sso", kind="oauth2", issuer="https://id.example", scopes=["rail:book"])]],
    ),
]  # fmt: skip


class FakeRegistry:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, object]] = []

    async def agents(self) -> list[Enrolment]:
        return ESTATE

    async def look_at(self, request: ForeignRequest) -> Enrolment:
        self.asked.append(("look", request))
        return ESTATE[2]

    async def enrol_foreign(self, request: ForeignRequest) -> Enrolment:
        self.asked.append(("enrol", request))
        return ESTATE[2]

    async def dismiss(self, app_id: str) -> None:
        self.asked.append(("dismiss", app_id))


@pytest.fixture
def registry(monkeypatch, project):
    monkeypatch.chdir(project.root)
    fake = FakeRegistry()

    @contextlib.asynccontextmanager
    async def opened(_):
        yield fake

    monkeypatch.setattr(way, "registry", opened)
    return fake


def run(*words: str, **given: str):
    done = CliRunner().invoke(app, words, **given)
    if isinstance(done.exception, Exception):
        raise done.exception
    return done


def test_the_table_says_who_calls_whom():
    """One line each: what it can call is what others let it; who was not seen, and who is not used, is marked."""
    _, flights, orchestrator, rail = inventory.table(ESTATE, NOW)
    assert flights.split() == [
        "flights",
        "1.0.0",
        "Desk",
        "search,",
        "book",
        "-",
        "orchestrator",
        *["0", "s", "ago"] * 2,
    ]
    assert [word for word in orchestrator.split() if word in {"flights", "desk"}] == ["flights", "desk"]
    assert "gone?" in orchestrator
    assert "not used" in rail
    assert "\x1b" not in rail
    assert list(inventory.table([], NOW)) == ["nobody is enrolled yet"]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_table_is_as_wide_as_the_screen(width):
    """The agent, whom it calls, who calls it, and whether something is wrong are there at any width."""
    estate = [
        enrolment(
            "orchestrator", publisher="Travel Desk", skills=["plan_trip", "expense_report_review", "approve", "more"],
            lets={name: ["x"] for name in ("compliance", "desk", "expenses", "flights")},
        ),
        *(enrolment(name, publisher="Travel Desk", lets={"orchestrator": ["x"]}, problem="altered")
          for name in ("compliance", "flights", "expenses-of-others")),
    ]  # fmt: skip
    lines = [Text.from_markup(line).plain for line in inventory.table(estate, NOW, width)]
    assert max(map(len, lines)) <= width
    assert [word for word in ("agent", "calls", "called by", "seen") if word not in lines[0]] == []
    assert lines[1].startswith("orchestrator ")
    assert all(line.endswith("not used") for line in lines[2:])
    assert ("publisher" in lines[0]) == (width == 200)


def test_one_agent_in_detail():
    """Publisher, proof, digest, demands, and both directions of calls."""
    shown = "\n".join(inventory.detail(ESTATE[1], ESTATE, NOW))
    assert "can call      flights: flights:book" in shown
    assert "called by     desk: trips:plan" in shown
    assert "the pinned key orchestrator-1" in shown
    assert f"digest {DIGEST}" in shown
    foreign = "\n".join(inventory.detail(ESTATE[2], ESTATE, NOW))
    assert "its card was altered" in foreign
    assert "(as it says), verified by the pinned digest" in foreign
    assert "oauth2 by https://id.example, scopes rail:book" in foreign


def test_programs_get_the_same(registry):
    """With what each can call."""
    told = json.loads(run("agents", "--json").stdout)["agents"]
    assert {one["app_id"]: one["calls"] for one in told}["orchestrator"] == {"flights": ["flights:book"]}
    assert [one["app_id"] for one in json.loads(run("agents", "flights", "--json").stdout)["agents"]] == ["flights"]
    with pytest.raises(ConfigurationError, match="there are: flights, orchestrator, rail"):
        run("agents", "hotels")


def test_a_signed_agent_is_enrolled_at_once(registry):
    """Its publisher's key was confirmed when it was pinned."""
    run("enrol", "https://rail.example", "--publisher", "Rail Inc", "--name", "rail")
    [(what, request)] = registry.asked
    assert (what, request.publisher, request.name, request.pin) == ("enrol", "Rail Inc", "rail", False)


@pytest.mark.parametrize(("said", "asked"), [("n\n", ["look"]), ("y\n", ["look", "enrol"])])
def test_a_card_is_pinned_by_who_has_seen_it(registry, monkeypatch, said, asked):
    """It is shown, and only yes enrols it: with the digest that was shown."""
    monkeypatch.setattr("sidecard.cli.estate.at_terminal", lambda: True)
    done = run("enrol", "http://127.0.0.1:9000", "--pin", input=said)
    assert DIGEST in done.output
    assert [what for what, _ in registry.asked] == asked
    assert registry.asked[-1][1].digest == (DIGEST if said == "y\n" else "")


def test_where_nobody_can_be_asked_the_digest_is_given(registry):
    """A script can't confirm what it has not been told; and a digest goes with --pin alone."""
    with pytest.raises(ConfigurationError, match="nobody to ask"):
        run("enrol", "http://127.0.0.1:9000", "--pin")
    with pytest.raises(ConfigurationError, match="goes with --pin"):
        run("enrol", "http://127.0.0.1:9000", "--digest", DIGEST)
    with pytest.raises(ConfigurationError, match="can't be enrolled"):
        run("enrol", "rail.example")
    assert registry.asked == []
    run("enrol", "http://127.0.0.1:9000", "--pin", "--digest", DIGEST)
    assert registry.asked[0][1].digest == DIGEST


def test_dismissing(registry):
    """One name."""
    assert json.loads(run("dismiss", "rail", "--json").stdout) == {"ok": True, "dismissed": "rail"}
    assert registry.asked == [("dismiss", "rail")]
