"""Days as people write them. Pure: today is always handed in, so that a run that is repeated decides the same."""

import re
from datetime import date, datetime, time, timedelta

import dateparser

LONGEST = 60
"""Characters of a day that are looked at; dateparser's cost grows faster than the text."""
ON_SALE_DAYS = 730
"""How far ahead a day may lie."""

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WEEKDAY = re.compile(r"^(?:(on|this|next|coming)\s+)?(" + "|".join(_WEEKDAYS) + r")$")
_NAMED_WEEKDAY = re.compile(r"\b(" + "|".join(_WEEKDAYS) + r")\b")
_ISO = re.compile(r"^\d{4}-\d{2}-\d{2}$")


class DayRejected(ValueError):
    """The text names no day, or one that can't be meant. The message says why and what to write instead."""


def resolve_day(text: str, today: date) -> date:
    """The day of travel that `text` means, on or after `today` and at most two years ahead.

    ISO dates, "3 March", "March 3rd 2027", "03/04" (the day comes first), "tomorrow", "in two weeks" and "next Friday"
    (the first Friday after today) are understood. A day without a year is the next one on or after `today`.

    Raises:
        DayRejected: The text is no day, an impossible one ("30 February"), in the past, or too far ahead.
    """
    day = _read(text, today, past=False)
    if day < today:
        raise DayRejected(f"{_named(day)} has passed: today is {_named(today)}.")
    if (day - today).days > ON_SALE_DAYS:
        raise DayRejected(f"{_named(day)} is more than {ON_SALE_DAYS} days ahead: flights are not on sale yet.")
    return day


def resolve_past_day(text: str, today: date) -> date:
    """The day of a receipt that `text` means, on or before `today`; a day without a year is the last such one.

    Raises:
        DayRejected: The text is no day, an impossible one, or lies in the future.
    """
    day = _read(text, today, past=True)
    if day > today:
        raise DayRejected(f"{_named(day)} lies in the future: today is {_named(today)}.")
    return day


def _read(text: str, today: date, *, past: bool) -> date:
    """The day that `text` means, not yet compared with today."""
    words = " ".join(text.split()).strip(" .,;")
    if not words or len(words) > LONGEST:
        raise DayRejected("A day is missing: write one like 2027-03-03, 3 March or next Friday.")
    if _ISO.match(words):
        try:
            return date.fromisoformat(words)
        except ValueError:
            raise DayRejected(f"{words} is not a day of the calendar.") from None
    if not past and (weekday := _WEEKDAY.match(words.casefold())):
        return _next_weekday(weekday[2], today, strictly=weekday[1] == "next")
    day = _parsed(words, today, past=past)
    named = _NAMED_WEEKDAY.search(words.casefold())
    if named and _WEEKDAYS.index(named[1]) != day.weekday():
        raise DayRejected(f"{_named(day)} is a {day:%A}, not a {named[1].capitalize()}: which of the two is meant?")
    return day


def _next_weekday(name: str, today: date, *, strictly: bool) -> date:
    ahead = (_WEEKDAYS.index(name) - today.weekday()) % 7
    return today + timedelta(days=ahead or (7 if strictly else 0))


def _parsed(words: str, today: date, *, past: bool) -> date:
    """What dateparser reads, with today itself counted in.

    Asked for a day ahead without a year, it never answers with its base, so it is asked from yesterday too. A relative
    day ("tomorrow", "in a month") moves along with the base and is told apart by it.
    """
    day = _dateparser(words, today, past=past)
    since_yesterday = day if past else _dateparser(words, today - timedelta(days=1), past=False)
    if day is None or since_yesterday is None:
        raise DayRejected(f"“{words}” is not a day of the calendar: write one like 2027-03-03, 3 March or next Friday.")
    is_absolute = (day.month, day.day) == (since_yesterday.month, since_yesterday.day)
    return since_yesterday if is_absolute else day


def _dateparser(words: str, base: date, *, past: bool) -> date | None:
    settings = {
        "RELATIVE_BASE": datetime.combine(base, time(12)),
        "PREFER_DATES_FROM": "past" if past else "future",
        "DATE_ORDER": "DMY",
        "REQUIRE_PARTS": ["day", "month"],
        "PARSERS": ["relative-time", "absolute-time"],
        "RETURN_AS_TIMEZONE_AWARE": False,
    }
    try:
        moment = dateparser.parse(words, languages=["en"], settings=settings)
    except (ValueError, OverflowError, TypeError, RecursionError):  # dateparser's own faults on odd input
        return None
    return moment.date() if moment else None


def _named(day: date) -> str:
    """A day for people: 3 March 2027."""
    return f"{day.day} {day:%B} {day.year}"
