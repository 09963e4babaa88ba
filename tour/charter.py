"""An agent of the tour that ends in every way but well: each of its skills declares what is to be done about that."""

from collections import Counter
from pathlib import Path

from pydantic import BaseModel, Field

from agents.flights.models import FlightOffers, FlightQuery
from sidecard import Agent, SidecardError, Task, serve

FAILURES = 2
HELD = Path("data/held-seats")
"""A line for each time that a seat was held."""

agent = Agent(
    name="charter",
    version="1.0.0",
    description="Charter flights. Its seat computer fails twice, its bookings fail, the rest it refuses.",
    publisher="Travel Desk",
)
_asked: Counter[str] = Counter()


class SeatComputerDown(SidecardError):
    """What this agent fails with; its words are told to who asked."""


class Seat(BaseModel):
    """A flight on which a seat is wanted."""

    flight: str = Field(description="Flight number.")


class Seats(BaseModel):
    """How many seats are left."""

    left: int = Field(description="Seats that nobody holds.")


@agent.skill(scope="seats:see", idempotent=True)
async def count_seats(seat: Seat, task: Task) -> Seats:
    """Count the seats that are left. Idempotent, so it is retried; the first two times for a flight it fails."""
    _asked[seat.flight] += 1
    if _asked[seat.flight] <= FAILURES:
        raise SeatComputerDown("the seat computer hung up")
    return Seats(left=7)


@agent.skill(scope="seats:hold", idempotent=False)
async def hold_seat(seat: Seat, task: Task) -> Seats:
    """Hold a seat: not idempotent. It is held, and then the line breaks: so it must not be done again."""

    async def hold() -> Seats:
        with HELD.open("a") as held:  # noqa: ASYNC230 -- a line
            held.write(f"{seat.flight} for task {task.id}\n")
        raise SeatComputerDown("the line broke after the seat was held")

    return await task.once("hold", hold)


@agent.skill(scope="flights:search", idempotent=True, rejected="elsewhere")
async def search_flights(query: FlightQuery, task: Task) -> FlightOffers:
    """Find charter flights; there are none today, so another agent with this skill is to be asked."""
    task.reject(f"no charter flies from {query.origin} to {query.destination}")


@agent.skill(scope="seats:hold", idempotent=False, rejected="escalate:seats:approve")
async def upgrade(seat: Seat, task: Task) -> Seats:
    """Move somebody to the front cabin; refused when that is full, and then a person decides what is to be done."""
    task.reject(f"the front cabin of {seat.flight} is full")


if __name__ == "__main__":
    serve(agent)
