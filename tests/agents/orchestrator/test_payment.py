"""The card in a request's words."""

from datetime import date

import pytest

from agents.orchestrator.models import EXAMPLE, TripRequest
from agents.orchestrator.payment import split_card
from agents.orchestrator.plan import plan

TODAY = date(2027, 1, 1)
FLIGHT = "Book me a flight from London to Lisbon on 3 March for Ada Lovelace"


@pytest.mark.parametrize(
    ("words", "card"),
    [
        (", on my personal card", "personal"),
        (" on my own credit card", "personal"),
        (", and charge it to my private card", "personal"),
        (", pay with her personal debit card please", "personal"),
        (", please charge the flight to my personal card", "personal"),
        (", on the company card", "company"),
        (" with the corporate credit card", "company"),
        ("", "company"),
        (" and mind my business card", "company"),
    ],
)
def test_a_card_is_understood_and_changes_nothing_else(words, card):
    """Wherever it stands: no name, place or receipt is made of its words."""
    plain = plan(TripRequest(text=FLIGHT), TODAY)
    for text in (FLIGHT + words, f"{words.strip(', ').capitalize()}, {FLIGHT[0].lower()}{FLIGHT[1:]}"):
        said = plan(TripRequest(text=text), TODAY)
        assert said.card == card
        assert (said.legs, said.passenger, said.receipts, said.missing) == (plain.legs, "Ada Lovelace", [], [])


def test_what_a_receipt_was_paid_with_is_no_card_for_the_flights():
    """The company still pays those."""
    text = f"{FLIGHT} and file the 180 EUR hotel receipt from Hotel Avenida that I paid with my personal card"
    assert plan(TripRequest(text=text), TODAY).card == "company"


def test_the_whole_example_on_a_personal_card():
    """Its receipt and budget are still read."""
    said = plan(TripRequest(text=f"{EXAMPLE}, on my personal card"), TODAY)
    assert (said.card, said.budget, len(said.receipts), said.passenger) == ("personal", 900, 1, "Ada Lovelace")


def test_a_field_counts_more_than_words():
    """As for everything else."""
    assert plan(TripRequest(text=f"{FLIGHT} on my personal card", card="company"), TODAY).card == "company"


@pytest.mark.parametrize("text", ["", "card", "on my personal", "my personal card " * 200])
def test_anything_can_be_split(text):
    """It never fails."""
    assert split_card(text)[0] in ("personal", "company", None)
