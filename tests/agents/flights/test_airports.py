"""What a traveller's word for a place means."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.flights.airports import Airport, Ambiguous, Unknown, _book, airport, resolve_place


@pytest.mark.parametrize(
    ("text", "iata"),
    [
        ("LHR", "LHR"),
        ("lis", "LIS"),
        ("Lisbon", "LIS"),
        ("LISBOA", "LIS"),
        ("  lisbon ", "LIS"),
        ("Heathrow", "LHR"),
        ("London Heathrow", "LHR"),
        ("Gatwick Airport", "LGW"),
        ("Charles de Gaulle", "CDG"),
        ("München", "MUC"),
        ("Berlin", "BER"),
        ("Athens", "ATH"),
        ("London, Ontario", "YXU"),
        ("Birmingham, Alabama", "BHM"),
        ("IST", "IST"),
    ],
)
def test_a_name_that_fits_one_airport_means_it(text, iata):
    """Codes, cities and airports' names are found whatever their case and accents."""
    found = resolve_place(text)
    assert isinstance(found, Airport)
    assert found.iata == iata


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("London", ["LHR", "LGW", "LCY", "STN", "LTN", "SEN"]),
        ("LON", ["LHR", "LGW", "LCY", "STN", "LTN", "SEN"]),
        ("London, UK", ["LHR", "LGW", "LCY", "STN", "LTN", "SEN"]),
        ("New York", ["JFK", "LGA", "EWR"]),
        ("Paris", ["CDG", "ORY", "BVA"]),
        ("São Paulo", ["GRU", "CGH", "VCP"]),
    ],
)
def test_a_city_with_several_airports_is_for_the_traveller_to_choose(text, codes):
    """The airports airlines serve are offered, by code and label, and no airfield nor a namesake elsewhere."""
    found = resolve_place(text)
    assert isinstance(found, Ambiguous)
    assert list(found.options) == codes
    assert all(found.options.values())
    assert "Which one?" in found.question


def test_an_unknown_place_is_told_with_what_may_be_meant():
    """Misspelt names come back with suggestions."""
    found = resolve_place("Londn")
    assert isinstance(found, Unknown)
    assert "London" in found.suggestions
    assert "Did you mean London" in found.reason
    assert isinstance(resolve_place("gatwik"), Unknown)
    assert resolve_place("gatwik").suggestions == ("Gatwick",)


def test_a_choice_fits_its_question():
    """Each offered code means that airport, so an answer can be used as a place again."""
    found = resolve_place("London")
    assert all(resolve_place(code) == airport(code) for code in found.options)


def test_every_airport_has_a_time_zone():
    """All airports' zones are known to Python."""
    assert all(ZoneInfo(one.timezone) for one in _book().by_code.values())


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_resolved(text):
    """No text makes it fail."""
    assert isinstance(resolve_place(text), Airport | Ambiguous | Unknown)
