"""Card signatures: canonical JSON, digests, and agreement with the official SDK's signer and verifier."""

import json

import pytest
import rfc8785
from a2a.utils.signing import (
    InvalidSignaturesError,
    ProtectedHeader,
    create_agent_card_signer,
    create_signature_verifier,
)
from google.protobuf.json_format import MessageToDict
from jwcrypto.common import base64url_decode
from jwcrypto.jwk import JWK
from jwt.api_jwk import PyJWK

from sidecard.errors import CardRejected, ConfigurationError
from sidecard.signature import canonical, card_dict, digest, payloads, sign, signing_keys
from sidecard.trust import TrustStore, verify
from tests.sidecard.cards import FULL, card

KEY = JWK.generate(kty="EC", crv="P-256", kid="flights-1", alg="ES256")
WITH_EMPTY = FULL | {
    "description": "",
    "skills": [],
    "securitySchemes": {"key": {"apiKeySecurityScheme": {"location": "header", "name": "x-api-key"}}},
    "securityRequirements": [{"schemes": {"key": {"list": []}}}],
}
WITH_EXTENSION = FULL | {
    "capabilities": {
        "extensions": [{"uri": "urn:x", "params": {"n": 1, "half": 0.5, "none": None, "deep": [{"": ""}]}}]
    }
}


def trust(key: JWK = KEY) -> TrustStore:
    return TrustStore.parse(json.dumps({"publishers": {"Travel Desk": {"keys": [key.export_public(as_dict=True)]}}}))


