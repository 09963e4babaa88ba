"""Who calls: verified once, at the edge, by the own sidecar's word or by a credential. All else asks the Caller.

claims        what a request says of its caller, unverified
caller        Caller, who it is and what it may do
file          agents/callers.yaml, which callers there are
certificates  what a client's certificate is called there
denied        Denied, who of them is revoked
callers       Callers, which verifies the claims against the file
tokens        BearerTokens, which verifies JWTs
addresses     which addresses of an issuer can be believed
discovery     what an issuer of tokens says of itself
issuer_keys   the keys that it signs with
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sidecard.callers.caller import Bearing, Caller, CallerUser, Identify, Presented, bearing_none
from sidecard.callers.claims import APP_ID_HEADER, AUTHORIZATION_HEADER, KEY_HEADER, TOKEN_HEADER, Claims
from sidecard.callers.denied import Denied
from sidecard.callers.file import CallersFile, Grant

if TYPE_CHECKING:
    from sidecard.callers.callers import Callers
    from sidecard.callers.tokens import BearerTokens

# Loaded when asked for: the command line needs neither, and they take a second to import.
_LATER = {"Callers": "sidecard.callers.callers", "BearerTokens": "sidecard.callers.tokens"}

__all__ = [
    "APP_ID_HEADER",
    "AUTHORIZATION_HEADER",
    "KEY_HEADER",
    "TOKEN_HEADER",
    "BearerTokens",
    "Bearing",
    "Caller",
    "CallerUser",
    "Callers",
    "CallersFile",
    "Claims",
    "Denied",
    "Grant",
    "Identify",
    "Presented",
    "bearing_none",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- a class
    if name not in _LATER:
        raise AttributeError(f"module 'sidecard.callers' has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
