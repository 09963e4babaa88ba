"""What the expense skill takes and gives. Published with the card as schemas, for other agents' models to read."""

from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from agents.expenses.claim import LineItem
from agents.expenses.policy import Finding
from sidecard import File


class ExpenseClaim(BaseModel):
    """What somebody wants to have paid: line items, or a CSV file that lists them."""

    model_config = ConfigDict(extra="forbid")

    items: list[LineItem] = Field(default_factory=list, max_length=500, description="The expenses.")
    report: File | None = Field(
        default=None, description="Instead of items, a CSV file part: vendor, amount, and optionally the other fields."
    )
    purpose: str = Field(default="", max_length=500, description="What it was for, in a few words.")


class Decision(BaseModel):
    """Whether a claim is paid."""

    decision: Literal["approved"] = Field(description="approved: it is paid. Anything else ends the task REJECTED.")
    approved_by: str = Field(description="Who approved: policy, or the name of a person.")
    total_eur: Decimal = Field(description="What is paid, in euros.")
    reason: str = Field(description="Why, in a sentence.")
    findings: list[Finding] = Field(description="The policy's remarks on single items.")
