"""What a trip's planner takes and gives. `TripRequest` is published with the card, for other agents' models to read."""

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from agents.orchestrator.payment import Card

Category = Literal["hotel", "flight", "train", "taxi", "meal", "conference", "other"]
"""What a receipt is for; the expense policy caps each of them."""
MOST_RECEIPTS = 50
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=120)]
Amount = Annotated[Decimal, Field(gt=0, max_digits=10, decimal_places=2)]
EXAMPLE = (
    "Book me a flight from London to Lisbon on 3 March for Ada Lovelace and file the 180 EUR hotel receipt from "
    "Hotel Avenida, my budget is 900 EUR"
)


class Receipt(BaseModel):
    """One receipt to file."""

    model_config = ConfigDict(extra="forbid")

    amount: Amount | None = Field(default=None, description="What was paid, in `currency`; above zero, two decimals.")
    currency: str = Field(
        default="EUR", min_length=1, max_length=8, description="ISO 4217 code, such as EUR.", examples=["EUR", "GBP"]
    )
    vendor: Words | None = Field(default=None, description="Who was paid.", examples=["Hotel Avenida"])
    category: Category = Field(default="other", description="What it was for.")
    spent_on: date | None = Field(default=None, description="Day of the receipt, if known.")


class TripRequest(BaseModel):
    """A trip in plain English, as fields, or both. Where both say something, the field counts."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = Field(
        default=None,
        description="The request in plain English: flight, passenger, receipts and budget in any order.",
        examples=[EXAMPLE],
    )
    origin: Words | None = Field(default=None, description="Where to depart: IATA code, city or airport.")
    destination: Words | None = Field(default=None, description="Where to arrive: IATA code, city or airport.")
    day: Words | None = Field(default=None, description="Day of departure: 2027-03-03, or 3 March for the next one.")
    return_day: Words | None = Field(default=None, description="Day of the flight back; absent: one way.")
    passenger: Words | None = Field(default=None, description="Full name of the one person who flies.")
    budget: Amount | None = Field(default=None, description="Most that the whole trip may cost, in euros.")
    card: Card | None = Field(
        default=None, description="Which card pays the flights: the company's by default; a personal one is asked for."
    )
    receipts: list[Receipt] | None = Field(default=None, max_length=MOST_RECEIPTS, description="Receipts to file.")
    amount: Words | None = Field(default=None, description="Amount of a receipt that has none, such as 180 EUR.")
    vendor: Words | None = Field(default=None, description="Vendor of a receipt that has none.")


class Leg(BaseModel):
    """One flight of the trip. Places are still the traveller's words; the flights agent knows the airports."""

    origin: str | None = Field(description="Where to depart.")
    destination: str | None = Field(description="Where to arrive.")
    day: date | None = Field(description="Local day of departure.")


class Missing(BaseModel):
    """Something the plan can't do without. The answer goes into the field of that name of `TripRequest`."""

    field: Literal["origin", "destination", "day", "return_day", "passenger", "amount", "vendor"]
    question: str = Field(description="What to ask the traveller.")


class TripPlan(BaseModel):
    """What is to be done. It can be carried out when `understood` is true and `missing` is empty."""

    legs: list[Leg] = Field(default_factory=list, description="Flights, in order of travel.")
    passenger: str | None = Field(default=None, description="Full name of the person who flies.")
    receipts: list[Receipt] = Field(default_factory=list, description="Receipts to file.")
    budget: Decimal | None = Field(default=None, description="Most that the whole trip may cost, in euros.")
    card: Card = Field(default="company", description="Which card pays the flights.")
    missing: list[Missing] = Field(default_factory=list, description="Questions to ask first, in order.")
    unclear: list[str] = Field(
        default_factory=list, description="What was read but not used, for the traveller to see."
    )

    @property
    def understood(self) -> bool:
        """Whether there is a flight or a receipt in it at all."""
        return bool(self.legs or self.receipts)
