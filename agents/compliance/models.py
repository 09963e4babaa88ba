"""What the compliance skill takes and gives. Published with the card as schemas, for other agents' models to read."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class SpendVendor(BaseModel):
    """A vendor of the claim, as the vendor register knows it."""

    model_config = ConfigDict(extra="forbid")

    name: Line = Field(description="Name of the vendor.", examples=["Hotel Avenida"])
    status: Literal["approved", "blocked", "unknown"] = Field(
        default="unknown", description="What the vendor register says; unknown if it lists no such vendor."
    )
    risk_note: str = Field(default="", max_length=500, description="The register's remark, if any.")


class Spend(BaseModel):
    """Spending to review: one claim."""

    model_config = ConfigDict(extra="forbid")

    total_eur: Decimal = Field(gt=0, max_digits=12, decimal_places=2, description="Total of the claim in euros.")
    vendors: list[SpendVendor] = Field(min_length=1, max_length=500, description="Everybody who is paid.")
    purpose: str = Field(default="", max_length=500, description="What it is for, in a few words.")
    exceptions: list[Line] = Field(
        default_factory=list,
        max_length=1_000,
        description="What the expense policy remarked, such as an item above its cap.",
    )


class Approval(BaseModel):
    """Why spending is approved, and by whom."""

    approved_by: str = Field(description="Who approved: policy, or the name of a person.")
    reason: str = Field(description="Why, in a sentence.")
