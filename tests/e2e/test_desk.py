"""The main job, as a traveller meets it, on real Dapr."""

import json
import subprocess
import sys
import uuid

import pytest
from a2a.types import Message, TaskState
from a2a.utils.errors import A2AError

from sidecard.cli.client import AgentClient
from sidecard.extension import Asked
from sidecard.tasks.binding import data_of, text_of

TRIP = (
    "Book me a flight from London to Lisbon on 3 March for Ada Lovelace and file the 180 EUR hotel receipt from "
    "Hotel Avenida, my budget is 900 EUR"
)
S = TaskState


def run_cli(project, *words):
    command = [sys.executable, "-m", "sidecard.cli", *words]
    return subprocess.run(command, cwd=project.root, capture_output=True, text=True, timeout=60, check=False)


def artifact(task, name):
    found = next(a for a in task.artifacts if a.name == name)
    return Message(parts=found.parts)


async def test_a_trip_in_plain_english_is_booked_and_its_receipt_filed(project):
    """One question (which London airport), then an itinerary and an expense decision, each as text and data."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        task = await desk.send(TRIP)
        assert task.status.state == S.TASK_STATE_INPUT_REQUIRED
        assert "LHR" in Asked.of(task.status.message).options
        done = await desk.answer(task, "LHR")
    assert done.id == task.id
    assert done.status.state == S.TASK_STATE_COMPLETED
    itinerary = artifact(done, "itinerary")
    assert "LHR" in text_of(itinerary)
    ticket = data_of(itinerary)["tickets"][0]
    assert (ticket["passenger"], ticket["offer"]["destination"]) == ("Ada Lovelace", "LIS")
    decision = data_of(artifact(done, "expense decision"))
    assert (decision["decision"], decision["approved_by"], decision["total_eur"]) == ("approved", "policy", "180.00")


async def test_a_trip_as_structured_data_gives_the_same(project):
    """The fields of the request's schema need no planner."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        task = await desk.send(
            data={"origin": "LHR", "destination": "Lisbon", "day": "3 March", "passenger": "Grace Hopper"}
        )
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert data_of(artifact(task, "itinerary"))["tickets"][0]["passenger"] == "Grace Hopper"


async def test_a_missing_passenger_is_asked_for(project):
    """INPUT_REQUIRED, and the name goes onto the ticket."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        task = await desk.send("Book a flight from LHR to Lisbon on 3 March")
        assert task.status.state == S.TASK_STATE_INPUT_REQUIRED
        assert "Who flies" in text_of(task.status.message)
        task = await desk.answer(task, "Alan Turing")
    assert data_of(artifact(task, "itinerary"))["tickets"][0]["passenger"] == "Alan Turing"


async def test_a_refusal_is_told_at_once(project):
    """Also to who waits for the outcome: daprd calls a refusal a stream, 200 text/event-stream, and it is none."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        with pytest.raises(A2AError, match="no skill 'fly'"):
            await desk.send("hello", skill="fly")


async def test_a_receipt_above_the_limit_waits_for_somebody_with_the_right(project):
    """The requester is refused, the manager's answer descends, and the same task ends approved by the manager."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        task = await desk.send("File the 1,800 EUR hotel receipt from Hotel Avenida")
        assert task.status.state == S.TASK_STATE_INPUT_REQUIRED
        assert Asked.of(task.status.message).scope == "spend:approve"
        assert "spend:approve" in await desk.try_answer(task, "approve")
    async with AgentClient.direct(project, "orchestrator", caller="manager") as manager:
        done = await manager.answer(task, "approve")
    assert done.id == task.id
    assert data_of(artifact(done, "expense decision"))["approved_by"] == "manager"


async def test_the_manager_may_also_say_no(project):
    """The decision is an answer, not a failure: the trip task completes with a rejected receipt."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        task = await desk.send("File the 1,900 EUR hotel receipt from Hotel Avenida")
    async with AgentClient.direct(project, "orchestrator", caller="manager") as manager:
        done = await manager.answer(task, "reject")
    assert done.status.state == S.TASK_STATE_COMPLETED
    assert data_of(artifact(done, "expense decision"))["decision"] == "rejected"


