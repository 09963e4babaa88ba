"""Money as people write it, and its worth in euros."""

import re
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Final

CENT: Final = Decimal("0.01")
LARGEST: Final = Decimal(10_000_000)
"""Amounts above this are taken for typing errors."""

RATES_TO_EUR: Final[dict[str, Decimal]] = {
    "EUR": Decimal(1),
    "GBP": Decimal("1.16"),
    "USD": Decimal("0.92"),
    "CHF": Decimal("1.05"),
    "SEK": Decimal("0.088"),
    "DKK": Decimal("0.134"),
    "NOK": Decimal("0.086"),
    "PLN": Decimal("0.234"),
    "CZK": Decimal("0.040"),
    "JPY": Decimal("0.0061"),
    "CAD": Decimal("0.67"),
    "AUD": Decimal("0.60"),
}
"""Euros per unit: the desk's own rates, fixed for the year, so that a claim is worth the same whenever it is read."""

_SPELLINGS: Final[dict[str, str]] = {
    "€": "EUR", "euro": "EUR", "euros": "EUR",
    "£": "GBP", "pound": "GBP", "pounds": "GBP", "quid": "GBP",
    "$": "USD", "us$": "USD", "dollar": "USD", "dollars": "USD",
    "franc": "CHF", "francs": "CHF", "sfr": "CHF", "fr.": "CHF",
    "¥": "JPY", "yen": "JPY",
}  # fmt: skip
CURRENCY_WORDS: Final = tuple(sorted({*_SPELLINGS, *(code.lower() for code in RATES_TO_EUR)}, key=len, reverse=True))
"""Every spelling of a currency that is understood, in lower case, longest first."""

_LONGEST = 30
_THOUSAND = 3  # digits in a group
_NUMBER = re.compile(r"\d[\d.,'\u2019 \u00a0\u202f]*")


class AmountRejected(ValueError):
    """The text is no amount of money. The message says why."""


def currency_code(text: str) -> str:
    """The ISO 4217 code of a currency as it is written: "€", "euros" and "eur" are EUR.

    Raises:
        AmountRejected: The desk has no rate for it.
    """
    word = text.strip().casefold()
    code = _SPELLINGS.get(word, word.upper())
    if code not in RATES_TO_EUR:
        raise AmountRejected(f"The desk has no rate for “{text.strip()[:20]}”; use one of {', '.join(RATES_TO_EUR)}.")
    return code


def parse_amount(text: str) -> Decimal:
    """An amount of at most two decimals, rounded half up: 1,800 · 1.800,00 · 1 800.50 · 1'800 · 12,5.

    The last mark is the decimal mark if one or two digits follow it; three digits after it make it a thousands mark, as
    in 1,800 or 1.800.

    Raises:
        AmountRejected: No number, a negative one, or one above 10 million.
    """
    number = text.strip()
    if number.startswith("-"):
        raise AmountRejected(f"“{number[:_LONGEST]}” is negative; an amount is above zero.")
    if len(number) > _LONGEST or not _NUMBER.fullmatch(number):
        raise AmountRejected(f"“{number[:_LONGEST]}” is not an amount; write one like 1800.00.")
    try:
        amount = Decimal(_plain(re.sub(r"['\u2019 \u00a0\u202f]", "", number)))
    except InvalidOperation:
        raise AmountRejected(f"“{number[:_LONGEST]}” is not an amount; write one like 1800.00.") from None
    return check_amount(amount)


def check_amount(amount: Decimal) -> Decimal:
    """The amount, rounded to cents. Raises AmountRejected unless it is above zero and at most 10 million."""
    if not amount.is_finite() or amount <= 0 or amount > LARGEST:
        raise AmountRejected(f"{str(amount)[:_LONGEST]} is not between 0.01 and {LARGEST:,}.")
    rounded = amount.quantize(CENT, ROUND_HALF_UP)
    if not rounded:
        raise AmountRejected(f"{str(amount)[:_LONGEST]} is less than a cent.")
    return rounded


def to_eur(amount: Decimal, currency: str) -> Decimal:
    """Worth in euros, rounded to cents. Raises AmountRejected for a currency without a rate."""
    return (amount * RATES_TO_EUR[currency_code(currency)]).quantize(CENT, ROUND_HALF_UP)


def _plain(number: str) -> str:
    """The number with a point for its decimal mark, and no other mark."""
    number = number.rstrip(".,")
    last = max(number.rfind("."), number.rfind(","))
    if last < 0:
        return number
    whole, mark, decimals = number[:last], number[last], number[last + 1 :]
    is_thousands = (
        len(decimals) == _THOUSAND and (mark in whole or not re.search(r"[.,]", whole)) and whole.lstrip("0") != ""
    )
    if is_thousands or mark in whole:
        groups = re.split(r"[.,]", number)
        if all(len(group) == _THOUSAND for group in groups[1:]):
            return "".join(groups)
        raise InvalidOperation
    return f"{re.sub('[.,]', '', whole)}.{decimals}"
