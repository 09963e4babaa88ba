"""Which card pays the flights, as a request says it."""

import re
from typing import Literal

Card = Literal["company", "personal"]

_PERSONAL = r"own|personal|private"
_PHRASE = re.compile(
    r"(?P<paid>\bpaid\s+)?"
    r"(?:,\s*|\b(?:and|but)\s+)*"
    r"(?:\b(?:please\s+)?(?:pay|paying|charge|charged|charging|put|book)\s+(?:it\s+|this\s+|that\s+|the\s+flights?\s+)?)?"
    r"\b(?:on|with|to|by|from|using)\s+(?:my|her|his|their|our|the|a)\s+"
    rf"(?P<whose>{_PERSONAL}|company|corporate|business)(?:\s+(?:credit|debit|bank))?\s+card\b",
    re.IGNORECASE,
)


def split_card(text: str) -> tuple[Card | None, str]:
    """The card that a text names for the flights, if any, and the text without that: its words are no place or name.

    What a receipt was paid with is left where it is.
    """
    for found in _PHRASE.finditer(text):
        if found["paid"]:
            continue
        card: Card = "personal" if re.fullmatch(_PERSONAL, found["whose"], re.IGNORECASE) else "company"
        return card, f"{text[: found.start()].rstrip()}{text[found.end() :]}"
    return None, text
