"""The flight skills: what is asked, what is refused, and that a seat is booked once."""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest
from a2a.types import Message, TaskState

from agents.flights.agent import agent
from agents.flights.bookings import Bookings
from sidecard.extension import Asked
from sidecard.tasks.binding import data_of, text_of
from tests.agents.conftest import NOW

S = TaskState
QUERY = {"origin": "LHR", "destination": "Lisbon", "day": "3 March"}
ORDER = {"offer_id": "LHR-LIS-20270303-1", "passenger": "Ada Lovelace"}


class State:
    """The sidecar's state API: creates what is absent. `down` loses requests, `losing` so many of the answers."""

    def __init__(self) -> None:
        self.kept: dict[str, dict] = {}
        self.asked = self.losing = 0
        self.down = False

    def __call__(self, request):
        self.asked += 1
        if self.down:
            raise httpx.ConnectError("refused")
        if request.method == "POST":
            (item,) = json.loads(request.content)
            assert item["options"]["concurrency"] == "first-write"
            status = 409 if item["key"] in self.kept else 204
            self.kept.setdefault(item["key"], item["value"])
            if self.losing:
                self.losing -= 1
                raise httpx.ReadError("reset")
            return httpx.Response(status)
        found = self.kept.get(request.url.path.rpartition("/")[2])
        return httpx.Response(200, json=found) if found else httpx.Response(204)


@pytest.fixture
def state(monkeypatch):
    state = State()

    @asynccontextmanager
    async def bookings(_):
        async with httpx.AsyncClient(transport=httpx.MockTransport(state), base_url="http://sidecar") as sidecar:
            yield Bookings(sidecar)

    monkeypatch.setattr(Bookings, "of", bookings)
    return state


def result(task):
    return data_of(Message(parts=task.artifacts[-1].parts))


async def search(up, **changes):
    return await up.send("ada", skill="search_flights", data=QUERY | changes)


async def test_flights_are_found_cheapest_first(desk):
    """Of that day, between those places; booking one of them by its id needs nothing else."""
    async with desk(agent) as up:
        offers = result(await search(up))["offers"]
    assert [offer["fare"] for offer in offers] == sorted((offer["fare"] for offer in offers), key=float)
    assert {(o["origin"], o["destination"], o["departs"][:10]) for o in offers} == {("LHR", "LIS", "2027-03-03")}


async def test_a_city_with_several_airports_is_asked_about(desk):
    """The airports are the choices; the answer continues the same task, also in a new process, and no other counts."""
    async with desk(agent) as up:
        task = await search(up, origin="London", destination="Paris")
        assert task.status.state == S.TASK_STATE_INPUT_REQUIRED
        assert list(Asked.of(task.status.message).options)[:2] == ["LHR", "LGW"]
        again = await up.send("ada", "the nearest", task=task)
        assert "none of the choices" in text_of(again.status.message)
    async with desk(agent, now=NOW + timedelta(days=60)) as up:
        paris = await up.send("ada", "LGW", task=task)
        assert next(iter(Asked.of(paris.status.message).options)) == "CDG"
        done = await up.send("ada", "ORY", task=task)
    assert done.id == task.id
    (first, *_) = result(done)["offers"]
    assert (first["origin"], first["destination"], first["departs"][:10]) == ("LGW", "ORY", "2027-03-03")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"origin": "Nowhereville"}, "Nowhereville"),
        ({"day": "30 February"}, "30 February"),
        ({"day": "2027-01-31"}, "has passed: today is 1 February 2027"),
        ({"day": "2030-01-01"}, "not on sale yet"),
        ({"origin": " "}, "origin: String should have at least 1 character"),
        ({"seats": 3}, "seats: Extra inputs are not permitted"),
    ],
)
async def test_what_can_not_be_searched_is_rejected_with_the_reason(desk, changes, words):
    """A place or day that does not exist, or a field that there is not."""
    async with desk(agent) as up:
        task = await search(up, **changes)
    assert task.status.state == S.TASK_STATE_REJECTED
    assert words in text_of(task.status.message)


async def test_where_none_flies_the_answer_says_why(desk):
    """No flight is an answer, not a failure."""
    async with desk(agent) as up:
        task = await search(up, destination="LGW")
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert result(task) == {"offers": [], "note": "LHR to LGW is 41 km: too near for a flight."}


async def book(up, again="order", **changes):
    return await up.send("ada", skill="book_flight", data=ORDER | changes, again=again)


