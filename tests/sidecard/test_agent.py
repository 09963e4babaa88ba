"""What an author declares: skills become what callers read, and what can't be a skill is refused with what to write."""

from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from sidecard import Agent, ConfigurationError, Task


class Order(BaseModel):
    """What the skills take."""

    what: str


class Plain:
    """No model."""


def shop() -> Agent:
    return Agent(name="shop", version="1", description="Sells.", publisher="Tests", asks=("approve",))


def test_a_function_becomes_a_skill():
    """Named after the function, described by its docstring, with its schemas; the function itself stays as it is."""
    agent = shop()

    async def look_around(order: Order, task: Task) -> Order:
        """Look around.

        In every corner.
        """
        return order

    assert agent.skill(scope="look", idempotent=True, tags=["a"], examples=["hat"])(look_around) is look_around
    skill = agent.skills["look_around"]
    assert (skill.name, skill.description) == ("Look around", "Look around.\n\nIn every corner.")
    assert (skill.input, skill.tags, skill.examples, skill.version) == (Order, ("a",), ("hat",), "1")
    assert skill.output.json_schema()["title"] == "Order"
    assert agent.scopes == {"look", "approve"}


@pytest.mark.parametrize("output", [str, None, Order, list[Order], dict[str, str]])
def test_what_a_skill_may_give(output):
    """Anything that has a JSON Schema, or nothing."""
    agent = shop()

    async def look(what: str, task: Task) -> Any:
        """Look."""

    look.__annotations__["return"] = output
    agent.skill(scope="look", idempotent=True)(look)
    assert agent.skills["look"].output.json_schema()


def not_async(order: Order, task: Task) -> Order:
    """Look."""
    return order


async def streaming(order: Order, task: Task) -> Order:
    """Look."""
    yield order


async def without_task(order: Order) -> Order:
    """Look."""
    return order


async def with_more(order: Order, task: Task, count: int) -> Order:
    """Look."""
    return order


async def with_many(order: Order, *tasks: Task) -> Order:
    """Look."""
    return order


async def without_input(order, task: Task) -> Order:
    """Look."""
    return order


async def without_output(order: Order, task: Task):
    """Look."""
    return order


async def swapped(task: Task, order: Order) -> Order:
    """Look."""
    return order


async def of_a_date(day: date, task: Task) -> str:
    """Look."""
    return str(day)


async def of_a_list(orders: list[Order], task: Task) -> str:
    """Look."""
    return str(orders)


async def of_either(order: Order | None, task: Task) -> str:
    """Look."""
    return str(order)


async def of_unknown(order: "Ordre", task: Task) -> str:  # noqa: F821
    """Look."""
    return str(order)


async def giving_no_model(order: Order, task: Task) -> Plain:
    """Look."""
    return Plain()


async def undocumented(order: Order, task: Task) -> Order:
    return order


async def barely_documented(order: Order, task: Task) -> Order:
    """ """  # noqa: D419
    return order


WRITE = r"write `async def {}\(request: Model, task: Task\) -> Model`"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (not_async, WRITE),
        (streaming, WRITE),
        (without_task, WRITE),
        (with_more, WRITE),
        (with_many, WRITE),
        (without_input, "annotations: " + WRITE),
        (without_output, "annotations: " + WRITE),
        (swapped, "can't take Task: its input is a pydantic model, or str; " + WRITE),
        (of_a_date, "can't take date: "),
        (of_a_list, r"can't take list\[.*Order\]: "),
        (of_either, "can't take .*Order | None: "),
        (of_unknown, "'Ordre' is not defined; import what its annotations name"),
        (giving_no_model, "can't give Plain: its output is a pydantic model, str or None; " + WRITE),
        (undocumented, "needs a docstring: other agents' models choose the skill by it"),
        (barely_documented, "needs a docstring"),
    ],
)
def test_what_cannot_be_a_skill_is_refused_when_it_is_declared(function, words):
    """One line that names the function and what to write; the agent keeps no half of it."""
    agent = shop()
    with pytest.raises(ConfigurationError, match=words.format(function.__name__)) as caught:
        agent.skill(scope="look", idempotent=True)(function)
    assert str(caught.value).startswith(function.__name__)
    assert "\n" not in str(caught.value)
    assert agent.skills == {}


def test_two_skills_of_one_name_are_refused():
    """The second is, and the first stays."""
    agent = shop()

    async def look(order: Order, task: Task) -> Order:
        """Look."""
        return order

    agent.skill(scope="look", idempotent=True)(look)
    with pytest.raises(ConfigurationError, match="shop has two skills named look: rename one"):
        agent.skill(scope="other", idempotent=True)(look)
    assert agent.skills["look"].scope == "look"


def test_a_former_version_is_kept_for_the_tasks_that_began_with_it():
    """It is no skill of its own: nobody is shown it, and it grants nothing."""
    agent = shop()

    async def look(order: Order, task: Task) -> Order:
        """Look."""
        return order

    async def look_1(order: Order, task: Task) -> Order:
        return order

    assert agent.former("look", version="1")(look_1) is look_1
    agent.skill(scope="look", idempotent=True, version="2")(look)
    assert agent.skill_of("look", "1").function is look_1
    for version in ("2", "0"):
        assert agent.skill_of("look", version) is agent.skills["look"]
    assert agent.skill_of("gaze", "1") is None
    assert list(agent.skills) == ["look"]
    assert agent.scopes == {"look", "approve"}


def test_each_version_of_a_skill_has_its_own_name():
    """Whichever was declared first: a task must not find two functions that it may have begun with."""
    agent = shop()

    async def look(order: Order, task: Task) -> Order:
        """Look."""
        return order

    agent.former("look", version="1")(look)
    with pytest.raises(ConfigurationError, match="two versions '1' of look"):
        agent.former("look", version="1")(look)
    with pytest.raises(ConfigurationError, match="look needs another version than '1'"):
        agent.skill(scope="look", idempotent=True)(look)
    agent.skill(scope="look", idempotent=True, version="2")(look)
    with pytest.raises(ConfigurationError, match="two versions '2' of look"):
        agent.former("look", version="2")(look)
    with pytest.raises(ConfigurationError, match="can't be a skill"):
        agent.former("look", version="0")(lambda: None)
