"""Airports: what a traveller's word for a place means. Pure, over the real airports of the `airportsdata` package.

That data lists 28,000 aerodromes and does not say which have scheduled flights. The rule here, from sure to general:

1. `cities.csv` names the cities people fly between, the names they go by, and the airports that airlines serve there.
   It settles what the data can't: that London has six airports and none in Ontario, that Newark serves New York, that
   Tegel is closed. The first airport of a row is the largest.
2. IATA's own table of multi-airport cities (in the same package), for cities not named there.
3. Any other city: its airports with an IATA code, without airfields, bases, heliports and seaplane docks; where some of
   a city's airports are called international, only those.

A name that still fits several is ambiguous, and the traveller chooses. "London, Ontario" or "Paris, Texas" says which.
"""

import csv
import difflib
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import airportsdata

LONGEST = 80
"""Characters of a place's name that are looked at."""
MOST_CANDIDATES = 12

_NO_AIRLINES = re.compile(
    r"\b(air base|air force|airbase|afb|raf|army|naval|military|airfield|aerodrome|airstrip|airpark|field|heliport"
    r"|helipad|seaplane|skyports|landing|gliderport|stolport|executive|county)\b"
)
_FILLER = {"airport", "airports", "international", "intl", "the", "city", "of"}
_UNDECOMPOSED = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ß": "ss", "æ": "ae", "œ": "oe", "\u0131": "i", "þ": "th"})
_COUNTRY_ALIASES = {"uk": "GB", "england": "GB", "great britain": "GB", "usa": "US", "america": "US", "czechia": "CZ"}


@dataclass(frozen=True)
class Airport:
    """One airport. `latitude` and `longitude` in degrees, `timezone` an IANA name."""

    iata: str
    name: str
    city: str
    region: str
    country: str
    latitude: float
    longitude: float
    timezone: str

    @property
    def label(self) -> str:
        """The airport for people: "London Heathrow Airport, GB"."""
        city = "" if _normal(self.city) in _normal(self.name) else f", {self.city}"
        return f"{self.name}{city}, {self.country}"


@dataclass(frozen=True)
class Ambiguous:
    """A place with several airports; somebody has to choose. `candidates` has two or more, the likeliest first."""

    place: str
    candidates: tuple[Airport, ...]

    @property
    def question(self) -> str:
        """What to ask the traveller."""
        return f"“{self.place}” has several airports. Which one?"

    @property
    def options(self) -> dict[str, str]:
        """IATA code → label."""
        return {airport.iata: airport.label for airport in self.candidates}


@dataclass(frozen=True)
class Unknown:
    """No airport goes by that name. `suggestions` are names of places that do, possibly none."""

    place: str
    suggestions: tuple[str, ...]

    @property
    def reason(self) -> str:
        """What to tell the traveller."""
        hint = f" Did you mean {' or '.join(self.suggestions)}?" if self.suggestions else ""
        return f"No airport is known for “{self.place}”.{hint} Give a city or an IATA code, such as LHR."


def airport(iata: str) -> Airport | None:
    """The airport with that IATA code, in any case; None if there is none."""
    return _book().by_code.get(iata.strip().upper())


def resolve_place(text: str) -> Airport | Ambiguous | Unknown:
    """What a traveller's word for a place means: an IATA code, a city, or an airport's name.

    Case, accents and punctuation do not matter. Three capitals are a code first; in lower case a city of that name
    comes first. A code of a multi-airport city (LON, NYC) means the city. A country or region may follow after a comma.
    """
    place = " ".join(text[: LONGEST * 2].split())[:LONGEST]
    book, name = _book(), _normal(place)
    if not name:
        return Unknown(place, ())
    found = _by_code(book, place) if place.isupper() else ()
    found = found or book.cities.get(name) or _qualified(book, place) or _by_city(book, name)
    found = found or _by_code(book, place) or _by_airport_name(book, name)
    if not found:
        return Unknown(place, _suggestions(book, name))
    return found[0] if len(found) == 1 else Ambiguous(place, tuple(found[:MOST_CANDIDATES]))


@dataclass(frozen=True)
class _Book:
    by_code: dict[str, Airport]
    by_city: dict[str, list[Airport]]
    cities: dict[str, list[Airport]]
    metropolitan: dict[str, list[Airport]]
    countries: dict[str, str]
    words: dict[str, set[str]]