async def test_a_blocked_vendor_is_rejected_by_compliance(project):
    """The register blocks it, compliance rejects it, expenses and the orchestrator say so."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        task = await desk.send("File the 180 EUR taxi receipt from Shady Rentals")
    decision = data_of(artifact(task, "expense decision"))
    assert decision["decision"] == "rejected"
    assert "blocked" in decision["reason"]


async def test_a_csv_file_is_a_claim_too(project):
    """An attached CSV file part is read, looked up and decided like line items."""
    csv = b"vendor,amount,category,receipt\nHotel Avenida,90,hotel,yes\nHotel Avenida,85,hotel,yes\n"
    async with AgentClient.direct(project, "expenses", caller="tester") as expenses:
        task = await expenses.send(files=[("claim.csv", "text/csv", csv)])
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert data_of(artifact(task, "result"))["total_eur"] == "175.00"


async def test_a_booking_is_made_once_per_task_however_often_it_is_sent(project):
    """The same message again, at once and later, gives the same ticket."""
    async with AgentClient.direct(project, "flights", caller="tester") as flights:
        offers = await flights.send(
            skill="search_flights", data={"origin": "LHR", "destination": "LIS", "day": "3 March"}
        )
        offer = data_of(artifact(offers, "result"))["offers"][0]["id"]
        order = {"offer_id": offer, "passenger": "Ada Lovelace"}
        message_id = uuid.uuid4().hex
        tickets = [await flights.send(skill="book_flight", data=order, message_id=message_id) for _ in range(3)]
    assert len({data_of(artifact(ticket, "result"))["reference"] for ticket in tickets}) == 1
    assert len({ticket.id for ticket in tickets}) == 1


async def test_a_personal_card_is_charged_after_an_explicit_grant(project, system):
    """Asked for in plain English; it waits over a kill -9 of the orchestrator, no words grant it, the command does."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        task = await desk.send("Book a flight from LHR to Lisbon on 3 March for Ada Lovelace, on my personal card")
        assert task.status.state == S.TASK_STATE_AUTH_REQUIRED
        asked = Asked.of(task.status.message)
        assert (asked.authority, asked.details["Passenger"]) == ("card:charge", "Ada Lovelace")
        assert asked.details["Amount"] in text_of(task.status.message)
        assert "no text can grant" in await desk.try_answer(task, "yes, charge it")
    system.kill("orchestrator")
    system.restart("orchestrator")
    granting = run_cli(project, "grant", "orchestrator", "--task", task.id, "--yes")
    assert granting.returncode == 0, granting.stdout + granting.stderr
    assert asked.details["Amount"] in granting.stdout
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        done = await desk.get(task.id)
    assert done.status.state == S.TASK_STATE_COMPLETED
    ticket = data_of(artifact(done, "itinerary"))["tickets"][0]
    assert (ticket["card"], ticket["granted_by"]) == ("personal", "desk")


async def test_what_was_redacted_is_put_back_for_its_owner_alone(project):
    """Flights never had the address; the ticket has it again for who ordered it, and the audit says that they did."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        trip = {"origin": "LHR", "destination": "Lisbon", "day": "3 March", "passenger": "ada@example.org"}
        task = await desk.send(data=trip)
    assert data_of(artifact(task, "itinerary"))["tickets"][0]["passenger"].startswith("<EMAIL_ADDRESS_")
    assert "ada@example.org" in run_cli(project, "reveal", "orchestrator", "--task", task.id).stdout
    records = json.loads(run_cli(project, "audit", "orchestrator", "--task", task.id, "--json").stdout)["records"]
    [revealed] = [one for one in records if one["operation"] == "RevealTask"]
    assert (revealed["caller"], revealed["right"]) == ("desk", "owner, scope trips:plan")
    refused = run_cli(project, "reveal", "orchestrator", "--task", task.id, "--as", "manager")
    assert (refused.returncode, "ada@example.org" in refused.stdout + refused.stderr) == (2, False)


async def test_a_refused_charge_books_nothing(project):
    """The task ends, and says why; nothing waits any more."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        task = await desk.send("Book a flight from LHR to Lisbon on 3 March for Ada Lovelace, on my personal card")
        refusing = run_cli(project, "refuse", "orchestrator")
        assert refusing.returncode == 1, refusing.stdout + refusing.stderr
        ended = await desk.get(task.id)
    assert ended.status.state == S.TASK_STATE_FAILED
    assert "desk refused card:charge" in text_of(ended.status.message)
