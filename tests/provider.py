"""One OpenID provider for all tests: whoever needs other clients or accounts starts one by `foreign.openid.running`."""

from collections.abc import Iterator

import pytest

from foreign.openid import Provider, running

PARTNER = ("partner", "the secret of partner")
"""A firm's agent, which calls on its own behalf: client credentials."""
PLANNER = ("planner", "the secret of planner")
"""An agent at PLANNER_URL, which may exchange tokens made out to it for others: to call on behalf of who called it."""
PLANNER_URL = "http://127.0.0.1:8101"
DESKTOP = "desktop"
"""A public client on people's machines: authorization code with PKCE and a loopback redirect, device code, refresh."""
REDIRECT = "http://127.0.0.1/callback"
"""At any port (RFC 8252 §7.3)."""
SCOPES = "trips:plan flights:search flights:book expenses:validate spend:review spend:approve look buy"
CONFIG = {
    "clients": [
        {
            "client_id": PARTNER[0],
            "client_secret": PARTNER[1],
            "grant_types": ["client_credentials"],
            "response_types": [],
            "redirect_uris": [],
        },
        {
            "client_id": PLANNER[0],
            "client_secret": PLANNER[1],
            "grant_types": ["client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange"],
            "response_types": [],
            "redirect_uris": [],
            "agent_url": PLANNER_URL,
        },
        {
            "client_id": DESKTOP,
            "application_type": "native",
            "token_endpoint_auth_method": "none",
            "grant_types": [
                "authorization_code",
                "refresh_token",
                "urn:ietf:params:oauth:grant-type:device_code",
            ],
            "redirect_uris": [REDIRECT],
        },
    ],
    "accounts": {"ada": {"email": "ada@example.org"}, "bob": {"email": "bob@example.org"}},
    "scopes": SCOPES,
}


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    """A running OpenID provider with CONFIG."""
    with running(CONFIG) as provider:
        yield provider
