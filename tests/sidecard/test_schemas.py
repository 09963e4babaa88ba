"""Which changes of a schema break whom, on the schemas that pydantic writes; and by chance, against a validator."""

import random
from typing import Annotated, Literal, Optional

import jsonschema_rs
import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from sidecard.schemas import gaps, wordless

Name = Annotated[str, Field(min_length=1, max_length=80)]


def model(_config=None, **fields):
    return create_model("Model", __config__=_config or ConfigDict(), **fields)


def given(kind, mode="validation"):
    return TypeAdapter(kind).json_schema(mode=mode)


CLOSED = ConfigDict(extra="forbid")
REQUIRED = ...

# before, after, what an input's callers lose by it
INPUTS = [
    (model(a=(str, REQUIRED)), model(a=(str, REQUIRED), b=(str, REQUIRED)), ["b: is required now"]),
    (model(a=(str, "")), model(a=(str, REQUIRED)), ["a: is required now"]),
    (model(a=(str, REQUIRED)), model(a=(str, REQUIRED), b=(str, "")), []),
    (model(a=(str, REQUIRED), b=(str, "")), model(a=(str, REQUIRED)), []),
    (model(CLOSED, a=(str, REQUIRED), b=(str, "")), model(CLOSED, a=(str, REQUIRED)), ["b: is refused now"]),
    (model(a=(str, "")), model(CLOSED, a=(str, "")), ["fields that it does not know are refused now"]),
    (model(CLOSED, a=(str, "")), model(a=(str, "")), []),
    (model(a=(str, "")), model(a=(int, 0)), ["a: string is taken no longer, but integer"]),
    (model(a=(int, 0)), model(a=(float, 0)), []),
    (model(a=(float, 0)), model(a=(int, 0)), ["a: number is taken no longer, but integer"]),
    (model(a=(str | None, None)), model(a=(str, "")), ["a: null is taken no longer, but string"]),
    (model(a=(str, "")), model(a=(str | None, None)), []),
    (model(a=(Literal["x", "y"], "x")), model(a=(Literal["x"], "x")), ["a: 'y' is taken no longer"]),
    (model(a=(Literal["x"], "x")), model(a=(Literal["x", "y"], "x")), []),
    (model(a=(Literal["x"], "x")), model(a=(str, "x")), []),
    (model(a=(str, "x")), model(a=(Literal["x"], "x")), ["a: only 'x' is taken now"]),
    (model(a=(Annotated[int, Field(le=9)], 0)), model(a=(Annotated[int, Field(le=8)], 0)), ["a: maximum is 8, was 9"]),
    (model(a=(Annotated[int, Field(le=8)], 0)), model(a=(Annotated[int, Field(le=9)], 0)), []),
    (model(a=(int, 0)), model(a=(Annotated[int, Field(ge=1)], 0)), ["a: minimum is 1, was not there"]),
    (model(a=(str, "")), model(a=(Name, "")),
     [f"a: {bound}, was not there" for bound in ("maxLength is 80", "minLength is 1")]),
    (
        model(a=(Name | None, None)),
        model(a=(Annotated[str, Field(min_length=1, max_length=40)] | None, None)),
        ["a: maxLength is 40, was 80"],
    ),
    (model(a=(Annotated[str, Field(pattern="^a")], "a")), model(a=(Annotated[str, Field(pattern="^b")], "b")),
     ["a: pattern is '^b', was '^a'"]),
    (model(a=(list[str], [])), model(a=(list[int], [])), ["a[]: string is taken no longer, but integer"]),
    (model(a=(dict[str, int], {})), model(a=(dict[str, str], {})), ["a.*: integer is taken no longer, but string"]),
    (model(a=(model(b=(str, "")), REQUIRED)), model(a=(model(b=(str, REQUIRED)), REQUIRED)), ["a.b: is required now"]),
    (model(a=(str, "before")), model(a=(str, "after")), []),
]  # fmt: skip

# before, after, what a result's readers lose by it
OUTPUTS = [
    (model(a=(str, REQUIRED)), model(a=(str, REQUIRED), b=(str, REQUIRED)), []),
    (model(a=(str, REQUIRED), b=(str, REQUIRED)), model(a=(str, REQUIRED)), ["b: is gone"]),
    (model(CLOSED, a=(str, "")), model(CLOSED, a=(str, ""), b=(str, "")), ["b: was not to be expected"]),
    (model(a=(str, REQUIRED)), model(a=(str | None, REQUIRED)), ["a: null may come now, not string"]),
    (model(a=(str | None, REQUIRED)), model(a=(str, REQUIRED)), []),
    (model(a=(Literal["x"], "x")), model(a=(Literal["x", "y"], "x")), ["a: 'y' may come now"]),
    (model(a=(Literal["x"], "x")), model(a=(str, "x")), ["a: others than 'x' may come now"]),
    (model(a=(Literal["x", "y"], "x")), model(a=(Literal["x"], "x")), []),
    (model(a=(Annotated[int, Field(le=8)], 0)), model(a=(Annotated[int, Field(le=9)], 0)), ["a: maximum is 9, was 8"]),
    (model(a=(Annotated[int, Field(le=9)], 0)), model(a=(Annotated[int, Field(le=8)], 0)), []),
    (model(a=(list[model(b=(str, REQUIRED))], [])), model(a=(list[model(c=(str, REQUIRED))], [])), ["a[].b: is gone"]),
]


