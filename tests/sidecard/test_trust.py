"""Pinned keys, and every way in which a card can fail to be its publisher's."""

import hashlib
import hmac
import json
from copy import deepcopy

import pytest
from a2a.types import AgentCard, AgentCardSignature
from google.protobuf.json_format import ParseDict
from jwcrypto.common import base64url_decode, base64url_encode
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from sidecard.errors import CardRejected, ConfigurationError
from sidecard.signature import canonical, card_dict, digest, sign
from sidecard.trust import TrustStore, verify

KEY = JWK.generate(kty="EC", crv="P-256", kid="flights-1", alg="ES256")
FOREIGN = JWK.generate(kty="EC", crv="P-256", kid="flights-1", alg="ES256")
OTHER = JWK.generate(kty="EC", crv="P-256", kid="acme-1", alg="ES256")
EDDSA = JWK.generate(kty="OKP", crv="Ed25519", kid="ed-1", alg="EdDSA")
CONTENT = {
    "name": "flights",
    "description": "Finds flights.",
    "version": "1.0.0",
    "documentationUrl": "https://desk.example/docs",
    "iconUrl": "https://desk.example/icon.png",
    "provider": {"organization": "Travel Desk", "url": "https://desk.example"},
    "supportedInterfaces": [
        {"url": "https://desk.example/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0", "tenant": "t"}
    ],
    "capabilities": {
        "streaming": True,
        "pushNotifications": True,
        "extendedAgentCard": True,
        "extensions": [{"uri": "urn:x", "description": "x", "required": True, "params": {"skill": "book", "n": 1}}],
    },
    "securitySchemes": {
        "key": {"apiKeySecurityScheme": {"description": "d", "location": "header", "name": "x-api-key"}}
    },
    "securityRequirements": [{"schemes": {"key": {"list": ["flights:book"]}}}],
    "defaultInputModes": ["application/json"],
    "defaultOutputModes": ["application/json"],
    "skills": [
        {
            "id": "book",
            "name": "Book",
            "description": "Books.",
            "tags": ["travel"],
            "examples": ["LHR to LIS"],
            "inputModes": ["text/plain"],
            "outputModes": ["text/plain"],
            "securityRequirements": [{"schemes": {"key": {"list": ["flights:book"]}}}],
        }
    ],
}


def card(**changes) -> AgentCard:
    return ParseDict(CONTENT | changes, AgentCard())


def pinned(*keys: JWK, **members) -> list[dict]:
    return [key.export_public(as_dict=True) | members for key in keys]


def trust(**publishers) -> TrustStore:
    named = {name.replace("_", " "): {"keys": keys} for name, keys in publishers.items()}
    return TrustStore.parse(json.dumps({"publishers": named}))


DESK = trust(Travel_Desk=pinned(KEY, EDDSA), Acme=pinned(OTHER))


def signed_as(header: dict, key: JWK = KEY, content: AgentCard | None = None) -> AgentCard:
    """A card signed properly, but with a protected header of the test's choice."""
    content = content or card()
    token = JWS(canonical(content))
    token.add_signature(key, alg=None, protected=json.dumps(header))
    parts = json.loads(token.serialize())
    content.signatures.append(AgentCardSignature(protected=parts["protected"], signature=parts["signature"]))
    return content


def leaves(value, path=()):
    """Every path to a scalar in a JSON value."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, member in items:
            yield from leaves(member, (*path, key))
    else:
        yield path


def containers(value, path=()):
    """Every path to a member of an object or list."""
    if isinstance(value, dict | list):
        for key, member in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            yield from containers(member, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def test_a_card_signed_with_a_pinned_key_is_believed():
    """The result names the publisher, the key and the digest, and holds the whole card without its signatures."""
    verified = verify(sign(card(), KEY), DESK)
    assert (verified.publisher, verified.kid, verified.digest) == ("Travel Desk", "flights-1", digest(card()))
    assert verified.card == card()


def test_eddsa_is_believed_too():
    """A publisher may pin Ed25519 keys."""
    assert verify(sign(card(), EDDSA), DESK).kid == "ed-1"


@pytest.mark.parametrize("path", list(leaves(CONTENT)), ids=str)
def test_any_altered_value_is_noticed(path):
    """Changing any one value of a signed card makes it rejected."""
    content = card_dict(sign(card(), KEY))
    value = at(content, path)
    changed = (not value) if isinstance(value, bool) else value + 1 if isinstance(value, int | float) else f"{value}x"
    at(content, path[:-1])[path[-1]] = changed
    with pytest.raises(CardRejected):
        verify(ParseDict(content, AgentCard()), DESK)


@pytest.mark.parametrize("path", list(containers(CONTENT)), ids=str)
def test_anything_removed_is_noticed(path):
    """Leaving out any one member or item of a signed card makes it rejected."""
    content = card_dict(sign(card(), KEY))
    del at(content, path[:-1])[path[-1]]
    with pytest.raises(CardRejected):
        verify(ParseDict(content, AgentCard()), DESK)


def test_anything_empty_that_is_added_is_noticed_or_not_believed():
    """An added "no credentials needed", invisible to the SDK's canonical form, never reaches who reads the card."""
    for security in ([], CONTENT["securityRequirements"]):
        content = card_dict(sign(card(securityRequirements=security), KEY))
        content["securityRequirements"] = [*security, {"schemes": {}}]
        verified = verify(ParseDict(content, AgentCard()), DESK)
        assert verified.card.security_requirements == card(securityRequirements=security).security_requirements


