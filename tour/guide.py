"""The tour's own agent: it calls an agent of another firm, agents that fail, and has a skill that prompts a model."""

from agents.flights.models import FlightOffers, FlightQuery
from sidecard import Agent, Task, serve
from tour.charter import Seat, Seats

agent = Agent(
    name="guide",
    version="1.0.0",
    description="Travels by rail and charter, through agents of its own firm and of another.",
    publisher="Travel Desk",
    asks=("seats:approve",),
)


@agent.skill(scope="tour:travel", idempotent=True)
async def find_train(journey: str, task: Task) -> str:
    """Ask the railways, who are outside of the mesh, for a connection, as in 'LIS to OPO'."""
    found = await task.delegate("railways", "railways", journey)
    return found.task.artifacts[0].parts[0].text


@agent.skill(scope="tour:travel", idempotent=True)
async def count_seats(seat: Seat, task: Task) -> Seats:
    """Have the charter agent count its seats."""
    return await task.delegate("charter", "count_seats", seat, output=Seats)


@agent.skill(scope="tour:travel", idempotent=False)
async def hold_seat(seat: Seat, task: Task) -> Seats:
    """Have the charter agent hold a seat."""
    return await task.delegate("charter", "hold_seat", seat, output=Seats)


@agent.skill(scope="tour:travel", idempotent=True)
async def find_flight(query: FlightQuery, task: Task) -> FlightOffers:
    """Have the charter agent find a flight."""
    return await task.delegate("charter", "search_flights", query, output=FlightOffers)


@agent.skill(scope="tour:travel", idempotent=False)
async def upgrade(seat: Seat, task: Task) -> Seats:
    """Have the charter agent move somebody to the front cabin."""
    return await task.delegate("charter", "upgrade", seat, output=Seats)


@agent.skill(scope="tour:travel", idempotent=True, prompts_model=True)
async def advise(question: str, task: Task) -> str:
    """Answer a traveller's question: declared as one that hands its text to a language model, so it is guarded so."""
    return f"The model was asked {len(question.split())} words."


if __name__ == "__main__":
    serve(agent)
