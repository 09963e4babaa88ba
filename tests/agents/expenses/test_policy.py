"""The expense policy."""

from datetime import date, timedelta

import pytest

from agents.compliance.models import Spend, SpendVendor
from agents.expenses.claim import MAX_ROWS, LineItem
from agents.expenses.policy import OLDEST_DAYS, assess

TODAY = date(2027, 3, 10)


def item(**changes):
    fields = {"vendor": "Hotel Avenida", "amount": "80", "category": "hotel", "day": TODAY, "receipt": True}
    return LineItem(**{**fields, **changes})


def test_compliance_takes_the_remarks_on_the_largest_claim():
    """Every item above its cap and of an unknown vendor: not one remark may be left out, nor be too many."""
    items = [item(vendor=f"{n}{'v' * 110}", amount="9999999.99", currency="GBP") for n in range(MAX_ROWS)]
    result = assess(items, today=TODAY, vendors={one.vendor: "unknown" for one in items})
    vendors = [SpendVendor(name=one.vendor) for one in items]
    remarks = [finding.message for finding in result.findings]
    assert len(remarks) == 2 * MAX_ROWS
    assert Spend(total_eur=result.total_eur, vendors=vendors, exceptions=remarks).exceptions == remarks


def test_a_small_claim_in_order_is_approved():
    """Below 100 EUR nobody is asked."""
    result = assess([item()], today=TODAY)
    assert (result.proposal, result.findings, str(result.total_eur)) == ("approve", [], "80.00")


@pytest.mark.parametrize(
    ("items", "vendors", "message"),
    [
        ([item(amount="100")], {}, "claims of 100 EUR or more"),
        ([item(amount="1800")], {}, "above the 250 EUR cap for hotel"),
        ([item(category="meal", amount="61")], {}, "above the 60 EUR cap for meal"),
        ([item()], {"Hotel Avenida": "blocked"}, "is a blocked vendor"),
        ([item()], {"Hotel Avenida": "unknown"}, "not in the vendor register"),
    ],
)
def test_what_compliance_decides(items, vendors, message):
    """Large claims, items above their cap, vendors that are not approved."""
    result = assess(items, today=TODAY, vendors=vendors)
    assert result.must_ask_compliance
    assert message in result.summary


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "no items"),
        ([item(receipt=False)], "without a receipt"),
        ([item(day=TODAY + timedelta(days=1))], "after today"),
        ([item(day=TODAY - timedelta(days=OLDEST_DAYS + 1))], "can be claimed for 90 days"),
        ([item(), item()], "The same as item 1"),
    ],
)
def test_what_is_refused(items, message):
    """Faults that only the claimant can mend."""
    result = assess(items, today=TODAY)
    assert result.proposal == "reject"
    assert message in result.summary


def test_small_items_need_no_receipt():
    """Up to 25 EUR."""
    assert assess([item(amount="25", receipt=False)], today=TODAY).proposal == "approve"


def test_totals_are_in_euros():
    """At the desk's own rates."""
    result = assess([item(amount="10", currency="GBP"), item(amount="10", currency="USD")], today=TODAY)
    assert str(result.total_eur) == "20.80"
