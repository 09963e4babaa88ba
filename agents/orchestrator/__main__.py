"""`python -m agents.orchestrator`."""

from datetime import date

from agents.orchestrator.agent import agent
from agents.orchestrator.models import EXAMPLE, TripRequest
from agents.orchestrator.plan import plan
from sidecard import serve

plan(TripRequest(text=EXAMPLE), date(2030, 1, 1))  # loads places and dates now: no traveller should wait for that
serve(agent)
