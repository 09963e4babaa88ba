"""Days as people write them."""

from contextlib import suppress
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.days import LONGEST, ON_SALE_DAYS, DayRejected, resolve_day, resolve_past_day

TODAY = date(2026, 11, 21)  # a Saturday


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2027-03-03", date(2027, 3, 3)),
        ("3 March", date(2027, 3, 3)),
        ("the 3rd of March", date(2027, 3, 3)),
        ("March 3rd, 2027", date(2027, 3, 3)),
        ("Wednesday, 3 March", date(2027, 3, 3)),
        ("03/04", date(2027, 4, 3)),
        ("3.3.2027", date(2027, 3, 3)),
        ("21 November", TODAY),
        ("20 November", date(2027, 11, 20)),
        ("29 February", date(2028, 2, 29)),
        ("today", TODAY),
        ("tomorrow", date(2026, 11, 22)),
        ("in two weeks", date(2026, 12, 5)),
        ("in a month", date(2026, 12, 21)),
        ("saturday", TODAY),
        ("next Saturday", date(2026, 11, 28)),
        ("next friday", date(2026, 11, 27)),
    ],
)
def test_a_day_is_the_next_one_that_fits(text, day):
    """A day without a year is the next one on or after today."""
    assert resolve_day(text, TODAY) == day


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("yesterday", "20 November 2026 has passed: today is 21 November 2026."),
        ("2026-11-20", "has passed"),
        ("3 March 2099", f"more than {ON_SALE_DAYS} days ahead"),
        ("30 February", "not a day of the calendar"),
        ("2027-02-30", "not a day of the calendar"),
        ("March", "not a day of the calendar"),
        ("Tuesday 3 March", "is a Wednesday, not a Tuesday"),
        ("soon", "not a day of the calendar"),
        ("", "A day is missing"),
        ("1 " * LONGEST, "A day is missing"),
        ("in 9999999999 years", "not a day"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_its_reason(text, reason):
    """Impossible, past and far days say why they are refused."""
    with pytest.raises(DayRejected, match=reason):
        resolve_day(text, TODAY)


def test_relative_days_count_from_today():
    """Also where yesterday's month had another length."""
    assert resolve_day("in a month", date(2027, 3, 1)) == date(2027, 4, 1)


def test_a_receipts_day_is_the_last_one_that_fits():
    """A receipt's day without a year is the last one on or before today, and never one ahead."""
    assert resolve_past_day("21 November", TODAY) == TODAY
    assert resolve_past_day("22 November", TODAY) == date(2025, 11, 22)
    with pytest.raises(DayRejected, match="lies in the future"):
        resolve_past_day("tomorrow", TODAY)


@settings(max_examples=60, deadline=None)
@given(st.dates(date(2024, 1, 1), date(2035, 12, 31)), st.integers(0, 364))
def test_a_day_and_month_always_mean_the_next_such_day(today, ahead):
    """Whatever today is, a day of the coming year is found again without its year."""
    day = today + timedelta(days=ahead)
    if (day.month, day.day) == (2, 29):
        return
    assert resolve_day(f"{day.day} {day:%B}", today) == day


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_a_day_or_refused(text):
    """No text makes it fail otherwise."""
    with suppress(DayRejected):
        assert resolve_day(text, TODAY) >= TODAY
