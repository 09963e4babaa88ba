"""Compliance's rules: what may be spent without a person. Pure."""

from decimal import Decimal
from typing import Final, Literal

from pydantic import BaseModel, Field

from agents.compliance.models import Spend

LIMIT_EUR: Final = Decimal(1000)
"""A claim above this needs a person's approval."""
UNKNOWN_VENDOR_LIMIT_EUR: Final = Decimal(250)
"""The same, for a claim with a vendor that the register does not list."""


class Review(BaseModel):
    """Compliance's answer."""

    verdict: Literal["approved", "rejected", "needs_person"] = Field(
        description="approved: pay it; rejected: never; needs_person: somebody with the right to approve decides."
    )
    reason: str = Field(description="Why, in a sentence.")


def review(spend: Spend, *, limit: Decimal = LIMIT_EUR, blocked: frozenset[str] = frozenset()) -> Review:
    """What becomes of the spending. `blocked` adds vendor names to those that the register blocks, in any case.

    A blocked vendor is rejected, whatever the sum. A total above `limit`, or above 250 EUR with an unknown vendor,
    needs a person; so does an exception to the expense policy. Anything else is approved.
    """
    names = {_normal(name) for name in blocked}
    for vendor in spend.vendors:
        if vendor.status == "blocked" or _normal(vendor.name) in names:
            note = f" ({vendor.risk_note})" if vendor.risk_note else ""
            return Review(verdict="rejected", reason=f"{vendor.name} is a blocked vendor{note}.")
    if spend.total_eur > limit:
        return _person(f"{spend.total_eur:,.2f} EUR is above the limit of {limit:,.2f} EUR per claim.")
    unknown = next((vendor for vendor in spend.vendors if vendor.status == "unknown"), None)
    if unknown and spend.total_eur > UNKNOWN_VENDOR_LIMIT_EUR:
        return _person(
            f"{unknown.name} is not in the vendor register, and {spend.total_eur:,.2f} EUR is above the limit of "
            f"{UNKNOWN_VENDOR_LIMIT_EUR:,.2f} EUR for unknown vendors."
        )
    about_amounts = [one for one in spend.exceptions if unknown is None or "vendor register" not in one]
    if about_amounts:
        return _person(f"An exception to the expense policy: {about_amounts[0]}")
    return Review(verdict="approved", reason=f"{spend.total_eur:,.2f} EUR is within the limit of {limit:,.2f} EUR.")


def _person(reason: str) -> Review:
    return Review(verdict="needs_person", reason=reason)


def _normal(name: str) -> str:
    return " ".join(name.casefold().split())
