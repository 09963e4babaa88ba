"""Names of places, to tell where a place ends in a sentence. What a place means is for the flights agent to say."""

import re
import unicodedata
from functools import lru_cache

import airportsdata

_CODE_LENGTH = 3
_FILLER = frozenset({"the", "of", "airport", "international", "city"})


def is_city(words: str) -> bool:
    """Whether a city with an airport has that name, or an airport that code (in capitals)."""
    if len(words) == _CODE_LENGTH and words.isupper():
        return words in _codes()
    return _normal(words) in _cities()


def is_place(words: str) -> bool:
    """Whether it is a city, a code, or an airport's name with or without its city: "London Heathrow", "Gatwick"."""
    if is_city(words):
        return True
    normal = [word for word in _normal(words).split() if word not in _FILLER]
    holders = [_airports_by_word().get(word, frozenset()) for word in normal]
    return bool(holders) and bool(frozenset.intersection(*holders))


@lru_cache(maxsize=1)
def _airports() -> dict[str, airportsdata.Airport]:
    return airportsdata.load("IATA")


@lru_cache(maxsize=1)
def _codes() -> frozenset[str]:
    return frozenset(_airports()) | frozenset(airportsdata.load_iata_macs())


@lru_cache(maxsize=1)
def _cities() -> frozenset[str]:
    return frozenset(_normal(one["city"]) for one in _airports().values()) - {""}


@lru_cache(maxsize=1)
def _airports_by_word() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for code, one in _airports().items():
        for word in _normal(f"{one['name']} {one['city']}").split():
            found.setdefault(word, set()).add(code)
    return {word: frozenset(codes) for word, codes in found.items()}


def _normal(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(char for char in folded if not unicodedata.combining(char))
    return " ".join(re.findall(r"[^\W_]+", plain))
