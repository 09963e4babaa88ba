"""Money as people write it."""

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.money import AmountRejected, currency_code, parse_amount, to_eur


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("180", "180.00"),
        ("1,800", "1800.00"),
        ("1.800,00", "1800.00"),
        ("1,800.00", "1800.00"),
        ("1 800.50", "1800.50"),
        ("1'800", "1800.00"),
        ("12,5", "12.50"),
        ("1.234.567,89", "1234567.89"),
        ("0.999", "1.00"),
    ],
)
def test_amounts_are_read_in_every_usual_notation(text, amount):
    """Thousands and decimal marks are told apart."""
    assert str(parse_amount(text)) == amount


@pytest.mark.parametrize(
    "text", ["", "-5", "abc", "1.2.3", "0", "0.001", "99999999999", "1" * 50, "1,80,0", "NaN", "1e5"]
)
def test_what_is_no_amount_is_refused(text):
    """Negative, huge, zero and malformed amounts are refused, with a reason."""
    with pytest.raises(AmountRejected):
        parse_amount(text)


@given(st.decimals(min_value="0.01", max_value="9999999", places=2))
def test_every_amount_is_read_as_it_was_written(amount):
    """English and German notation give the amount back."""
    english = f"{amount:,.2f}"
    assert parse_amount(english) == amount
    assert parse_amount(english.translate(str.maketrans(",.", ".,"))) == amount


@given(st.text(max_size=40))
def test_any_text_is_an_amount_or_refused(text):
    """No text makes it fail otherwise."""
    with suppress(AmountRejected):
        assert parse_amount(text) > 0


def test_currencies_go_by_many_names():
    """Signs, words and codes mean the same; a currency without a rate is refused with those that have one."""
    assert {currency_code(word) for word in ("€", "EUR", "euros", " eur ")} == {"EUR"}
    assert to_eur(Decimal(100), "£") == Decimal("116.00")
    with pytest.raises(AmountRejected, match="use one of EUR"):
        currency_code("doubloons")
