"""Calling other agents, whoever built them: five steps, each a module's work and a span of its own.

handshake  discover an agent, verify its card, get credentials for the skill
foreign    what the operator says of agents outside of the mesh
tracking   send a message, and track its task to where it rests
mesh       all five, again and again where that helps: what tasks delegate with
direct     foreign agents, called outside of any task
failures   what became of a call that failed
"""

from sidecard.delegation.direct import calling
from sidecard.delegation.foreign import ForeignAgent, ForeignFile, Issuer
from sidecard.delegation.handshake import VERIFIED_SECONDS, Handshake, Met, Outside
from sidecard.delegation.mesh import ACCEPTED_PATIENCE, UNACCEPTED_PATIENCE, Mesh

__all__ = [
    "ACCEPTED_PATIENCE",
    "UNACCEPTED_PATIENCE",
    "VERIFIED_SECONDS",
    "ForeignAgent",
    "ForeignFile",
    "Handshake",
    "Issuer",
    "Mesh",
    "Met",
    "Outside",
    "calling",
]