@pytest.mark.parametrize(("before", "after", "lost"), INPUTS)
def test_what_breaks_callers_by_an_input(before, after, lost):
    """It takes less than before: named, with where."""
    assert sorted(map(str, gaps(given(before), given(after)))) == lost


@pytest.mark.parametrize(("before", "after", "lost"), OUTPUTS)
def test_what_breaks_callers_by_an_output(before, after, lost):
    """It gives other things than before, or fewer: named, with where."""
    shown = gaps(given(after, "serialization"), given(before, "serialization"), guaranteed=True)
    assert sorted(map(str, shown)) == lost


def test_what_a_result_no_longer_always_has_is_found():
    """A field that was required, and is not any more."""
    before = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    after = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert [str(gap) for gap in gaps(after, before, guaranteed=True)] == ["a: is no longer always there"]


def test_recursive_models_are_compared():
    """A model that holds itself ends, and what changed deep inside is found once."""

    class Tree(BaseModel):
        name: str
        children: list["Tree"] = []
        parent: Optional["Tree"] = None

    old, new = given(Tree), given(Tree)
    assert gaps(old, new) == []
    new["$defs"]["Tree"]["properties"]["name"] = {"type": "integer"}
    assert {gap.why for gap in gaps(old, new)} == {"string is taken no longer, but integer"}


def test_words_alone_change_nothing():
    """Titles, descriptions and examples are for readers; a field may bear one of these names."""
    told = {
        "type": "object",
        "title": "T",
        "properties": {"title": {"type": "string", "description": "d", "examples": [1]}},
    }
    plain = {"type": "object", "properties": {"title": {"type": "string"}}}
    assert wordless(told) == plain
    assert gaps(told, plain) == gaps(plain, told) == []


def test_what_is_not_understood_must_stay_as_it_is():
    """A demand that this can't weigh counts as a narrower one, unless it was there before in the same words."""
    odd = {"type": "string", "not": {"const": "x"}}
    assert gaps({"type": "string"}, odd)
    assert gaps(odd, odd) == gaps(odd, {"type": "string"}) == []


def a_schema(chance: random.Random, depth: int = 2) -> dict:
    kind = chance.choice(
        ["string", "integer", "number", "null", "enum", "anyOf", *(["object", "array"] if depth else [])]
    )
    if kind == "enum":
        return {"enum": chance.sample(["a", "b", 1, 2, None], chance.randint(1, 3))}
    if kind == "anyOf":
        return {"anyOf": [a_schema(chance, 0) for _ in range(2)]}
    schema: dict = {"type": kind}
    if kind == "string":
        schema |= chance.choice([{}, {"maxLength": chance.randint(0, 2)}, {"minLength": chance.randint(0, 2)}])
    elif kind in {"integer", "number"}:
        schema |= chance.choice([{}, {"maximum": chance.randint(0, 3)}, {"exclusiveMinimum": chance.randint(0, 3)}])
    elif kind == "array":
        schema |= {"items": a_schema(chance, depth - 1)} | chance.choice([{}, {"maxItems": chance.randint(0, 2)}])
    elif kind == "object":
        names = chance.sample(["p", "q"], chance.randint(0, 2))
        schema["properties"] = {name: a_schema(chance, depth - 1) for name in names}
        schema["required"] = [name for name in names if chance.random() < 0.5]
        schema |= chance.choice([{"additionalProperties": False}, {"additionalProperties": a_schema(chance, 0)}])
    return schema


def a_value(chance: random.Random, depth: int = 2):
    kinds = ["", "a", "b", "abc", 0, 1, 2, 3, 1.5, None, *([list, dict] if depth else [])]
    kind = chance.choice(kinds)
    if kind is list:
        return [a_value(chance, depth - 1) for _ in range(chance.randint(0, 3))]
    if kind is dict:
        return {name: a_value(chance, depth - 1) for name in chance.sample(["p", "q", "r"], chance.randint(0, 3))}
    return kind


def test_what_is_said_to_be_taken_is_taken():
    """No value that one schema lets through is refused by the other, where no gap was found: 3,000 pairs by chance.

    But for one thing that is on purpose: where fields that are not known were ignored, a new one may have any type.
    """
    chance, compatible, tried = random.Random(8), 0, 0
    values = [a_value(chance) for _ in range(400)]
    for _ in range(3_000):
        one = a_schema(chance)
        other = (
            a_schema(chance) if chance.random() < 0.5 else one | chance.choice([{}, {"maxLength": 1}, {"maximum": 2}])
        )
        if gaps(one, other):
            continue
        compatible += 1
        lets, takes = jsonschema_rs.validator_for(one), jsonschema_rs.validator_for(other)
        for value in values:
            if lets.is_valid(value):
                tried += 1
                assert takes.is_valid(value), (one, other, value)
    assert compatible > 300
    assert tried > 1_000
