"""Plans a trip with the specialists: flights are booked, receipts are filed."""

from decimal import Decimal

from agents.expenses.claim import LineItem
from agents.expenses.models import Decision, ExpenseClaim
from agents.flights.models import FlightOffers, FlightOrder, FlightQuery, Offer, Ticket
from agents.money import to_eur
from agents.orchestrator.models import EXAMPLE, Leg, Receipt, TripPlan, TripRequest
from agents.orchestrator.plan import plan
from sidecard import Agent, DelegationFailed, Task

MOST_QUESTIONS = 12
agent = Agent(
    name="orchestrator",
    version="1.0.0",
    description="Plans trips: books flights and files receipts, from one request in plain English or as data.",
    publisher="Travel Desk",
    asks=("spend:approve",),
)


@agent.skill(
    scope="trips:plan",
    idempotent=False,
    tags=["travel", "expenses", "planning"],
    examples=[EXAMPLE],
)
async def plan_trip(request: TripRequest, task: Task) -> None:
    """Plan a trip and carry it out: book its flights, file its receipts, stay within its budget.

    Answers with an itinerary and an expense decision, each as text and data. Asks for what is missing or ambiguous, and
    has somebody with the right to approve decide where the policy demands it. Flights on a personal card wait for its
    holder's grant.
    """
    trip = await _complete(request, task)
    await task.progress(_outline(trip))
    async with task.group() as group:
        travel = group.start(_travel(trip, task)) if trip.legs else None
        filing = group.start(_file(trip.receipts, task)) if trip.receipts else None
    if travel:
        await task.artifact("itinerary", *_itinerary(travel.result()))
    if filing:
        await task.artifact("expense decision", *filing.result())


async def _complete(request: TripRequest, task: Task) -> TripPlan:
    """The plan, once everything that it needs is known."""
    today = (await task.now()).date()
    for _ in range(MOST_QUESTIONS):
        trip = plan(request, today)
        if not trip.understood:
            task.reject(trip.unclear[-1])
        if not trip.missing:
            return trip
        first = trip.missing[0]
        answer = await task.ask(first.question)
        request = TripRequest.model_validate(request.model_dump() | {first.field: answer.text[:120] or None})
    task.reject(f"After {MOST_QUESTIONS} questions it is still not clear: {trip.missing[0].question}")


async def _travel(trip: TripPlan, task: Task) -> list[Ticket]:
    """One ticket per leg, the cheapest that fits the budget. Nothing is booked before every leg has its flight."""
    left = None if trip.budget is None else trip.budget - _worth(trip.receipts)
    offers: list[Offer] = []
    for leg in trip.legs:
        offers.append(await _choose(leg, left, task))
        left = None if left is None else left - offers[-1].fare
    orders = [
        FlightOrder(offer_id=one.id, passenger=trip.passenger or "", most=one.fare, card=trip.card) for one in offers
    ]
    return [await task.delegate("flights", "book_flight", order, output=Ticket) for order in orders]


async def _choose(leg: Leg, left: Decimal | None, task: Task) -> Offer:
    query = FlightQuery(origin=leg.origin or "", destination=leg.destination or "", day=str(leg.day))
    # A place that nobody knows is the request's fault.
    found = await task.delegate("flights", "search_flights", query, output=FlightOffers, rejected="reject")
    if not found.offers:
        task.reject(found.note or f"No flight goes from {leg.origin} to {leg.destination} on {leg.day}.")
    cheapest = found.offers[0]
    if left is not None and cheapest.fare > left:
        answer = await task.ask(
            f"The cheapest flight costs {cheapest.fare} EUR, and {max(left, Decimal(0))} EUR of the budget are left. "
            "Book it all the same?",
            options={"yes": "Book it", "no": "Do not book"},
        )
        if answer.choice == "no":
            task.reject(f"No flight from {leg.origin} to {leg.destination} on {leg.day} fits the budget.")
    return cheapest


async def _file(receipts: list[Receipt], task: Task) -> tuple[str, Decision | dict[str, str]]:
    """What becomes of the receipts: a rejection is an answer too, and undoes no flight."""
    items = [
        LineItem(
            vendor=receipt.vendor or "",
            amount=receipt.amount or Decimal(0),
            currency=receipt.currency,
            category=receipt.category,
            day=receipt.spent_on,
            receipt=True,
        )
        for receipt in receipts
    ]
    try:
        claim = ExpenseClaim(items=items, purpose="trip")
        decision = await task.delegate("expenses", "validate_expense", claim, output=Decision)
    except DelegationFailed as failed:
        if failed.state != "REJECTED":
            raise
        return f"Expenses rejected: {failed.reason}", {"decision": "rejected", "reason": failed.reason}
    return f"Expenses approved by {decision.approved_by}: {decision.total_eur} EUR. {decision.reason}", decision


def _itinerary(tickets: list[Ticket]) -> tuple[str, dict[str, object]]:
    lines = [
        f"{ticket.offer.flight_number} {ticket.offer.origin} {ticket.offer.departs:%a %d %b %Y %H:%M} → "
        f"{ticket.offer.destination} {ticket.offer.arrives:%H:%M}, {ticket.passenger}, {ticket.offer.fare} EUR, "
        f"booking {ticket.reference}"
        for ticket in tickets
    ]
    total = sum((ticket.offer.fare for ticket in tickets), Decimal(0))
    return "\n".join(lines), {
        "total_eur": str(total),
        "tickets": [ticket.model_dump(mode="json") for ticket in tickets],
    }


def _worth(receipts: list[Receipt]) -> Decimal:
    return sum((to_eur(receipt.amount or Decimal(0), receipt.currency) for receipt in receipts), Decimal(0))


def _outline(trip: TripPlan) -> str:
    parts = [f"flight {leg.origin} to {leg.destination} on {leg.day}" for leg in trip.legs]
    parts += [f"receipt of {r.amount} {r.currency} from {r.vendor}" for r in trip.receipts]
    return f"Planning: {'; '.join(parts)}."