def test_an_altered_card_says_so():
    """The message names the card and the key, and says what to do."""
    altered = sign(card(), KEY)
    altered.description = "Gives flights away."
    with pytest.raises(CardRejected, match=r"'flights' by 'Travel Desk'.*altered.*'flights-1'.*fetch it again"):
        verify(altered, DESK)


def test_an_unsigned_card_is_rejected():
    """A card without signatures is refused, whoever it says it is from."""
    with pytest.raises(CardRejected, match="is not signed"):
        verify(card(), DESK)


def test_a_foreign_key_under_a_pinned_name_is_rejected():
    """A forger who uses the right kid with a key of his own is refused."""
    with pytest.raises(CardRejected, match="altered, or not signed with key"):
        verify(sign(card(), FOREIGN), DESK)


def test_an_unknown_kid_is_rejected():
    """A signature by a key that isn't pinned is refused, and the message says how to pin it."""
    stranger = JWK.generate(kty="EC", crv="P-256", kid="new-key", alg="ES256")
    with pytest.raises(CardRejected, match="'new-key' is not pinned: pin it"):
        verify(sign(card(), stranger), DESK)


def test_an_unknown_publisher_is_rejected():
    """A publisher without pinned keys is refused, and the message says how to trust it."""
    with pytest.raises(CardRejected, match=r"'Nobody' is unknown.*trust file"):
        verify(sign(card(provider={"organization": "Nobody"}), KEY), DESK)


@pytest.mark.parametrize("changes", [{"provider": {}}, {"name": ""}])
def test_a_card_without_publisher_or_name_is_rejected(changes):
    """A card must say whose and which it is."""
    with pytest.raises(CardRejected, match="names no agent or no publisher"):
        verify(sign(card(**changes), KEY), DESK)


def test_a_card_moved_to_another_publisher_is_rejected():
    """One trusted publisher can't sign for another."""
    with pytest.raises(CardRejected, match="'acme-1' is not pinned"):
        verify(sign(card(), OTHER), DESK)
    moved = sign(card(), KEY)
    moved.provider.organization = "Acme"
    with pytest.raises(CardRejected, match="'flights-1' is not pinned"):
        verify(moved, DESK)


def test_a_key_for_named_agents_signs_no_other():
    """The flights agent's key can't make a card for expenses."""
    desk = trust(Travel_Desk=pinned(KEY, agents=["flights"]))
    assert verify(sign(card(), KEY), desk).kid == "flights-1"
    with pytest.raises(CardRejected, match="may sign only for flights: add 'expenses'"):
        verify(sign(card(name="expenses"), KEY), desk)
    with pytest.raises(CardRejected, match="only for nobody"):
        verify(sign(card(), KEY), trust(Travel_Desk=pinned(KEY, agents=[])))


def test_one_good_signature_among_others_suffices():
    """While keys rotate, a card bears two signatures and verifiers pin one or both of the keys."""
    both = sign(card(), OTHER, KEY)
    assert len(both.signatures) == 2
    assert verify(both, DESK).kid == "flights-1"


def test_only_the_protected_header_counts():
    """An unprotected kid or alg is not read."""
    unnamed = signed_as({"alg": "ES256"})
    unnamed.signatures[0].header["kid"] = "flights-1"
    with pytest.raises(CardRejected, match="Key None is not pinned"):
        verify(unnamed, DESK)


def test_no_algorithm_is_not_an_algorithm():
    """`none` with an empty signature is refused."""
    unsigned = card()
    header = base64url_encode(json.dumps({"alg": "none", "kid": "flights-1"}))
    unsigned.signatures.append(AgentCardSignature(protected=header, signature=""))
    with pytest.raises(CardRejected, match="ES256 only, not 'none'"):
        verify(unsigned, DESK)


@pytest.mark.parametrize("secret", [KEY.export_public().encode(), KEY.export_to_pem()])
def test_a_public_key_is_no_hmac_secret(secret):
    """A signature by HS256 with the public key as its secret is refused."""
    forged = card()
    protected = base64url_encode(json.dumps({"alg": "HS256", "kid": "flights-1"}))
    signing_input = f"{protected}.{base64url_encode(canonical(forged))}".encode()
    mac = base64url_encode(hmac.digest(secret, signing_input, hashlib.sha256))
    forged.signatures.append(AgentCardSignature(protected=protected, signature=mac))
    with pytest.raises(CardRejected, match="ES256 only, not 'HS256'"):
        verify(forged, DESK)


