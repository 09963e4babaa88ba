"""`python -m agents.flights`."""

from agents.flights.agent import agent
from agents.flights.airports import resolve_place
from sidecard import serve

resolve_place("London")  # loads the airports now, half a second that no traveller should wait for
serve(agent)
