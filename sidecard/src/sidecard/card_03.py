"""A card that callers of A2A 0.3 can read too: their fields beside those of 1.0, in one document.

Verifiers of 1.0 read the fields that they know and check the signature over those, so it covers these no more than it
did: a reader of 0.3 knows no signatures over cards of 1.0, and believes a card by where it came from.
"""

from copy import deepcopy
from typing import Any

from a2a.client.card_resolver import parse_agent_card
from a2a.compat.v0_3.conversions import to_compat_agent_card
from a2a.types import AgentCard
from a2a.utils.errors import VersionNotSupportedError


def readable_by_03(card: AgentCard, content: dict[str, Any]) -> dict[str, Any]:
    """`content`, the card's ProtoJSON, with what 0.3 calls it besides: nothing, where no interface speaks 0.3."""
    try:
        legacy = to_compat_agent_card(card)
    except VersionNotSupportedError:
        return content
    schemes = deepcopy(content.get("securitySchemes", {}))
    _add(content, legacy.model_dump(mode="json", by_alias=True, exclude_none=True))
    # The SDK's readers of 1.0 prefer what 0.3 calls a scheme, which knows neither PKCE nor device codes, and would then
    # take the signature for a forgery. Such a scheme stays as it is: who speaks only 0.3 can't use it.
    read = parse_agent_card(deepcopy(content)).security_schemes
    for name, scheme in schemes.items():
        if read[name] != card.security_schemes[name]:
            content["securitySchemes"][name] = scheme
    return content


def _add(content: dict[str, Any], more: dict[str, Any]) -> None:
    """What is there already stays as it is: it is signed."""
    for name, value in more.items():
        known = content.setdefault(name, value)
        if known is value:
            continue
        if isinstance(known, dict) and isinstance(value, dict):
            _add(known, value)
        elif isinstance(known, list) and isinstance(value, list) and len(known) == len(value):
            for one, other in zip(known, value, strict=True):
                if isinstance(one, dict) and isinstance(other, dict):
                    _add(one, other)