def sdk_verifier(key: JWK = KEY):
    public = PyJWK(key.export_public(as_dict=True))
    return create_signature_verifier(lambda kid, jku: public, ["ES256"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # RFC 8785 §3.2.3: sorted by UTF-16 code units, so U+1F600 (D83D…) comes before U+FB33.
        (
            {"€": 1, "\r": 2, "\ufb33": 3, "1": 4, "😀": 5, "\u0080": 6, "ö": 7},
            '{"\\r":2,"1":4,"\u0080":6,"ö":7,"€":1,"😀":5,"\ufb33":3}',
        ),
        # RFC 8785 §3.2.2
        (
            {"numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 1e-27], "string": '€$\u000f\nA\'B"\\\\"/'},
            '{"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
        ),
        ({"literals": [None, True, False]}, '{"literals":[null,true,false]}'),
        # RFC 8785 appendix B
        (
            [0.0, -0.0, 5e-324, 1e21, 1e23, 999999999999999700000.0, 0.000001],
            "[0,0,5e-324,1e+21,1e+23,999999999999999700000,0.000001]",
        ),
    ],
)
def test_rfc_8785_vectors(value, expected):
    """The canonical JSON library gives the bytes that RFC 8785 prints."""
    assert rfc8785.dumps(value) == expected.encode()


def test_map_keys_beyond_the_basic_plane_are_sorted_as_utf_16():
    """A card with such keys has the canonical order of RFC 8785, and the official SDK agrees."""
    schemes = {name: {"mtlsSecurityScheme": {"description": "d"}} for name in ("\ufb33", "😀", "z")}
    signed = sign(card(FULL | {"securitySchemes": schemes}), KEY)
    assert list(json.loads(canonical(signed))["securitySchemes"]) == ["z", "😀", "\ufb33"]
    sdk_verifier()(signed)


def by_code_point(value):
    """Canonical as many take it: sorted by code points, as Python and Go sort, and numbers as Python writes them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_in_another_order_the_official_sdk_does_not_believe_it(monkeypatch):
    """So the tests with such keys, and with such numbers, see what they are there for."""
    schemes = {name: {"mtlsSecurityScheme": {"description": "d"}} for name in ("\ufb33", "😀", "z")}
    params = {"capabilities": {"extensions": [{"uri": "urn:x", "params": {"n": 1e-7}}]}}
    for content in ({"securitySchemes": schemes}, params):
        with monkeypatch.context() as patch:
            patch.setattr(rfc8785, "dumps", by_code_point)
            signed = sign(card(FULL | content), KEY)
        with pytest.raises(InvalidSignaturesError):
            sdk_verifier()(signed)
        with pytest.raises(CardRejected):
            verify(signed, trust())
        sdk_verifier()(sign(card(FULL | content), KEY))


def test_the_specifications_example_of_required_and_default_fields():
    """A2A 1.0 §8.4.1: REQUIRED fields stay though empty, explicitly set optional ones stay, the rest goes."""
    fragment = {
        "name": "Example Agent",
        "description": "",
        "capabilities": {"streaming": False, "pushNotifications": False, "extensions": []},
        "skills": [],
    }
    kept = json.loads(canonical(card(fragment)))
    assert kept["capabilities"] == {"pushNotifications": False, "streaming": False}
    assert (kept["description"], kept["skills"], kept["name"]) == ("", [], "Example Agent")
    assert "documentationUrl" not in kept
    assert "signatures" not in kept


def test_required_fields_are_kept_at_every_depth():
    """An empty REQUIRED field inside lists, maps and oneofs is part of the canonical form."""
    flow = {"clientCredentials": {"tokenUrl": "https://t"}}
    content = {"skills": [{"id": "s"}], "securitySchemes": {"o": {"oauth2SecurityScheme": {"flows": flow}}}}
    kept = card_dict(card(content))
    assert kept["skills"][0] == {"id": "s", "name": "", "description": "", "tags": []}
    assert kept["securitySchemes"]["o"]["oauth2SecurityScheme"]["flows"]["clientCredentials"]["scopes"] == {}


@pytest.mark.parametrize("content", [FULL, WITH_EMPTY, WITH_EXTENSION])
def test_the_official_sdk_verifies_our_signature(content):
    """What we sign, the official SDK's verifier believes, also after a trip through JSON."""
    signed = sign(card(content), KEY)
    sdk_verifier()(signed)
    sdk_verifier()(card(MessageToDict(signed)))
    sdk_verifier()(card(card_dict(signed)))


@pytest.mark.parametrize("content", [FULL, WITH_EMPTY, WITH_EXTENSION])
def test_we_verify_the_official_sdks_signature(content):
    """What the official SDK signs, we believe: just the part that its signature covers."""
    header: ProtectedHeader = {"kid": "flights-1", "alg": "ES256", "jku": None, "typ": "JOSE"}
    signed = create_agent_card_signer(PyJWK(KEY.export_private(as_dict=True)), header)(card(content))
    verified = verify(signed, trust())
    assert verified.publisher == "Travel Desk"
    assert verified.card.provider == card().provider
    assert canonical(verified.card) == payloads(verified.card)[0]
    if content is FULL:
        assert verified.digest == digest(card(content))


def test_a_card_with_nothing_empty_gets_one_signature_others_two():
    """A second signature is made only where the specification's and the SDK's canonical forms differ."""
    assert len(sign(card(FULL), KEY).signatures) == 1
    assert len(sign(card(WITH_EMPTY), KEY).signatures) == 2


def test_the_protected_header_says_alg_kid_typ_and_times_only():
    """No `jku` and no key travels with the signature, and nothing is in the unprotected header."""
    signature = sign(card(), KEY, now=1_000.5, lifetime=60).signatures[0]
    header = {"alg": "ES256", "kid": "flights-1", "typ": "JOSE"}
    assert json.loads(base64url_decode(signature.protected)) == header | {"iat": 1_000, "exp": 1_060}
    timeless = sign(card(), KEY, lifetime=None).signatures[0]
    assert json.loads(base64url_decode(timeless.protected)) == header
    assert not signature.HasField("header")


def test_signing_leaves_the_card_alone_and_replaces_signatures():
    """The caller's card is not changed, and signing again does not pile up signatures."""
    original = card()
    once = sign(original, KEY)
    assert not original.signatures
    assert len(sign(once, KEY).signatures) == 1


def test_the_digest_is_that_of_the_content():
    """Signing again gives other signatures and the same digest; other content another."""
    assert digest(sign(card(), KEY)) == digest(sign(card(), KEY)) == digest(card())
    assert digest(card(FULL | {"version": "1.0.1"})) != digest(card())


def test_a_card_without_canonical_form_cannot_be_signed():
    """NaN has no JSON: the author is told, and nothing is signed."""
    broken = card(WITH_EXTENSION)
    broken.capabilities.extensions[0].params["n"] = float("nan")
    with pytest.raises(ConfigurationError, match="no canonical JSON"):
        sign(broken, KEY)


def test_a_key_is_needed():
    """Signing with no key is refused rather than giving an unsigned card."""
    with pytest.raises(ConfigurationError, match="bootstrap"):
        sign(card())


def test_a_signing_key_is_read_from_its_secret():
    """The private JWK that the bootstrap wrote is taken as it is."""
    assert [key["kid"] for key in signing_keys(KEY.export_private())] == ["flights-1"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        KEY.export_public(),
        JWK.generate(kty="EC", crv="P-256", alg="ES256").export_private(),
        JWK.generate(kty="EC", crv="P-384", kid="k", alg="ES256").export_private(),
        JWK.generate(kty="oct", size=256, kid="k", alg="HS256").export(),
        JWK.generate(kty="EC", crv="P-256", kid="k").export_private(),
    ],
    ids=["empty", "no JSON", "a list", "an empty object", "public", "no kid", "other curve", "symmetric", "no alg"],
)
def test_an_unfit_signing_key_is_refused(text):
    """Public, symmetric, unnamed and malformed keys are refused with what to do."""
    with pytest.raises(ConfigurationError, match="sidecard bootstrap"):
        signing_keys(text)
