"""The vendor register."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.vendors.register import look_up


@pytest.mark.parametrize(
    "name", ["Hotel Avenida", "hotel avenida", " HOTEL  AVENIDA. ", "Hotel Avénida Lda", "Hotel Avenidda"]
)
def test_a_vendor_is_found_however_its_name_is_spelt(name):
    """Case, accents, punctuation, legal forms and one slip do not matter."""
    assert (look_up(name).id, look_up(name).status) == ("V-1001", "approved")


def test_a_blocked_vendor_says_why():
    """With its risk note."""
    vendor = look_up("shady rentals ltd.")
    assert vendor.status == "blocked"
    assert vendor.risk_note


@pytest.mark.parametrize("unseen", ["\u200b", "\u00ad", "\u2060", "\ufeff", "\u202e"])
def test_characters_that_nobody_sees_hide_no_vendor(unseen):
    """A blocked vendor stays blocked, however many of them its name is spelt with."""
    assert look_up(unseen.join("Shady Rentals")).status == "blocked"


@pytest.mark.parametrize("name", ["Hotel", "Acme", "Avenue Hotel Paris", "!!!"])
def test_an_unlisted_vendor_is_unknown(name):
    """And never taken for another."""
    vendor = look_up(name)
    assert (vendor.id, vendor.status, vendor.name) == (None, "unknown", name)


@given(st.text(max_size=300))
def test_any_name_gets_an_answer(name):
    """No name makes it fail."""
    assert look_up(name).status in {"approved", "blocked", "unknown"}
