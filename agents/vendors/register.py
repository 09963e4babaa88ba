"""The vendor register: who may be paid. Pure, over `vendors.csv`."""

import csv
import difflib
import re
import unicodedata
from functools import lru_cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, Field

LONGEST_NAME = 120
_ALIKE = 0.88  # share of letters two names have in common to be one name misspelt
_LEGAL_FORMS = frozenset({"ltd", "limited", "inc", "llc", "gmbh", "ag", "sa", "lda", "bv", "plc", "co", "the"})


class Vendor(BaseModel):
    """What the register says of a name."""

    id: str | None = Field(description="The register's number for the vendor; null if it is not listed.")
    name: str = Field(description="Canonical name; the name that was asked for, if it is not listed.")
    country: str | None = Field(description="ISO 3166 code of its country; null if it is not listed.")
    category: str | None = Field(description="What it sells: hotel, flight, train, taxi, meal, conference or other.")
    status: Literal["approved", "blocked", "unknown"] = Field(
        description="approved: may be paid; blocked: must not be paid; unknown: not in the register."
    )
    risk_note: str = Field(default="", description="What to know before paying it; empty if nothing.")


def look_up(name: str) -> Vendor:
    """The vendor of that name: case, accents, punctuation and legal forms do not matter, one slip of spelling neither.

    A name that fits nobody is a Vendor of status unknown. A name spelt like two vendors fits nobody: better unknown
    than the wrong one.
    """
    asked = " ".join(name.split())[:LONGEST_NAME]
    key, names = _normal(asked), _names()
    if key in names:
        return names[key]
    alike = {names[near].name for near in difflib.get_close_matches(key, names, n=3, cutoff=_ALIKE)}
    if len(alike) == 1:
        return next(one for one in names.values() if one.name in alike)
    return Vendor(id=None, name=asked, country=None, category=None, status="unknown")


@lru_cache(maxsize=1)
def _names() -> dict[str, Vendor]:
    """Every vendor by each of its names."""
    text = resources.files(__package__).joinpath("vendors.csv").read_text("utf-8")
    names: dict[str, Vendor] = {}
    for row in csv.DictReader(text.splitlines()):
        also = row.pop("also").split("|")
        vendor = Vendor.model_validate(row)
        names |= {_normal(one): vendor for one in (vendor.name, *also) if one}
    return names


def _normal(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text.casefold().replace("&", " and "))
    seen = (char for char in folded if not unicodedata.combining(char) and unicodedata.category(char) != "Cf")
    plain = "".join(seen).replace("'", "").replace("\u2019", "")
    words = re.findall(r"[^\W_]+", plain)
    return " ".join([word for word in words if word not in _LEGAL_FORMS] or words)
