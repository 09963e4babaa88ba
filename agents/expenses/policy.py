"""The expense policy: plain rules over the items of a claim. Pure."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Final, Literal

from pydantic import BaseModel, Field

from agents.expenses.claim import Category, LineItem
from agents.money import AmountRejected, to_eur

CAPS_EUR: Final[dict[Category, Decimal]] = {
    "hotel": Decimal(250),
    "flight": Decimal(900),
    "train": Decimal(300),
    "taxi": Decimal(80),
    "meal": Decimal(60),
    "conference": Decimal(800),
    "other": Decimal(100),
}
"""What an item of each category may cost before somebody has to look at it."""
RECEIPT_ABOVE_EUR: Final = Decimal(25)
"""Items above this need a receipt."""
COMPLIANCE_FROM_EUR: Final = Decimal(100)
"""Claims of this total or more are reviewed by compliance, whatever the items look like."""
OLDEST_DAYS: Final = 90
"""Days after which an expense can't be claimed any more."""

VendorStatus = Literal["approved", "blocked", "unknown"]


class Finding(BaseModel):
    """One remark of the policy about one item of a claim."""

    item: int = Field(description="Number of the item in the claim, from 1.")
    severity: Literal["refused", "review"] = Field(
        description="refused: the claim can't be paid like this; review: compliance has to decide."
    )
    message: str = Field(description="What is wrong and what to do.")


class Assessment(BaseModel):
    """What the policy makes of a claim, before compliance is heard."""

    total_eur: Decimal = Field(description="Worth of all items in euros, at the desk's rates.")
    findings: list[Finding] = Field(description="Remarks, by item; empty if all is in order.")
    proposal: Literal["approve", "ask_compliance", "reject"] = Field(
        description="approve: pay it; ask_compliance: compliance decides; reject: it can't be paid like this."
    )
    summary: str = Field(description="The proposal in a sentence.")

    @property
    def must_ask_compliance(self) -> bool:
        """Whether compliance has to be asked before the claim is paid."""
        return self.proposal == "ask_compliance"


def assess(items: Sequence[LineItem], *, today: date, vendors: Mapping[str, VendorStatus] | None = None) -> Assessment:
    """Applies the policy to a claim. `vendors` holds what the vendor register says, by the vendor's name in the items.

    A vendor that the register does not list, or blocks, is for compliance to decide; so is an item above its cap and a
    total of 100 EUR or more. A missing receipt, a day ahead or long past, an unknown currency and an item claimed twice
    are refused here.
    """
    findings: list[Finding] = []
    total = Decimal(0)
    seen: dict[tuple[object, ...], int] = {}
    for number, item in enumerate(items, start=1):
        try:
            worth = to_eur(item.amount, item.currency)
        except AmountRejected as rejected:
            findings.append(Finding(item=number, severity="refused", message=str(rejected)))
            continue
        total += worth
        findings += _about_item(number, item, worth, today)
        findings += _about_vendor(number, item.vendor, (vendors or {}).get(item.vendor))
        key = (item.day, item.vendor.casefold(), item.amount, item.currency, item.description.casefold())
        if key in seen:
            message = f"The same as item {seen[key]}: leave one of them out, or describe how they differ."
            findings.append(Finding(item=number, severity="refused", message=message))
        seen.setdefault(key, number)
    return _conclusion(total, findings, bool(items))


def _about_item(number: int, item: LineItem, worth: Decimal, today: date) -> list[Finding]:
    findings = []
    if not item.receipt and worth > RECEIPT_ABOVE_EUR:
        message = f"{worth} EUR without a receipt: attach it; up to {RECEIPT_ABOVE_EUR} EUR none is needed."
        findings.append(Finding(item=number, severity="refused", message=message))
    if item.day and item.day > today:
        message = f"Dated {item.day}, after today ({today}): correct the day, or claim it when it is past."
        findings.append(Finding(item=number, severity="refused", message=message))
    if item.day and item.day < today - timedelta(days=OLDEST_DAYS):
        message = f"Dated {item.day}: expenses can be claimed for {OLDEST_DAYS} days."
        findings.append(Finding(item=number, severity="refused", message=message))
    if worth > (cap := CAPS_EUR[item.category]):
        message = f"{worth} EUR is above the {cap} EUR cap for {item.category}."
        findings.append(Finding(item=number, severity="review", message=message))
    return findings


def _about_vendor(number: int, vendor: str, status: VendorStatus | None) -> list[Finding]:
    messages = {"blocked": f"{vendor} is a blocked vendor.", "unknown": f"{vendor} is not in the vendor register."}
    return [Finding(item=number, severity="review", message=messages[status])] if status in messages else []


def _conclusion(total: Decimal, findings: list[Finding], has_items: bool) -> Assessment:
    refused = [one for one in findings if one.severity == "refused"]
    if refused or not has_items:
        reason = f"item {refused[0].item}: {refused[0].message}" if refused else "it has no items."
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        return Assessment(
            total_eur=total, findings=findings, proposal="reject", summary=f"The claim can't be paid: {reason}{more}"
        )
    if findings or total >= COMPLIANCE_FROM_EUR:
        why = findings[0].message if findings else f"claims of {COMPLIANCE_FROM_EUR} EUR or more are reviewed."
        return Assessment(
            total_eur=total,
            findings=findings,
            proposal="ask_compliance",
            summary=f"Compliance decides on {total} EUR: {why}",
        )
    return Assessment(
        total_eur=total, findings=findings, proposal="approve", summary=f"{total} EUR is within the policy."
    )
