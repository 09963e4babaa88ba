"""`python -m agents.expenses`."""

from agents.expenses.agent import agent
from sidecard import serve

serve(agent)
