"""Line items from CSV and JSON."""

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.expenses.claim import MAX_BYTES, MAX_ROWS, parse_csv

HEADER = "date,vendor,category,amount,currency,description,receipt\n"
CSV = HEADER + "2027-03-04,Hotel Avenida,hotel,180.00,EUR,One night,yes\n"


@pytest.mark.parametrize(
    "content",
    [
        CSV,
        CSV.encode(),
        b"\xef\xbb\xbf" + CSV.encode(),
        CSV.replace(",", ";").replace("180.00", "180,00"),
        CSV.replace(",", "\t"),
        "\r\n" + CSV.replace("\n", "\r\n") + "\r\n",
        "Merchant,Total,Ccy,Type,Day,Memo,Has Receipt\nHotel Avenida,180,eur,Lodging,2027-03-04,One night,scan.pdf\n",
    ],
)
def test_a_csv_file_is_read_however_it_was_saved(content):
    """Separators, byte order marks, decimal commas and column names of usual spreadsheets."""
    claim = parse_csv(content)
    assert claim.errors == []
    (item,) = claim.items
    assert (item.vendor, item.amount, item.currency, item.category) == ("Hotel Avenida", Decimal(180), "EUR", "hotel")
    assert (item.day, item.receipt, item.description) == (date(2027, 3, 4), True, "One night")


def test_every_fault_names_its_line():
    """All faults are reported at once, not only the first."""
    claim = parse_csv(
        "vendor,amount,currency,date\nUber,-3,EUR,\n,12,EUR,\nBolt,12,XXX,2027-13-01\nBolt,9\nUber,1,EUR,,extra\n"
    )
    assert [error.split(":")[0] for error in claim.errors] == ["Line 2", "Line 3", "Line 4", "Line 4", "Line 6"]
    assert "negative" in claim.errors[0]
    assert "vendor is missing" in claim.errors[1]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "empty"),
        ("vendor,price_of_it\nUber,3", "no column for amount"),
        ("vendor,amount,total\nUber,3,4", "two columns mean amount"),
        ("vendor,amount\n", "no item"),
        ('vendor,amount\n"Uber,3\n', "not readable as CSV"),
        (b"vendor,amount\n\xff\xfe,3", "not UTF-8"),
        ("vendor,amount\n" + "Uber,3\n" * (MAX_ROWS + 1), f"More than {MAX_ROWS}"),
        ("x" * (MAX_BYTES + 1), "at most"),
    ],
)
def test_files_that_are_no_claim_are_refused(content, reason):
    """Each with what to do about it, and without items."""
    claim = parse_csv(content)
    assert claim.items == []
    assert reason in " ".join(claim.errors)


def test_many_faults_are_counted():
    """Twenty are told, the others counted."""
    claim = parse_csv("vendor,amount\n" + "Uber,x\n" * 50)
    assert (len(claim.errors), claim.errors[-1]) == (21, "30 more errors.")


@settings(max_examples=100)
@given(st.binary(max_size=300) | st.text(max_size=300) | st.text(alphabet='vendor,amount\n;"0123 .', max_size=200))
def test_any_content_is_read_or_refused(content):
    """No content makes the reader fail."""
    claim = parse_csv(content)
    assert claim.items or claim.errors
