"""Between A2A parts and models: which field a part fills, and what is said of wrong input."""

import pytest
from a2a.types import Message, Part
from pydantic import BaseModel, ValidationError

from sidecard import Agent, File, Task
from sidecard.tasks import binding
from sidecard.testing import message

agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")


class Form(BaseModel):
    """Takes text, data and files."""

    text: str = ""
    count: int = 1
    receipt: File | None = None
    pictures: list[File] = []
    more: list[File] | None = None


class Strict(BaseModel):
    """Needs a field."""

    name: str
    count: int


@agent.skill(scope="a", idempotent=True)
async def fill(form: Form, task: Task) -> str:
    """Fill."""
    return ""


@agent.skill(scope="a", idempotent=True)
async def need(form: Strict, task: Task) -> str:
    """Need."""
    return ""


def test_text_data_and_files_fill_their_fields():
    """Text a field named text, data the fields it names, files the fields annotated so: one, or all of them."""
    sent = message("hello", data={"count": 3})
    sent.parts.extend(
        [
            Part(raw=b"one", filename="1.csv", media_type="text/csv"),
            Part(url="https://example.org/2", filename="2.png"),
        ]
    )
    form = binding.validate(agent.skills["fill"], binding.raw_input(agent.skills["fill"], sent))
    assert (form.text, form.count) == ("hello", 3)
    assert (form.receipt.name, form.receipt.media_type, form.receipt.content) == ("1.csv", "text/csv", b"one")
    for files in (form.pictures, form.more):
        assert [file.url for file in files] == ["", "https://example.org/2"]


def test_data_that_names_a_field_wins_over_text_and_later_data_over_earlier():
    """The most explicit counts."""
    sent = message("hello", data={"text": "explicit"})
    sent.parts.extend(message(data={"count": 2}).parts)
    sent.parts.extend(message(data={"count": 3}).parts)
    assert binding.raw_input(agent.skills["fill"], sent) == {"text": "explicit", "count": 3}


def test_data_that_is_no_object_fills_nothing():
    """A list or a number has no field names."""
    sent = Message(parts=[*binding.parts_of([1, 2]), *binding.parts_of(5)])
    assert binding.raw_input(agent.skills["fill"], sent) == {}


def test_missing_is_told_from_wrong():
    """Only missing fields are worth a question."""
    with pytest.raises(ValidationError) as caught:
        binding.validate(agent.skills["need"], {})
    assert binding.missing(caught.value) == ["name", "count"]
    with pytest.raises(ValidationError) as caught:
        binding.validate(agent.skills["need"], {"count": "secret"})
    assert binding.missing(caught.value) == []