async def test_an_order_is_booked_once_however_often_it_is_sent(desk, state):
    """At once, later, after a restart: the same ticket. Another order is another booking."""
    async with desk(agent) as up:
        tasks = await asyncio.gather(*(book(up) for _ in range(5)))
    async with desk(agent, now=NOW + timedelta(days=60)) as up:
        tasks.append(await book(up))
        assert len(state.kept) == 1
        assert state.asked == 2
        assert len({result(task)["reference"] for task in tasks}) == 1
    async with desk(agent) as up:
        other = await book(up, again="another")
    assert result(other)["reference"] != result(tasks[0])["reference"]
    ticket = result(tasks[0])
    assert ticket == state.kept[f"booking:{ticket['reference']}"]
    assert (ticket["passenger"], ticket["booked_at"]) == ("Ada Lovelace", "2027-02-01T12:00:00Z")


@pytest.mark.parametrize("fault", ["down", "losing"])
async def test_a_booking_that_was_interrupted_is_made_once(desk, state, fault):
    """The process ends while the outcome is not known: the next one asks under the same key and finds one seat."""
    setattr(state, fault, 10)
    async with desk(agent) as up:
        sending = asyncio.create_task(book(up))
        async with asyncio.timeout(10):
            while not state.asked:  # noqa: ASYNC110 -- any condition
                await asyncio.sleep(0.001)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    state.down = state.losing = False
    async with desk(agent, now=NOW + timedelta(hours=1)) as up:
        task = await book(up)
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert list(state.kept.values()) == [result(task)]
    assert result(task)["booked_at"] == "2027-02-01T12:00:00Z"


@pytest.mark.parametrize(
    ("changes", "now", "words"),
    [
        ({"offer_id": "LHR-LIS-20270303-99"}, NOW, "There is no offer “LHR-LIS-20270303-99”; search again"),
        ({"offer_id": "anything"}, NOW, "There is no offer"),
        ({"most": "1.00"}, NOW, "EUR, above the 1.00 EUR that may be paid."),
        ({}, NOW + timedelta(days=60), "That flight has left, on 03 Mar 2027"),
        ({"passenger": " A "}, NOW, "passenger: String should have at least 2 characters"),
    ],
)
async def test_what_can_not_be_booked_is_rejected_and_nothing_is_kept(desk, state, changes, now, words):
    """The reason says what to do."""
    async with desk(agent, now=now) as up:
        task = await book(up, **changes)
    assert task.status.state == S.TASK_STATE_REJECTED
    assert words in text_of(task.status.message)
    assert state.asked == 0


async def test_a_missing_passenger_is_asked_for(desk, state):
    """By name; the answer may be plain text, and comes into a new process."""
    async with desk(agent) as up:
        task = await up.send("ada", skill="book_flight", data={"offer_id": ORDER["offer_id"]})
        assert text_of(task.status.message) == "book_flight also needs: passenger"
    async with desk(agent) as up:
        task = await up.send("ada", "Grace Hopper", task=task)
    assert result(task)["passenger"] == "Grace Hopper"


PERSONAL = {"card": "personal"}


async def test_a_personal_card_is_charged_once_its_holder_grants_it(desk, state):
    """Shown with what is charged, in the same task, over a restart; the ticket says who granted it and when."""
    async with desk(agent) as up:
        task = await book(up, **PERSONAL)
        assert task.status.state == S.TASK_STATE_AUTH_REQUIRED
        asked = Asked.of(task.status.message)
        assert asked.authority == "card:charge"
        assert asked.details["Amount"] in text_of(task.status.message)
        assert asked.details["Passenger"] == "Ada Lovelace"
        assert state.kept == {}
    async with desk(agent, now=NOW + timedelta(days=1)) as up:
        done = await up.send("ada", "granted", task=task, granted=True)
    assert done.id == task.id
    ticket = result(done)
    assert (ticket["card"], ticket["granted_by"], ticket["granted_at"]) == ("personal", "ada", "2027-02-02T12:00:00Z")
    assert list(state.kept.values()) == [ticket]


async def test_what_is_refused_is_not_booked(desk, state):
    """Nothing is charged, and the task says who refused."""
    async with desk(agent) as up:
        task = await up.send("ada", "no", task=await book(up, **PERSONAL), granted=False)
    assert task.status.state == S.TASK_STATE_REJECTED
    assert "ada refused card:charge" in text_of(task.status.message)
    assert state.kept == {}


async def test_a_grant_that_comes_after_the_flight_has_left_books_nothing(desk, state):
    """It may have waited for days."""
    async with desk(agent) as up:
        task = await book(up, **PERSONAL)
    async with desk(agent, now=NOW + timedelta(days=60)) as up:
        task = await up.send("ada", "yes", task=task, granted=True)
    assert "That flight has left" in text_of(task.status.message)
    assert state.kept == {}
