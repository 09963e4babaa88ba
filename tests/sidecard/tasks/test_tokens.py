"""The tokens that owners of tasks came with: kept for their own tasks, so many, so long, and in memory alone."""

import asyncio

import pytest

from sidecard.callers import Caller, Denied, Presented
from sidecard.tasks.tokens import EARLY_SECONDS, TaskTokens

NOW = 1_000_000.0


def came(name="ada", value="t", seconds=300.0, subject="", marks=()):
    token = Presented(value, "https://login.example.org", NOW + seconds, marks)
    return Caller(name, subject or name, frozenset(), token=token)


def meta(task="t1", owner="ada", subject=""):
    return {"task": task, "owner": owner, "subject": subject or owner}


class Clock:
    """Seconds since 1970, as told."""

    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tokens(clock):
    return TaskTokens(most=4, clock=clock)


async def test_a_task_has_what_its_owner_came_with_last(tokens):
    """Until it ends; its record says where that is from, and nothing else of it."""
    told = meta()
    tokens.begin(told, came(value="one"))
    assert told["exchange"] == "https://login.example.org"
    assert "one" not in str(told)
    tokens.keep(told, came(value="two"))
    assert tokens.of("t1").value == "two"
    tokens.forget("t1")
    assert tokens.of("t1") is None
    assert len(tokens) == 0


@pytest.mark.parametrize(
    ("told", "who"),
    [
        (meta(), came("bob")),
        (meta(subject="bob"), came("ada", subject="bob")),
        (meta(subject="bob"), came("bob")),
        (meta(), Caller("ada", "ada", frozenset())),
    ],
)
async def test_nobody_elses_is_kept(tokens, told, who):
    """Of who answers, who speaks for others, who is spoken for: only of an owner for whom the task is."""
    tokens.begin(told, who)
    tokens.keep(told | {"exchange": "https://login.example.org"}, who)
    assert (len(tokens), "exchange" in told) == (0, False)


async def test_it_is_gone_with_its_time(tokens, clock):
    """Offered no more a moment before, and not in memory after that."""
    tokens.begin(meta(), came(seconds=EARLY_SECONDS + 0.02))
    assert tokens.of("t1") is not None
    clock.now += 0.03
    assert tokens.of("t1") is None
    async with asyncio.timeout(5):
        while len(tokens):  # noqa: ASYNC110 -- a timer
            await asyncio.sleep(0.005)
    tokens.begin(meta(), came(seconds=1))
    assert len(tokens) == 0


async def test_it_is_not_offered_for_who_is_revoked(clock):
    """Whichever of their marks it is by."""
    denied = Denied()
    tokens = TaskTokens(denied, clock=clock)
    tokens.begin(meta(), came(marks=("caller:ada", "token:7")))
    denied.become(["token:7"])
    assert tokens.of("t1") is None
    denied.become([])
    assert tokens.of("t1") is not None


async def test_who_has_the_most_loses_their_oldest(tokens):
    """So a noisy caller takes nothing from a quiet one, and memory is bounded."""
    tokens.begin(meta("quiet", "bob"), came("bob"))
    for number in range(10):
        tokens.begin(meta(f"t{number}"), came())
    assert len(tokens) == 4
    assert tokens.of("quiet") is not None
    assert [number for number in range(10) if tokens.of(f"t{number}")] == [7, 8, 9]


async def test_all_are_forgotten_at_once(tokens):
    """When this replica stops, or others have taken its tasks over."""
    tokens.begin(meta("a"), came())
    tokens.begin(meta("b", "bob"), came("bob"))
    tokens.clear()
    assert len(tokens) == 0
    assert tokens.of("a") is None
