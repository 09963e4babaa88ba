"""The trip planner: what it asks of whom, what it books, and what becomes of the specialists' answers."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from a2a.types import Message, SendMessageRequest, TaskState

from agents.expenses.models import Decision
from agents.flights import schedule
from agents.flights.airports import airport
from agents.flights.models import FlightOffers, Ticket
from agents.orchestrator.agent import agent
from agents.orchestrator.models import EXAMPLE
from sidecard import AgentUnavailable
from sidecard.extension import Asked, Granted, Sent
from sidecard.tasks.binding import data_of, text_of
from sidecard.testing import FakeAgents, ended

S = TaskState
OUT = schedule.offers(airport("LHR"), airport("LIS"), date(2027, 3, 3))
BACK = schedule.offers(airport("LIS"), airport("LHR"), date(2027, 3, 5))
TRIP = {"origin": "LHR", "destination": "LIS", "day": "2027-03-03", "passenger": "Ada Lovelace"}
RECEIPT = {"amount": 180, "vendor": "Hotel Avenida", "category": "hotel"}


def found(*offers, note=""):
    return ended("f1", FlightOffers(offers=list(offers), note=note))


def booked(offer):
    at = datetime(2027, 2, 1, tzinfo=UTC)
    return ended("f2", Ticket(reference="ABC234", passenger="Ada Lovelace", offer=offer, booked_at=at))


def approved(by="policy"):
    decision = Decision(decision="approved", approved_by=by, total_eur=Decimal(180), reason="It is fine.", findings=[])
    return ended("e1", decision)


def others(flights=(), expenses=()):
    return FakeAgents(answers={"flights": list(flights), "expenses": list(expenses)})


def asked_of(agents, name):
    """(skill, data) of what was sent to an agent."""
    sent = [message for to, message in agents.sent if to == name]
    return [(Sent.of(SendMessageRequest(message=one)).skill, data_of(one)) for one in sent]


def artifact(task, name):
    return Message(parts=next(one for one in task.artifacts if one.name == name).parts)


async def test_a_trip_is_booked_and_its_receipt_filed(desk):
    """The cheapest flight, at its fare and no more; an itinerary and a decision, each as text and data."""
    agents = others([found(*OUT), booked(OUT[0])], [approved()])
    async with desk(agent, agents) as up:
        task = await up.send("ada", EXAMPLE)
    assert task.status.state == S.TASK_STATE_COMPLETED
    search, book = asked_of(agents, "flights")
    assert search == ("search_flights", {"origin": "London", "destination": "Lisbon", "day": "2027-03-03"})
    order = {"offer_id": OUT[0].id, "passenger": "Ada Lovelace", "most": str(OUT[0].fare), "card": "company"}
    assert book == ("book_flight", order)
    ((skill, claim),) = asked_of(agents, "expenses")
    assert (skill, claim["items"][0]["vendor"], claim["items"][0]["amount"]) == (
        "validate_expense",
        "Hotel Avenida",
        "180.00",
    )
    itinerary, decision = artifact(task, "itinerary"), artifact(task, "expense decision")
    assert data_of(itinerary)["tickets"][0]["reference"] == "ABC234"
    assert data_of(itinerary)["total_eur"] == str(OUT[0].fare)
    assert "ABC234" in text_of(itinerary)
    assert data_of(decision)["decision"] == "approved"
    assert text_of(decision).startswith("Expenses approved by policy: 180 EUR.")


async def test_what_is_missing_is_asked_for_one_after_the_other_over_restarts(desk):
    """Nothing is asked of a specialist before all is known; an answer that is no day is asked for again."""
    agents = others([found(*OUT), booked(OUT[0])])
    async with desk(agent, agents) as up:
        task = await up.send("ada", "Book a flight from LHR to Lisbon")
    for answer, question in [
        ("the 30th of February", "On which day"),
        ("3 March", "On which day"),
        ("Ada Lovelace", "Who flies?"),
    ]:
        assert task.status.state == S.TASK_STATE_INPUT_REQUIRED
        assert question in text_of(task.status.message)
        assert agents.sent == []
        async with desk(agent, agents) as up:
            task = await up.send("ada", answer, task=task)
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert len(agents.sent) == 2


@pytest.mark.parametrize("text", ["What is the weather?", "x" * 6_000])
async def test_what_is_no_trip_is_rejected_with_what_to_say(desk, text):
    """No specialist is bothered."""
    agents = others()
    async with desk(agent, agents) as up:
        task = await up.send("ada", text)
    assert task.status.state == S.TASK_STATE_REJECTED
    assert "for example: “" in text_of(task.status.message) or "please say it in" in text_of(task.status.message)
    assert agents.sent == []


@pytest.mark.parametrize(
    ("answer", "state"), [("no", S.TASK_STATE_REJECTED), ("Book it", S.TASK_STATE_COMPLETED)]
)  # fmt: skip
async def test_a_flight_above_the_budget_is_booked_only_if_the_traveller_says_so(desk, answer, state):
    """What the receipts cost is not left for flights. After a restart the flights are not searched again."""
    agents = others([found(*OUT), booked(OUT[0])], [approved()])
    data = TRIP | {"budget": float(OUT[0].fare) + 100, "receipts": [RECEIPT]}
    async with desk(agent, agents) as up:
        task = await up.send("ada", data=data)
        assert list(Asked.of(task.status.message).options) == ["yes", "no"]
        left = OUT[0].fare + 100 - 180
        words = f"The cheapest flight costs {OUT[0].fare} EUR, and {max(left, 0)} EUR of the budget are left."
        assert text_of(task.status.message).startswith(words)
    async with desk(agent, agents) as up:
        task = await up.send("ada", answer, task=task)
    assert task.status.state == state
    skills = [skill for skill, _ in asked_of(agents, "flights")]
    assert skills == ["search_flights"] + ["book_flight"] * (state == S.TASK_STATE_COMPLETED)


async def test_both_ways_are_booked_within_one_budget(desk):
    """The flight back is paid from what the flight out leaves."""
    agents = others([found(*OUT), found(*BACK), booked(OUT[0]), booked(BACK[0])])
    async with desk(agent, agents) as up:
        enough = float(OUT[0].fare + BACK[0].fare)
        task = await up.send("ada", data=TRIP | {"return_day": "2027-03-05", "budget": enough})
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert len(data_of(artifact(task, "itinerary"))["tickets"]) == 2


@pytest.mark.parametrize("back", [found(note="LIS to LHR: none."), found(*BACK)])
async def test_no_leg_is_booked_before_every_leg_has_its_flight(desk, back):
    """None flies back, or it is too dear: the traveller is not left with half a trip."""
    agents = others([found(*OUT), back, booked(OUT[0])])
    async with desk(agent, agents) as up:
        task = await up.send("ada", data=TRIP | {"return_day": "2027-03-05", "budget": float(OUT[0].fare)})
        if task.status.state == S.TASK_STATE_INPUT_REQUIRED:
            task = await up.send("ada", "no", task=task)
    assert task.status.state == S.TASK_STATE_REJECTED
    assert {skill for skill, _ in asked_of(agents, "flights")} == {"search_flights"}


async def test_a_rejected_receipt_is_an_answer_and_undoes_no_flight(desk):
    """The decision says why; the ticket is given out all the same."""
    no = ended("e1", state=S.TASK_STATE_REJECTED, says="Shady Rentals is a blocked vendor.")
    agents = others([found(*OUT), booked(OUT[0])], [no])
    async with desk(agent, agents) as up:
        task = await up.send("ada", data=TRIP | {"receipts": [RECEIPT]})
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert text_of(artifact(task, "expense decision")) == "Expenses rejected: Shady Rentals is a blocked vendor."
    assert data_of(artifact(task, "itinerary"))["tickets"]


async def test_specialists_questions_reach_who_may_answer_them(desk):
    """The traveller answers for the airport, the boss for the money; both answers go down to their own tasks."""
    where = ended("f1", state=S.TASK_STATE_INPUT_REQUIRED, says="Which one?")
    Asked(question="q1", options={"LHR": "Heathrow", "LGW": "Gatwick"}).attach(where.status.message)
    may = ended("e1", state=S.TASK_STATE_INPUT_REQUIRED, says="Approve it?")
    Asked(question="q2", options={"approve": "Yes"}, scope="spend:approve", by_other=True).attach(may.status.message)
    agents = others([where, found(*OUT), booked(OUT[0])], [may, approved("boss")])
    async with desk(agent, agents) as up:
        task = await up.send("ada", EXAMPLE)
    answers = {"Which one?": ("ada", "LHR"), "Approve it?": ("boss", "approve")}
    while task.status.state == S.TASK_STATE_INPUT_REQUIRED:
        by, answer = answers.pop(text_of(task.status.message))
        async with desk(agent, agents) as up:
            task = await up.send(by, answer, task=task)
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert answers == {}
    assert text_of(artifact(task, "expense decision")).startswith("Expenses approved by boss")
    assert {(to, one.task_id, text_of(one)) for to, one in agents.sent if one.task_id} == {
        ("flights", "f1", "LHR"),
        ("expenses", "e1", "approve"),
    }


@pytest.mark.parametrize(
    ("fate", "words"),
    [
        (AgentUnavailable("flights can't be reached"), "flights can't be reached"),
        (ended("f1", state=S.TASK_STATE_FAILED, says="a defect"), "search_flights of flights ended FAILED: a defect"),
    ],
)
async def test_a_trip_whose_flights_fail_says_why(desk, fate, words):
    """FAILED, with the specialist's reason."""
    async with desk(agent, others([fate])) as up:
        task = await up.send("ada", data=TRIP)
    assert task.status.state == S.TASK_STATE_FAILED
    assert words in text_of(task.status.message)


