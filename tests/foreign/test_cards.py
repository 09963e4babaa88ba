"""Card signatures against the official JavaScript SDK, both ways; against the Python one they are in tests/sidecard."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import rfc8785
from google.protobuf.json_format import MessageToDict
from jwcrypto.jwk import JWK

from sidecard.signature import card_dict, sign
from sidecard.trust import TrustStore, verify
from tests.sidecard.cards import FULL, card
from tests.sidecard.test_signature import by_code_point

NODE = Path(__file__).parents[2] / "foreign/node"
KEY = JWK.generate(kty="EC", crv="P-256", kid="flights-1", alg="ES256")
STRANGER = JWK.generate(kty="EC", crv="P-256", kid="flights-1", alg="ES256")
# RFC 8785 §3.2.3 (keys beyond the basic plane) and appendix B (forms of numbers), in an extension's parameters.
PARAMS = {"\ufb33": 1, "😀": 2, "€": 3, "\r": 4, "1": 5, "numbers": [333333333.33333329, 4.50, 2e-3, 1e-27, 1e21, 0.5]}
CARDS = {
    "plain": FULL | {"capabilities": {"streaming": True, "pushNotifications": True}},
    "something empty": FULL | {"description": "", "skills": [], "capabilities": {"streaming": True}},
    "an explicit false": FULL,
    "keys and numbers of RFC 8785": FULL | {"capabilities": {"extensions": [{"uri": "urn:x", "params": PARAMS}]}},
}

pytestmark = pytest.mark.skipif(
    not shutil.which("node") or not (NODE / "node_modules/@a2a-js/sdk").is_dir(), reason="run `make foreign` first"
)


def javascript(*requests: dict) -> list[dict]:
    """What the JavaScript SDK makes of each."""
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(
        ["node", "card.mjs"], cwd=NODE, input=lines, capture_output=True, text=True, timeout=60, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def answers() -> dict[str, list[dict]]:
    """For each card: what it makes of ours, of ours altered, of a stranger's, and the card as it signs it."""
    public, private = KEY.export_public(as_dict=True), KEY.export_private(as_dict=True)
    requests = []
    for content in CARDS.values():
        ours = card_dict(sign(card(content), KEY))
        requests += [
            {"do": "verify", "card": ours, "key": public},
            {"do": "verify", "card": ours | {"version": "1.0.1"}, "key": public},
            {"do": "verify", "card": card_dict(sign(card(content), STRANGER)), "key": public},
            {"do": "sign", "card": MessageToDict(card(content)), "key": private},
        ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rfc8785, "dumps", by_code_point)
        otherwise = card_dict(sign(card(CARDS["keys and numbers of RFC 8785"]), KEY))
    *got, disordered = javascript(*requests, {"do": "verify", "card": otherwise, "key": public})
    return {name: got[4 * n : 4 * n + 4] for n, name in enumerate(CARDS)} | {"by code points": [disordered]}


def test_in_another_order_the_javascript_sdk_does_not_believe_it(answers):
    """So the card with the keys and numbers of RFC 8785 sees what it is there for."""
    assert "error" in answers["by code points"][0]


@pytest.mark.parametrize("name", CARDS)
def test_the_javascript_sdk_verifies_our_signatures(answers, name):
    """And refuses a card of ours that was altered, or signed with another key."""
    ours, altered, strangers, _ = answers[name]
    assert ours == {"verified": True}
    assert "error" in altered
    assert "error" in strangers


@pytest.mark.parametrize("name", CARDS)
def test_we_verify_the_javascript_sdks_signatures(answers, name):
    """Its canonical form is one of those that we know; a card that is altered afterwards is refused."""
    trust = TrustStore.parse(json.dumps({"publishers": {"Travel Desk": {"keys": [KEY.export_public(as_dict=True)]}}}))
    signed = card(answers[name][3]["card"])
    verified = verify(signed, trust)
    assert (verified.kid, verified.card.name) == ("flights-1", "flights")
