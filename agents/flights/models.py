"""What the flight skills take and give. These schemas are published with the card, for other agents' models to read."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Place = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]
Card = Literal["company", "personal"]
Euros = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2)]


class FlightQuery(BaseModel):
    """A one-way search: from where, to where, on which day."""

    model_config = ConfigDict(extra="forbid")

    origin: Place = Field(
        description="Where to depart: an IATA airport code (LHR), a city (London; you are asked which airport) or an "
        "airport's name (Heathrow). A country or region may follow after a comma: London, Ontario.",
        examples=["LHR", "London"],
    )
    destination: Place = Field(description="Where to arrive; written like origin.", examples=["LIS", "Lisbon"])
    day: Place = Field(
        description="Local day of departure: 2027-03-03, 3 March (the next one if no year is given), next Friday.",
        examples=["2027-03-03", "3 March"],
    )


class Offer(BaseModel):
    """A flight that can be booked, at a fixed fare."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="Names this offer when booking; always the same flight, times and fare.")
    carrier: str = Field(description="Name of the airline.")
    flight_number: str = Field(description="Airline code and number, such as Q9 1204.")
    origin: str = Field(description="IATA code of the departure airport.")
    origin_name: str = Field(description="Name of the departure airport.")
    destination: str = Field(description="IATA code of the arrival airport.")
    destination_name: str = Field(description="Name of the arrival airport.")
    departs: datetime = Field(description="Departure, local time with UTC offset.")
    arrives: datetime = Field(description="Arrival, local time with UTC offset.")
    duration_minutes: int = Field(description="Minutes from departure to arrival.")
    distance_km: int = Field(description="Great-circle distance in kilometres.")
    fare: Euros = Field(description="Price for one passenger in euros, everything included.")


class FlightOffers(BaseModel):
    """Every non-stop flight of the day, cheapest first."""

    offers: list[Offer] = Field(description="Flights, cheapest first; empty if there is none.")
    note: str = Field(default="", description="Why there is no flight, when there is none.")


class FlightOrder(BaseModel):
    """A booking for one passenger."""

    model_config = ConfigDict(extra="forbid")

    offer_id: str = Field(
        min_length=1,
        max_length=40,
        description="The `id` of an offer that search_flights gave.",
        examples=["LHR-LIS-20270303-1"],
    )
    passenger: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(
        min_length=2, max_length=100, description="Full name of the person who flies.", examples=["Ada Lovelace"]
    )
    most: Euros | None = Field(
        default=None, description="Most that may be paid, in euros; a dearer offer is not booked. Absent: any fare."
    )
    card: Card = Field(
        default="company",
        description="Which card pays. A personal one is charged once its holder, for whom this is booked, grants it.",
    )


class Ticket(BaseModel):
    """Proof that a seat is booked."""

    reference: str = Field(description="Booking reference: six capital letters and digits.")
    passenger: str = Field(description="Full name of the person who flies.")
    offer: Offer = Field(description="The flight booked, at the fare paid.")
    booked_at: datetime = Field(description="When it was booked, UTC.")
    card: Card = Field(default="company", description="Which card paid.")
    granted_by: str = Field(default="", description="Who granted the charge of a personal card.")
    granted_at: datetime | None = Field(default=None, description="When they did, UTC.")
