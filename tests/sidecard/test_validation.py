"""What pydantic finds wrong, in words for people."""

import pytest
from pydantic import BaseModel, ValidationError

from sidecard.validation import MOST_FAULTS, explain


class Order(BaseModel):
    """One line of an order."""

    item: str
    count: int


class Orders(BaseModel):
    """What is checked."""

    orders: list[Order]


def fault(model, given):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(given)
    return explain(caught.value)


def test_each_field_is_named_and_no_value_repeated():
    """In one line, with the path of each field: a value may be private."""
    said = fault(Orders, {"orders": [{"item": "tea", "count": "secret"}, {"count": 1}]})
    assert said.startswith("orders.0.count: ")
    assert "; orders.1.item: " in said
    assert "secret" not in said
    assert "\n" not in said


def test_what_is_wrong_as_a_whole_is_the_input():
    """A list where an object belongs has no field to name."""
    assert fault(Order, ["secret"]).startswith("input: ")


def test_only_the_first_faults_are_told():
    """However many there are, it stays a line that can be read."""
    assert fault(Orders, {"orders": [{}] * 50}).count("; ") == MOST_FAULTS - 1