def test_a_key_is_used_with_its_own_algorithm_only():
    """A header that names another allowed algorithm than the pinned key's is refused."""
    with pytest.raises(CardRejected, match="EdDSA only, not 'ES256'"):
        verify(signed_as({"alg": "ES256", "kid": "ed-1"}), DESK)


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
def test_keys_that_a_signature_brings_are_ignored(member):
    """An embedded key or an address of keys neither helps a forger nor harms an honest card."""
    offer = {"jwk": FOREIGN.export_public(as_dict=True), "x5c": ["MII="]}.get(member, "https://forger.example/keys")
    header = {"alg": "ES256", "kid": "flights-1", member: offer}
    with pytest.raises(CardRejected, match="altered, or not signed"):
        verify(signed_as(header, FOREIGN), DESK)
    assert verify(signed_as(header, KEY), DESK).kid == "flights-1"


@pytest.mark.parametrize("extension", [{"crit": ["exp"], "exp": 1}, {"crit": []}, {"b64": True, "crit": ["b64"]}])
def test_critical_extensions_are_refused(extension):
    """A signature that demands extensions is not valid here. RFC 7515 §4.1.11."""
    honest = sign(card(), KEY)
    header = json.loads(base64url_decode(honest.signatures[0].protected)) | extension
    honest.signatures[0].protected = base64url_encode(json.dumps(header))
    with pytest.raises(CardRejected, match="JWS extensions"):
        verify(honest, DESK)


@pytest.mark.parametrize(
    "protected",
    ["", "%%%", "bm90IGpzb24", base64url_encode("[]"), base64url_encode(b"\xff\xfe"), base64url_encode("[" * 100_000),
     base64url_encode('{"alg":"none","alg":"ES256","kid":"flights-1"}')],
)  # fmt: skip
def test_a_malformed_protected_header_is_rejected(protected):
    """Whatever is in the header, the answer is a rejection."""
    broken = card()
    broken.signatures.append(AgentCardSignature(protected=protected, signature="AAAA"))
    with pytest.raises(CardRejected, match="not JSON in base64url"):
        verify(broken, DESK)


@pytest.mark.parametrize("signature", ["", "%%%", "AAAA", "A" * 100_000, "é"])
def test_a_malformed_signature_is_rejected(signature):
    """Whatever is in the signature, the answer is a rejection."""
    broken = sign(card(), KEY)
    broken.signatures[0].signature = signature
    with pytest.raises(CardRejected, match="altered, or not signed"):
        verify(broken, DESK)


@pytest.mark.parametrize("kid", [7, None, ["flights-1"], {"a": 1}, "k" * 10_000])
def test_a_strange_kid_is_rejected_in_a_short_line(kid):
    """A kid of any type and length gives one readable line."""
    with pytest.raises(CardRejected, match="is not pinned") as rejection:
        verify(signed_as({"alg": "ES256", "kid": kid}), DESK)
    assert len(str(rejection.value)) < 400
    assert "\n" not in str(rejection.value)


def test_too_many_signatures_are_rejected():
    """A card can't make its verifier work without end."""
    crowded = sign(card(), KEY)
    crowded.signatures.extend([crowded.signatures[0]] * 16)
    with pytest.raises(CardRejected, match="more than 16 signatures"):
        verify(crowded, DESK)


def test_a_card_without_canonical_form_is_rejected():
    """NaN in an extension's parameters has no JSON, so nothing can vouch for it."""
    broken = sign(card(), KEY)
    broken.capabilities.extensions[0].params["n"] = float("nan")
    with pytest.raises(CardRejected, match="no canonical JSON"):
        verify(broken, DESK)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", '{"publishers": []}', '{"publishers": {"A": {}}}', '{"publishers": {"A": {"keys": 7}}}',
     '{"publishers": {"A": {"keys": ["k"]}}}', "[" * 100_000, b"\xff"],
)  # fmt: skip
def test_a_malformed_trust_file_is_refused(text):
    """A trust file of any other shape stops the app with the shape that it needs."""
    with pytest.raises(ConfigurationError, match="trust file can't be read"):
        TrustStore.parse(text)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kid": None}, "has no kid"),
        ({"alg": "HS256"}, "must be for one of"),
        ({"alg": None}, "must be for one of"),
        ({"alg": "EdDSA"}, "must be for one of"),
        ({"alg": ["ES256"]}, "must be for one of"),
        ({"crv": "P-384"}, "must be for one of"),
        ({"agents": "flights"}, "not a list of names"),
        ({"agents": [1]}, "not a list of names"),
        ({"x": "AAAA"}, "not a valid public key"),
        ({"y": None}, "not a valid public key"),
        ({"d": "AAAA"}, "is private"),
    ],
)
def test_a_key_that_cannot_be_pinned_is_refused(changes, problem):
    """Symmetric, private, unnamed and invalid keys are named with what is wrong with them."""
    key = deepcopy(pinned(KEY)[0]) | changes
    with pytest.raises(ConfigurationError, match=problem):
        trust(Travel_Desk=[key])


def test_two_keys_under_one_name_are_refused():
    """A kid names one key of a publisher."""
    with pytest.raises(ConfigurationError, match="under one kid"):
        trust(Travel_Desk=pinned(KEY, FOREIGN))
