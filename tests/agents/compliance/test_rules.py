"""Compliance's rules."""

import pytest

from agents.compliance.models import Spend
from agents.compliance.rules import review


def spend(total="180", status="approved", **fields):
    return Spend(total_eur=total, vendors=[{"name": "Hotel Avenida", "status": status}], **fields)


@pytest.mark.parametrize(
    ("asked", "verdict", "reason"),
    [
        (spend(), "approved", "within the limit"),
        (spend("1000"), "approved", "within the limit"),
        (spend("1000.01"), "needs_person", "1,000.01 EUR is above the limit of 1,000.00 EUR per claim."),
        (spend("1800", exceptions=["above its cap"]), "needs_person", "1,800.00 EUR is above the limit"),
        (spend(exceptions=["above its cap"]), "needs_person", "above its cap"),
        (spend(status="unknown"), "approved", "within the limit"),
        (spend("251", status="unknown"), "needs_person", "not in the vendor register"),
        (spend("1", status="blocked"), "rejected", "is a blocked vendor"),
        (spend("5000", status="blocked"), "rejected", "is a blocked vendor"),
    ],
)
def test_the_rules(asked, verdict, reason):
    """A blocked vendor is rejected; large, unusual and unknown spending needs a person; the rest is approved."""
    result = review(asked)
    assert result.verdict == verdict
    assert reason in result.reason


def test_more_vendors_can_be_blocked():
    """By name, in any case; and the limit can be moved."""
    assert review(spend(), blocked=frozenset({"hotel  AVENIDA"})).verdict == "rejected"
    assert review(spend(), limit=100).verdict == "needs_person"
