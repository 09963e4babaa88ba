"""Who calls: verified once, at the edge, by the own sidecar's word or by a credential. All else asks the Caller.

claims        what a request says of its caller, unverified
caller        Caller, who it is and what it may do
file          agents/callers.yaml, which callers there are
certificates  what a client's certificate is called there
denied        Denied, who of them is revoked
callers       Callers, which verifies the claims against the file
tokens        BearerTokens, which verifies JWTs
discovery     what an issuer of tokens says of itself
issuer_keys   the keys that it signs with
"""

from sidecard.callers.caller import Caller, CallerUser, Identify
from sidecard.callers.callers import Callers
from sidecard.callers.claims import APP_ID_HEADER, AUTHORIZATION_HEADER, KEY_HEADER, TOKEN_HEADER, Claims
from sidecard.callers.denied import Denied
from sidecard.callers.file import CallersFile, Grant
from sidecard.callers.tokens import BearerTokens

__all__ = [
    "APP_ID_HEADER",
    "AUTHORIZATION_HEADER",
    "KEY_HEADER",
    "TOKEN_HEADER",
    "BearerTokens",
    "Caller",
    "CallerUser",
    "Callers",
    "CallersFile",
    "Claims",
    "Denied",
    "Grant",
    "Identify",
]