@lru_cache(maxsize=1)
def _book() -> _Book:
    """Everything that can be looked up, read once."""
    by_code = {
        code: Airport(code, r["name"], r["city"], r["subd"], r["country"], r["lat"], r["lon"], r["tz"])
        for code, r in airportsdata.load("IATA").items()
        if r["tz"]
    }
    by_city: dict[str, list[Airport]] = {}
    words: dict[str, set[str]] = {}
    for one in by_code.values():
        by_city.setdefault(_normal(one.city), []).append(one)
        for word in _words(one):
            words.setdefault(word, set()).add(one.iata)
    areas = airportsdata.load_iata_macs()
    cities = {_normal(area["name"]): [by_code[iata] for iata in area["airports"]] for area in areas.values()}
    for row in csv.DictReader(resources.files(__package__).joinpath("cities.csv").read_text("utf-8").splitlines()):
        served = [by_code[iata] for iata in row["airports"].split("|")]
        cities |= {_normal(name): served for name in (row["city"], *row["also"].split("|")) if name}
    metropolitan = {code: cities[_normal(area["name"])] for code, area in areas.items()}
    return _Book(by_code, by_city, cities, metropolitan, _countries(), words)


def _countries() -> dict[str, str]:
    """Country name and code → ISO 3166 code, from the time zone database."""
    text = resources.files("tzdata.zoneinfo").joinpath("iso3166.tab").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    names = {_normal(name): code for code, name in rows} | {code.lower(): code for code, _ in rows}
    return names | _COUNTRY_ALIASES


def _by_code(book: _Book, place: str) -> list[Airport]:
    """The airport with that code, or the airports of the multi-airport city."""
    code = place.upper()
    # Some codes are both (IST): the airport's own wins, as tickets write it.
    return [book.by_code[code]] if code in book.by_code else book.metropolitan.get(code, [])


def _qualified(book: _Book, place: str) -> list[Airport]:
    """The city's airports in one country or region only, for "London, Ontario"."""
    city, comma, where = place.partition(",")
    if not comma:
        return []
    country, region = book.countries.get(_normal(where)), _normal(where)
    everywhere = [*book.cities.get(_normal(city), []), *book.by_city.get(_normal(city), [])]
    there = [one for one in everywhere if one.country == country or _normal(one.region) == region]
    curated = [one for one in there if one in book.cities.get(_normal(city), [])]
    return curated or _served(there)


def _by_city(book: _Book, name: str) -> list[Airport]:
    return _served(book.by_city.get(name, []))


def _served(airports: list[Airport]) -> list[Airport]:
    """Those of a city's airports that airlines are likely to serve (rule 3), per country; all, if none looks so."""
    kept = []
    for country in dict.fromkeys(one.country for one in airports):
        here = [one for one in airports if one.country == country]
        civil = [one for one in here if not _NO_AIRLINES.search(_normal(one.name))] or here
        kept += [one for one in civil if re.search(r"\b(international|intl)\b", _normal(one.name))] or civil
    return list(dict.fromkeys(kept))


def _by_airport_name(book: _Book, name: str) -> list[Airport]:
    """Airports whose name and city have every word of `name`: "heathrow", "paris charles de gaulle"."""
    asked = [word for word in name.split() if word not in _FILLER]
    if not asked:
        return []
    codes = set.intersection(*(book.words.get(word, set()) for word in asked))
    found = [book.by_code[code] for code in sorted(codes)]
    known = {one.iata for served in book.cities.values() for one in served}
    return [one for one in found if one.iata in known] or _served(found)


def _suggestions(book: _Book, name: str) -> tuple[str, ...]:
    """Up to three places spelt alike: the cities people fly between, then airports' names, then any city."""
    close = (
        difflib.get_close_matches(name, book.cities, n=3, cutoff=0.75)
        or difflib.get_close_matches(name, book.words, n=3, cutoff=0.8)
        or difflib.get_close_matches(name, book.by_city, n=3, cutoff=0.8)
    )
    return tuple(dict.fromkeys(match.title() for match in close))


def _words(one: Airport) -> set[str]:
    return set(f"{_normal(one.name)} {_normal(one.city)}".split()) - _FILLER


def _normal(text: str) -> str:
    """Lower case, no accents, words of letters and digits with one space between."""
    folded = unicodedata.normalize("NFKD", text.casefold().translate(_UNDECOMPOSED))
    plain = "".join(char for char in folded if not unicodedata.combining(char))
    return " ".join(re.findall(r"[^\W_]+", plain))
