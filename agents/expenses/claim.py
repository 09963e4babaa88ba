"""A claim's line items, and how they are read from CSV. Pure: every fault is reported with its line."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Final, Literal, Protocol, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from agents.money import AmountRejected, check_amount, currency_code, parse_amount

MAX_ROWS: Final = 500
MAX_BYTES: Final = 1_000_000
MAX_ERRORS: Final = 20
"""Faults reported at most; the rest is counted."""

Category = Literal["hotel", "flight", "train", "taxi", "meal", "conference", "other"]

_COLUMNS: Final[dict[str, str]] = {
    **dict.fromkeys(("date", "day", "spent_on", "spent on"), "day"),
    **dict.fromkeys(("vendor", "merchant", "supplier", "paid to"), "vendor"),
    **dict.fromkeys(("category", "type", "kind"), "category"),
    **dict.fromkeys(("amount", "total", "sum", "price"), "amount"),
    **dict.fromkeys(("currency", "cur", "ccy"), "currency"),
    **dict.fromkeys(("description", "purpose", "note", "memo"), "description"),
    **dict.fromkeys(("receipt", "has_receipt", "has receipt"), "receipt"),
}
_REQUIRED: Final = ("vendor", "amount")
_YES: Final = frozenset({"yes", "y", "true", "1", "x", "attached"})
_NO: Final = frozenset({"", "no", "n", "false", "0", "none", "missing"})
_CATEGORIES: Final = {name: name for name in get_args(Category)} | {
    "lodging": "hotel",
    "accommodation": "hotel",
    "airfare": "flight",
    "rail": "train",
    "cab": "taxi",
    "meals": "meal",
    "dinner": "meal",
    "lunch": "meal",
}


class LineItem(BaseModel):
    """One expense of a claim."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    vendor: str = Field(min_length=1, max_length=120, description="Who was paid.", examples=["Hotel Avenida"])
    amount: Decimal = Field(description="What was paid, in `currency`; above zero, at most two decimals are kept.")
    currency: str = Field(default="EUR", max_length=10, description="ISO 4217 code, such as EUR.")
    category: Category = Field(default="other", description="What it was for; unknown words count as other.")
    day: date | None = Field(default=None, description="Day of the receipt, as 2027-03-03.")
    description: str = Field(default="", max_length=500, description="What it was, in a few words.")
    receipt: bool = Field(default=False, description="Whether a receipt is attached.")

    @field_validator("amount", mode="before")
    @classmethod
    def _read_amount(cls, given: object) -> object:
        """Numbers as people write them; see agents.money.parse_amount."""
        return parse_amount(given) if isinstance(given, str) else given

    @field_validator("amount")
    @classmethod
    def _check_amount(cls, given: Decimal) -> Decimal:
        return check_amount(given)

    @field_validator("currency")
    @classmethod
    def _code(cls, given: str) -> str:
        return currency_code(given or "EUR")

    @field_validator("category", mode="before")
    @classmethod
    def _known(cls, given: object) -> object:
        return _CATEGORIES.get(given.strip().casefold(), "other") if isinstance(given, str) else given

    @field_validator("receipt", mode="before")
    @classmethod
    def _is_there(cls, given: object) -> object:
        """Yes and no in a spreadsheet's words; a file's name counts as yes."""
        if not isinstance(given, str):
            return given
        word = given.strip().casefold()
        return word in _YES or (word not in _NO and "." in word)


@dataclass
class Claim:
    """Line items, and what could not be read. A claim with errors is not to be assessed."""

    items: list[LineItem] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """One sentence each, naming the line or item, at most MAX_ERRORS and one that counts the rest."""


def parse_csv(content: bytes | str) -> Claim:
    """A claim from a CSV file: a header line, then one line per item, at most 500.

    Columns in any order, with the usual names; vendor and amount are needed. Comma, semicolon, tab or bar between
    them, with or without byte order mark; decimal comma or point. The text is UTF-8.
    """
    text = _text(content)
    if isinstance(text, Claim):
        return text
    lines = text.splitlines()
    header = next((line for line in lines if line.strip()), "")
    separator = max(",;\t|", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        return _rows(reader)
    except csv.Error as broken:
        return Claim(errors=[f"Line {reader.line_num}: not readable as CSV ({broken}). Check its quotes."])


def _text(content: bytes | str) -> str | Claim:
    """The text, or a claim that says why there is none."""
    if len(content) > MAX_BYTES:
        return Claim(errors=[f"The file has {len(content):,} bytes; a claim has at most {MAX_BYTES:,}. Split it."])
    if isinstance(content, bytes):
        try:
            content = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            return Claim(errors=["The file is not UTF-8 text: save it as “CSV UTF-8” and attach it again."])
    content = content.removeprefix("\ufeff")
    return (
        content if content.strip() else Claim(errors=["The file is empty: give a header line and one line per item."])
    )


_Row: TypeAlias = dict[str, str] | str
"""Cells by field, or what is wrong with the line."""


class _Lines(Protocol):
    """A csv.reader, whose own type is private."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...


def _rows(reader: _Lines) -> Claim:
    """The items of a CSV reader, by the names in its first line that is not empty."""
    header: list[str | None] = []
    rows: list[tuple[str, _Row]] = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [_COLUMNS.get(" ".join(cell.split()).casefold()) for cell in cells]
            lacking = [name for name in _REQUIRED if name not in header]
            if lacking:
                return Claim(errors=[f"Line {reader.line_num}: no column for {' and '.join(lacking)}. {_HEADER_HINT}"])
            double = next((name for name in header if name and header.count(name) > 1), None)
            if double:
                return Claim(errors=[f"Line {reader.line_num}: two columns mean {double}. {_HEADER_HINT}"])
            continue
        if len(rows) == MAX_ROWS:
            return Claim(errors=[f"More than {MAX_ROWS} items; split the claim."])
        if len(cells) > len(header):
            row: _Row = f"{len(cells)} cells where the header has {len(header)}: quote texts that have separators."
        else:
            row = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if name and cell.strip()}
        rows.append((f"Line {reader.line_num}", row))
    return _collect(rows) if rows else Claim(errors=["There is a header but no item below it."])


_HEADER_HINT = "The header is, for example: date,vendor,category,amount,currency,description,receipt."


def _collect(rows: Iterable[tuple[str, _Row]]) -> Claim:
    """The items of rows, each with where it stands."""
    claim, faults = Claim(), 0
    for where, row in rows:
        reasons: list[str] = []
        if isinstance(row, str):
            reasons = [row]
        else:
            try:
                claim.items.append(LineItem.model_validate(row))
            except ValidationError as invalid:
                reasons = [_reason(error) for error in invalid.errors()]
        for reason in reasons:
            faults += 1
            if faults <= MAX_ERRORS:
                claim.errors.append(f"{where}: {reason}")
    if faults > MAX_ERRORS:
        claim.errors.append(f"{faults - MAX_ERRORS} more errors.")
    return claim


def _reason(error: ErrorDetails) -> str:
    """One validation error in a sentence."""
    name = ".".join(str(part) for part in error["loc"])[:60]
    cause = (error.get("ctx") or {}).get("error")
    if isinstance(cause, AmountRejected):
        return f"{name}: {cause}"
    return f"{name} is missing." if error["type"] == "missing" else f"{name}: {error['msg']}."