async def test_a_place_that_nobody_knows_is_rejected_in_the_specialists_words(desk):
    """It is the request's fault and no failure."""
    no = ended("f1", state=S.TASK_STATE_REJECTED, says="No such place.")
    async with desk(agent, others([no])) as up:
        task = await up.send("ada", data=TRIP)
    assert task.status.state == S.TASK_STATE_REJECTED
    assert text_of(task.status.message) == "No such place."


async def test_a_personal_card_is_ordered_and_its_holders_grant_goes_down(desk):
    """AUTH_REQUIRED climbs with what is charged; the explicit grant continues the flights agent's own task."""
    may = ended("f2", state=S.TASK_STATE_AUTH_REQUIRED, says="May it be charged?")
    Asked(question="q", authority="card:charge", details={"Amount": "9 EUR"}).attach(may.status.message)
    agents = others([found(*OUT), may, booked(OUT[0])])
    async with desk(agent, agents) as up:
        task = await up.send("ada", data=TRIP | {"card": "personal"})
        assert task.status.state == S.TASK_STATE_AUTH_REQUIRED
        assert Asked.of(task.status.message).details == {"Amount": "9 EUR"}
    async with desk(agent, agents) as up:
        done = await up.send("ada", "granted", task=task, granted=True)
    assert done.status.state == S.TASK_STATE_COMPLETED
    (down,) = [Sent.of_message(one) for _, one in agents.sent if one.task_id]
    assert (down.grant, down.question, down.subject) == (Granted(authority="card:charge", granted=True), "q", "ada")
    assert asked_of(agents, "flights")[1][1]["card"] == "personal"
