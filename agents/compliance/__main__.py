"""`python -m agents.compliance`."""

from agents.compliance.agent import agent
from sidecard import serve

serve(agent)
