"""What agents promise their callers, and which version a change of that takes."""

from typing import Literal

import pytest
from pydantic import BaseModel

from sidecard import Agent
from sidecard.check.contracts import refused
from sidecard.contract import Published, changes, contract_of, number_of, version_due
from sidecard.errors import ConfigurationError


class Query(BaseModel):
    """What is searched for."""

    origin: str
    day: str = "today"


class Offer(BaseModel):
    """What is found."""

    fare: int
    cabin: Literal["economy", "business"] = "economy"


class QueryUntil(Query):
    """One more field that is required."""

    until: str


class QueryOfNumbers(Query):
    """Another type."""

    day: int = 1  # type: ignore[assignment]


class QueryOfLess(Query):
    """A field may be left out, another may be null."""

    origin: str = "LHR"
    day: str | None = "today"


class Price(BaseModel):
    """Another name."""

    price: int
    cabin: Literal["economy", "business"] = "economy"


class OfferOfAny(Offer):
    """Any word."""

    cabin: str = "economy"


class OfferAndNote(Offer):
    """One more field."""

    note: str = ""


def published(
    version="1.4.2",
    *,
    takes=Query,
    gives=Offer,
    scope="flights:search",
    idempotent=True,
    name="search",
    says="Search.",
    **more,
) -> Published:
    """What an agent with this skill, and one that never changes, has to say of itself."""
    agent = Agent(name="flights", version=version, description="Flies.", publisher="Tests")

    async def skill(query, task):
        raise NotImplementedError

    async def other(query, task):
        raise NotImplementedError

    skill.__name__, skill.__doc__, other.__doc__ = name, says, "Stays."
    skill.__annotations__ = {"query": takes, "return": gives}
    other.__annotations__ = {"query": str, "return": str}
    agent.skill(scope=scope, idempotent=idempotent, **more)(skill)
    agent.skill(scope="flights:other", idempotent=True)(other)
    return Published.of(version, {key: contract_of(skill) for key, skill in agent.skills.items()})


BREAKING = {
    "a new required field": ({"takes": QueryUntil}, "search, input: until: is required now"),
    "a narrower type": ({"takes": QueryOfNumbers}, "search, input: day: string is taken no longer, but integer"),
    "a field of the result is gone": ({"gives": Price}, "search, output: fare: is gone"),
    "another value in the result": (
        {"gives": OfferOfAny},
        "search, output: cabin: others than 'economy', 'business' may come now",
    ),
    "another scope": ({"scope": "flights:find"}, "search: scope is 'flights:find', was 'flights:search'"),
    "no longer repeatable": ({"idempotent": False}, "search: idempotent is False, was True"),
    "a skill is gone": ({"name": "look"}, "search is gone"),
}


@pytest.mark.parametrize("change", BREAKING)
def test_what_breaks_callers_takes_a_new_major_version(change):
    """Neither the same version nor a minor one will do: what changed is said, and which version to write."""
    how, what = BREAKING[change]
    for version in ("1.4.2", "1.5.0", "1.99.99"):
        found = list(refused("flights", published(), published(version, **how)))
        assert f"{what}; that breaks callers of version 1.4.2" in [finding.problem for finding in found]
        assert {finding.fix for finding in found} == {'write version="2.0.0", then `sidecard publish flights`'}
    assert not list(refused("flights", published(), published("2.0.0", **how)))


COMPATIBLE = {
    "what was required may be left out": {"takes": QueryOfLess},
    "more in the result": {"gives": OfferAndNote},
    "another action": {"failed": "elsewhere"},
}


@pytest.mark.parametrize("change", COMPATIBLE)
def test_what_only_adds_takes_a_new_minor_version(change):
    """The same version will not do, nor a patch."""
    how = COMPATIBLE[change]
    for version in ("1.4.2", "1.4.3"):
        [found] = refused("flights", published(), published(version, **how))
        assert found.fix == 'write version="1.5.0", then `sidecard publish flights`'
        assert "is new to callers" in found.problem
    for version in ("1.5.0", "2.0.0"):
        assert not list(refused("flights", published(), published(version, **how)))


def test_a_new_skill_takes_a_new_minor_version():
    """It breaks nobody."""
    before = published()
    before.skills.pop("search")
    assert [(change.what, change.breaking) for change in changes(before, published())] == [("search is new", False)]
    assert version_due("1.4.2", changes(before, published())) == "1.5.0"


def test_words_take_no_new_version():
    """A description may become better at any time."""
    assert published(says="Search for flights.") == published()


def test_versions_never_go_back():
    """Callers compare them."""
    [found] = refused("flights", published("1.4.3"), published("1.4.2"))
    assert found.problem == "has version 1.4.2, and 1.4.3 is published"


def test_below_1_a_minor_version_may_break():
    """As semver.org has it: nothing is promised yet."""
    found, *_ = refused("flights", published("0.3.0"), published("0.3.1", gives=Price))
    assert found.fix.startswith('write version="0.4.0"')
    assert not list(refused("flights", published("0.3.0"), published("0.4.0", gives=Price)))


@pytest.mark.parametrize("version", ["", "1", "1.4", "1.4.2.1", "v1.4.2", "01.4.2", "1.4.x", "one", "1.4.2\n"])
def test_a_version_that_is_none_is_refused(version):
    """It must be comparable."""
    with pytest.raises(ConfigurationError, match="is no version"):
        number_of(version)


def test_a_record_is_written_and_read_back(tmp_path):
    """What is read is what was written; nothing, where nothing was; what is no record is named."""
    path = tmp_path / "contract.json"
    assert Published.read(path) is None
    published().write(path)
    assert Published.read(path) == published()
    assert "Search." not in path.read_text()
    path.write_text("{}")
    with pytest.raises(ConfigurationError, match="restore it"):
        Published.read(path)
