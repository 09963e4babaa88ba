"""Finds scheduled flights, and books them once."""

from datetime import datetime

from agents.days import DayRejected, resolve_day
from agents.flights import schedule
from agents.flights.airports import Airport, Ambiguous, Unknown, airport, resolve_place
from agents.flights.bookings import Bookings, reference_for
from agents.flights.models import FlightOffers, FlightOrder, FlightQuery, Offer, Ticket
from sidecard import Agent, Authority, Task

agent = Agent(
    name="flights",
    version="1.0.0",
    description="Finds non-stop flights between two airports on a day, and books seats on them.",
    publisher="Travel Desk",
)


@agent.skill(
    scope="flights:search",
    idempotent=True,
    failed="retry",
    tags=["travel", "flights"],
    examples=["LHR to LIS on 3 March", '{"origin": "London", "destination": "Lisbon", "day": "3 March"}'],
)
async def search_flights(query: FlightQuery, task: Task) -> FlightOffers:
    """Find the non-stop flights between two places on a day, cheapest first, with times and fares.

    A city with several airports is asked about; a place or day that does not exist is rejected with the reason.
    """
    try:
        day = resolve_day(query.day, (await task.now()).date())
    except DayRejected as reason:
        task.reject(str(reason))
    origin = await _airport(query.origin, task)
    destination = await _airport(query.destination, task)
    found = schedule.offers(origin, destination, day)
    return FlightOffers(offers=found, note=schedule.unserved(origin, destination) or "")


@agent.skill(
    scope="flights:book",
    idempotent=False,
    tags=["travel", "flights", "booking"],
    examples=['{"offer_id": "LHR-LIS-20270303-1", "passenger": "Ada Lovelace"}'],
)
async def book_flight(order: FlightOrder, task: Task) -> Ticket:
    """Book one seat on an offer that search_flights gave, once, however often the order is repeated.

    On a personal card it waits for an explicit grant (AUTH_REQUIRED) by the person for whom it is booked.
    """
    try:
        offer = schedule.offer(order.offer_id)
    except schedule.OfferUnknown as reason:
        task.reject(str(reason))
    if order.most is not None and offer.fare > order.most:
        task.reject(f"The fare is {offer.fare} EUR, above the {order.most} EUR that may be paid.")
    booked_at = await _in_time(offer, task)
    payment: dict[str, object] = {}
    if order.card == "personal":
        granted = await _charge(offer, order, task)
        booked_at = await _in_time(offer, task)
        payment = {"card": "personal", "granted_by": granted.by, "granted_at": granted.at}

    async def book(key: str) -> Ticket:
        ticket = Ticket.model_validate(
            {"reference": reference_for(key), "passenger": order.passenger, "offer": offer, "booked_at": booked_at}
            | payment
        )
        async with Bookings.of(agent.name) as bookings:
            return await bookings.keep(ticket)

    return await task.once("book", book, repeatable=True)


async def _in_time(offer: Offer, task: Task) -> datetime:
    """The present moment, at which the flight has not left."""
    moment = await task.now()
    if offer.departs <= moment:
        task.reject(f"That flight has left, on {offer.departs:%d %b %Y at %H:%M}; search for a later day.")
    return moment


async def _charge(offer: Offer, order: FlightOrder, task: Task) -> Authority:
    """The authority to charge a personal card with the fare. Without it the task is rejected."""
    route = f"{offer.origin} to {offer.destination}"
    return await task.authorize(
        f"May {offer.fare} EUR be charged to your personal card?",
        authority="card:charge",
        details={
            "Amount": f"{offer.fare} EUR",
            "Flight": f"{offer.flight_number} of {offer.carrier}, {route}, {offer.departs:%d %b %Y %H:%M}",
            "Passenger": order.passenger,
        },
    )


async def _airport(place: str, task: Task) -> Airport:
    """The airport that is meant; asks when several are."""
    match resolve_place(place):
        case Airport() as found:
            return found
        case Ambiguous() as several:
            answer = await task.ask(several.question, options=several.options)
            chosen = airport(answer.choice or "")
            return chosen or several.candidates[0]
        case Unknown() as unknown:
            task.reject(unknown.reason)
