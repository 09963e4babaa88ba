"""The timetable."""

from datetime import UTC, date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.flights.airports import airport
from agents.flights.models import FlightOrder, FlightQuery
from agents.flights.schedule import OfferUnknown, distance_km, offer, offers, unserved

DAY = date(2027, 3, 3)
AIRPORTS = st.sampled_from(["LHR", "LIS", "JFK", "SYD", "GRU", "HND", "DEL", "OSL", "CPT", "SFO", "AKL", "KEF"]).map(
    airport
)


def test_a_known_flight_is_as_it_always_was():
    """Times, numbers and fares are computed, and stay what they are."""
    cheapest = offers(airport("LHR"), airport("LIS"), DAY)[0]
    assert (cheapest.id, cheapest.flight_number, str(cheapest.fare)) == ("LHR-LIS-20270303-3", "N0 271", "126.59")
    assert (cheapest.departs.isoformat(), cheapest.duration_minutes) == ("2027-03-03T12:48:00+00:00", 150)


@settings(max_examples=80, deadline=None)
@given(AIRPORTS, AIRPORTS, st.dates(date(2026, 1, 1), date(2036, 1, 1)))
def test_every_offer_can_be_computed_from_its_id(origin, destination, day):
    """An offer is recomputed exactly; it leaves on its day, local time; it takes as long as it says."""
    flights = offers(origin, destination, day)
    assert bool(flights) == (unserved(origin, destination) is None)
    for one in flights:
        assert offer(one.id) == one
        assert one.departs.date() == day
        assert one.arrives.astimezone(UTC) - one.departs.astimezone(UTC) == timedelta(minutes=one.duration_minutes)
        assert one.fare > 30
    assert [one.fare for one in flights] == sorted(one.fare for one in flights)


def test_local_times_carry_their_offset():
    """A flight east arrives the next day, by the clock there."""
    one = offers(airport("JFK"), airport("LHR"), DAY)[0]
    assert (one.departs.utcoffset(), one.arrives.utcoffset()) == (timedelta(hours=-5), timedelta(0))


def test_distances_are_great_circles():
    """London to Lisbon is 1,564 km."""
    assert round(distance_km(airport("LHR"), airport("LIS"))) == pytest.approx(1_564, abs=5)


def test_routes_without_flights_say_why():
    """The same airport, neighbours, and the other end of the world."""
    assert "both origin and destination" in unserved(airport("LHR"), airport("LHR"))
    assert "too near" in unserved(airport("LHR"), airport("LGW"))
    assert "two legs" in unserved(airport("LHR"), airport("SYD"))
    assert offers(airport("LHR"), airport("SYD"), DAY) == []


@pytest.mark.parametrize(
    "offer_id",
    ["", "nonsense", "LHR-LIS-20270231-1", "LHR-LIS-20270303-9", "QQQ-LIS-20270303-1", "LHR-LHR-20270303-1"],
)
def test_an_unknown_offer_is_refused(offer_id):
    """Malformed ids, days that are none, flights that do not exist."""
    with pytest.raises(OfferUnknown, match="search again"):
        offer(offer_id)


@pytest.mark.parametrize("model", [FlightQuery, FlightOrder])
def test_published_schemas_describe_every_field(model):
    """Another agent's model reads what each field means."""
    assert all(field.get("description") for field in model.model_json_schema()["properties"].values())
