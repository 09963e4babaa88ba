"""Agent Card signatures: detached JWS (RFC 7515) over canonical JSON (RFC 8785). A2A 1.0 §8.4.

A card has two canonical forms in the field. The specification keeps REQUIRED fields even when they are empty; the
official SDK drops everything empty. They differ only for cards that hold something empty, and such a card is signed in
both, so that every verifier finds a signature it can check. Who verifies believes just what is signed (see `trust`).
"""

import hashlib
import json
import time
from typing import Any, TypeAlias

import rfc8785
from a2a.types import AgentCard, AgentCardSignature
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import Error as ProtoJsonError
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from jwcrypto.common import JWException
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from sidecard.errors import ConfigurationError

Json: TypeAlias = Any  # what json.loads gives

ALGORITHMS = {"ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}
"""The algorithms believed, each with the key type and curve it needs. No symmetric one, and never `none`."""

LIFETIME_SECONDS = 24 * 3_600
"""How long a signature is believed. Agents sign anew long before (`app`)."""

MOST_KEYS = 4
"""Keys that sign one card: a rotation needs two. Each makes up to two signatures, of which verifiers bear few."""

NOT_JSON = (ProtoJsonError, ValueError, TypeError, AttributeError, KeyError, RecursionError)
"""What the JSON libraries raise on content that no card can hold: bad UTF-8, NaN, wrong types, deep nesting."""


def card_dict(card: AgentCard) -> dict[str, Any]:
    """The card as ProtoJSON with every REQUIRED field present, empty or not. A2A 1.0 §5.7 and §8.4.1."""
    content: dict[str, Any] = MessageToDict(card)
    _add_required(card, content)
    return content


def canonical(card: AgentCard) -> bytes:
    """The bytes that a signature covers: RFC 8785 of the card without its signatures. A2A 1.0 §8.4.1.

    Raises:
        ValueError: the card holds something that has no canonical form, such as NaN or a number beyond 2**53.
    """
    return rfc8785.dumps(_unsigned(card))


def payloads(card: AgentCard) -> list[bytes]:
    """The canonical forms a signature may cover: the specification's, then the official SDK's if it differs."""
    full = _unsigned(card)
    forms = [rfc8785.dumps(full), rfc8785.dumps(_without_empty(full) or {})]
    return list(dict.fromkeys(forms))


def digest(card: AgentCard) -> str:
    """SHA-256, in hex, of the card's canonical bytes without signatures: the same for each signing of the same card."""
    return hashlib.sha256(canonical(card)).hexdigest()


def signing_keys(text: str) -> list[JWK]:
    """The private keys in a secret, checked to be fit for signing cards: a JWK, or a JWK Set while they rotate.

    Raises:
        ConfigurationError: one is no private ES256 or EdDSA key with a `kid` of its own, or there is none.
    """
    remedy = "run `sidecard bootstrap`, or store a private JWK (EC P-256, with kid and alg ES256) as secret signing-key"
    try:
        content = json.loads(text)
        keys = [JWK(**jwk) for jwk in content.get("keys", [content])]
    except (JWException, *NOT_JSON):
        raise ConfigurationError(f"The signing key is not a JWK: {remedy}.") from None
    kids = {key.get("kid") for key in keys if _can_sign(key)}
    if not 0 < len(keys) == len(kids) <= MOST_KEYS:
        raise ConfigurationError(f"The signing key can't sign cards: {remedy}.")
    return keys


def _can_sign(key: JWK) -> bool:
    kid, algorithm = key.get("kid"), key.get("alg")
    fits = isinstance(algorithm, str) and (key.get("kty"), key.get("crv")) == ALGORITHMS.get(algorithm)
    return fits and key.has_private and isinstance(kid, str) and bool(kid)


def sign(card: AgentCard, *keys: JWK, now: float | None = None, lifetime: int | None = LIFETIME_SECONDS) -> AgentCard:
    """A copy of the card, signed with each key in place of the signatures it had. A2A 1.0 §8.4.2.

    Several keys let a publisher rotate: verifiers that pin the old key and those that pin the new one both succeed.
    Each signature's protected header says when it was made and until when it holds (`iat`, `exp`, as RFC 7519 has
    them: a card can't be passed off as the present one for ever); verifiers that do not know them ignore them. `now`
    is UTC in seconds, the clock's by default; without a `lifetime`, in seconds, neither is said.

    Raises:
        ConfigurationError: the card has no canonical form, or no key was given.
    """
    if not keys:
        raise ConfigurationError("A card can't be signed without a key: run `sidecard bootstrap`.")
    signed = AgentCard()
    signed.CopyFrom(card)
    del signed.signatures[:]
    try:
        forms = payloads(signed)
    except NOT_JSON as error:
        raise ConfigurationError(f"The card of '{card.name}' has no canonical JSON ({error}): mend it.") from error
    issued = int(time.time() if now is None else now)
    times = {} if lifetime is None else {"iat": issued, "exp": issued + lifetime}
    signed.signatures.extend(_signature(form, key, times) for key in keys for form in forms)
    return signed


def _signature(payload: bytes, key: JWK, times: dict[str, int]) -> AgentCardSignature:
    token = JWS(payload)
    token.allowed_algs = list(ALGORITHMS)
    token.add_signature(key, protected=json.dumps({"alg": key["alg"], "kid": key["kid"], "typ": "JOSE", **times}))
    parts = json.loads(token.serialize())
    return AgentCardSignature(protected=parts["protected"], signature=parts["signature"])


def _unsigned(card: AgentCard) -> dict[str, Any]:
    content = card_dict(card)
    content.pop("signatures", None)
    return content


def _without_empty(value: Json) -> Json:
    """The official SDK's form: nothing empty and no null, at any depth; None when nothing is left."""
    if isinstance(value, dict):
        members = ((key, _without_empty(member)) for key, member in value.items())
        return {key: member for key, member in members if member is not None} or None
    if isinstance(value, list):
        return [item for item in map(_without_empty, value) if item is not None] or None
    return None if value == "" else value


def _add_required(message: Message, content: dict[str, Any]) -> None:
    field: FieldDescriptor
    for field in message.DESCRIPTOR.fields:  # type: ignore[assignment]  # the stubs know two of this class
        for nested, nested_content in _nested(message, field, content):
            _add_required(nested, nested_content)
        # A message that is absent stays absent: it has no default that could be written.
        if _is_required(field) and not field.has_presence:
            content.setdefault(field.json_name, {} if _is_map(field) else field.default_value)


def _nested(message: Message, field: FieldDescriptor, content: dict[str, Any]) -> list[tuple[Message, dict[str, Any]]]:
    """Each of A2A's messages that a field holds, with its JSON."""
    kind: Descriptor | None = field.message_type
    if kind is None or kind.file is not AgentCard.DESCRIPTOR.file or field.json_name not in content:
        return []
    value, json_value = getattr(message, field.name), content[field.json_name]
    if _is_map(field):
        return [(value[key], json_value[key]) for key in value if isinstance(value[key], Message)]
    return list(zip(value, json_value, strict=True)) if field.is_repeated else [(value, json_value)]


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _is_required(field: FieldDescriptor) -> bool:
    return field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
