"""A request cut into words, amounts, days and stops, in one pass over a text of bounded length."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from agents.money import CURRENCY_WORDS, AmountRejected, currency_code, parse_amount

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_NTH = r"\d{1,2}(?:st|nd|rd|th)?"
_YEAR = r"(?:19|20)\d{2}\b"
_COUNT = r"(?:\d{1,3}|an?|one|two|three|four|five|six|seven|ten)"
_DAY = re.compile(
    rf"(?<![\w/.-])(?:"
    rf"\d{{4}}-\d{{1,2}}-\d{{1,2}}"
    rf"|(?:{_WEEKDAY},? )?(?:the )?{_NTH}(?: of)?[ -]{_MONTH}(?:(?:, |[ -]){_YEAR})?"
    rf"|(?:{_WEEKDAY},? )?{_MONTH} (?:the )?{_NTH}(?![\d.,]*\d)(?:,? {_YEAR})?"
    rf"|\d{{1,2}}([./])\d{{1,2}}\1(?:\d{{4}}|\d{{2}})"
    rf"|\d{{1,2}}/\d{{1,2}}"
    rf"|(?:the )?day after tomorrow|today|tomorrow|yesterday"
    rf"|in {_COUNT} (?:day|week|month)s?|next week"
    rf"|(?:(?:next|this|coming) )?{_WEEKDAY}"
    rf")(?![\w/-])",
    re.IGNORECASE,
)
_CURRENCY = "|".join(re.escape(word) for word in CURRENCY_WORDS)
_NUMBER = r"\d{1,3}(?:[,.'\u2019 \u00a0]\d{3})+(?:[.,]\d{1,2})?(?!\d)|\d{1,9}(?:[.,]\d{1,2})?(?!\d)"
_MONEY = re.compile(
    rf"(?<![\w.,])(?:(?P<before>{_CURRENCY}) ?(?P<n1>{_NUMBER})|(?P<n2>{_NUMBER})[ -]?(?P<after>{_CURRENCY})(?!\w))",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\s,;:!?()\[\]{}\"“”]+|[,;:!?()\[\]{}\"“”]")
_ABBREVIATIONS = {"st.", "dr.", "mr.", "mrs.", "ms.", "inc.", "ltd.", "co.", "prof."}


@dataclass(frozen=True)
class Token:
    """One piece of a request. `amount` and `currency` are set for kind "money" only."""

    kind: Literal["word", "money", "day", "stop"]
    text: str
    amount: Decimal | None = None
    currency: str = ""

    @property
    def low(self) -> str:
        """The text in lower case, without its genitive."""
        return self.text.casefold().removesuffix("'s").removesuffix("\u2019s")


def tokens(text: str) -> list[Token]:
    """The pieces of a text, in order. The caller bounds its length."""
    line = " ".join(text.split())
    line = re.sub(r" ?(?:->|=>|[\u2192\u21d2]) ?", " to ", line)
    return list(_cut(line))


def _cut(line: str) -> Iterator[Token]:
    at = 0
    for start, end, token in _spans(line):
        if start >= at:
            yield from _words(line[at:start])
            yield token
            at = end
    yield from _words(line[at:])


def _spans(line: str) -> list[tuple[int, int, Token]]:
    """Days and amounts, in order; a day wins over an amount that overlaps it, as in "3 March 180 EUR"."""
    days = [(found.start(), found.end(), Token("day", found[0])) for found in _DAY.finditer(line)]
    free = list(line)
    for start, end, _ in days:
        free[start:end] = "\x00" * (end - start)
    sums = []
    for found in _MONEY.finditer("".join(free)):
        try:
            amount = parse_amount(found["n1"] or found["n2"])
            token = Token("money", found[0], amount, currency_code(found["before"] or found["after"]))
        except AmountRejected:
            continue
        sums.append((found.start(), found.end(), token))
    return sorted(days + sums, key=lambda span: span[0])


def _words(gap: str) -> Iterator[Token]:
    for piece in _WORD.findall(gap):
        bare = piece.rstrip(".")
        if not bare or not any(char.isalnum() for char in piece):
            yield Token("stop", piece[:1])
        elif bare != piece and piece.casefold() not in _ABBREVIATIONS:
            yield Token("word", bare)
            yield Token("stop", ".")
        else:
            yield Token("word", piece)
