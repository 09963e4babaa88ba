"""What is written down of a card of an agent outside the mesh."""

import pytest
from a2a.types import AgentCard
from google.protobuf.json_format import ParseDict

from sidecard.foreign import demands_of

OAUTH = {"oauth2SecurityScheme": {"flows": {"clientCredentials": {"tokenUrl": "https://id.example/token"}}}}
KEY = {"apiKeySecurityScheme": {"name": "x-api-key", "location": "header"}}


def needs(scheme, *scopes):
    return {"schemes": {scheme: {"list": list(scopes)}}}


RIDE = needs("oauth", "ride")


def card(*whole, **skills):
    listed = [{"id": name, "securityRequirements": list(needed)} for name, needed in skills.items()]
    content = {"securitySchemes": {"oauth": OAUTH, "key": KEY}, "securityRequirements": list(whole), "skills": listed}
    return ParseDict(content, AgentCard())


@pytest.mark.parametrize(
    ("shown", "demanded"),
    [
        (card(needs("key")), [("apiKey", "", [])]),
        (card(needs("key"), ride=[RIDE]), [("apiKey", "", [])]),
        # as ADK makes them: without these nobody knew where a token for it is got
        (card(ride=[RIDE]), [("oauth2", "https://id.example/token", ["ride"])]),
        (card(ride=[RIDE], hop=[RIDE]), [("oauth2", "https://id.example/token", ["ride"])]),
        (card(), []),
    ],
)  # fmt: skip
def test_demands_are_the_cards_or_where_it_has_none_its_skills(shown, demanded):
    """Each once; skills may demand what the card as a whole does not. A2A 1.0 §4.4.5."""
    assert [(one.kind, one.issuer, one.scopes) for [one] in demands_of(shown)] == demanded
