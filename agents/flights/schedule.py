"""The timetable: which flights go between two airports on a day, when, and what they cost. Pure and deterministic.

Airports, distances and time zones are real; flights are computed from them, so that the desk works offline and every
answer can be recomputed. The carriers are invented: no real airline is quoted with a fare it never offered.
"""

import hashlib
import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from agents.flights.airports import Airport, airport
from agents.flights.models import Offer

SHORTEST_KM = 100
LONGEST_KM = 15_500
"""No airliner flies much farther without a stop."""
CRUISE_KM_PER_MINUTE = 13.5
GROUND_MINUTES = 35
"""Taxi, climb and approach, in every block time."""

_CARRIERS = (("Q9", "Quayline"), ("Z7", "Zephyr Air"), ("N0", "Northmark Airways"))
_EARTH_KM = 6371.0088
_FIRST_DEPARTURE, _LAST_DEPARTURE = 6 * 60 + 10, 21 * 60 + 30
_OFFER_ID = re.compile(r"([A-Z]{3})-([A-Z]{3})-(\d{8})-(\d)")
_DEAR_WEEKDAYS = {4: 118, 6: 122, 0: 108}
"""Percent of the plain fare on Friday, Sunday and Monday."""


class OfferUnknown(ValueError):
    """No flight has that offer id. The message says what to do."""


def offers(origin: Airport, destination: Airport, day: date) -> list[Offer]:
    """The non-stop flights that leave `origin` on the local `day`, cheapest first.

    The same arguments give the same flights, on any machine. Empty where none flies: see `unserved`.
    """
    if unserved(origin, destination):
        return []
    count = _departures_a_day(distance_km(origin, destination))
    flights = [_flight(origin, destination, day, number, count) for number in range(1, count + 1)]
    return sorted(flights, key=lambda one: (one.fare, one.departs))


def offer(offer_id: str) -> Offer:
    """The offer with that id, computed anew and equal to the one that `offers` gave.

    Raises:
        OfferUnknown: No such flight.
    """
    match = _OFFER_ID.fullmatch(offer_id.strip())
    origin, destination = (airport(match[1]), airport(match[2])) if match else (None, None)
    if match and origin and destination:
        try:
            day = datetime.strptime(match[3], "%Y%m%d").replace(tzinfo=UTC).date()
            return next(one for one in offers(origin, destination, day) if one.id == match[0])
        except (ValueError, OverflowError, StopIteration):
            pass
    raise OfferUnknown(f"There is no offer “{offer_id[:40]}”; search again and book one of the offers it gives.")


def unserved(origin: Airport, destination: Airport) -> str | None:
    """Why no flight connects two airports, or None if some do."""
    if origin.iata == destination.iata:
        return f"{origin.label} is both origin and destination."
    distance = distance_km(origin, destination)
    route = f"{origin.iata} to {destination.iata} is {round(distance):,} km"
    if distance < SHORTEST_KM:
        return f"{route}: too near for a flight."
    return f"{route}: too far for a non-stop flight. Search in two legs." if distance > LONGEST_KM else None


def distance_km(origin: Airport, destination: Airport) -> float:
    """Great-circle distance in kilometres (haversine, mean Earth radius)."""
    lat1, lat2 = math.radians(origin.latitude), math.radians(destination.latitude)
    half_lat, half_lon = (lat2 - lat1) / 2, math.radians(destination.longitude - origin.longitude) / 2
    chord = math.sin(half_lat) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin(half_lon) ** 2
    return 2 * _EARTH_KM * math.asin(min(1.0, math.sqrt(chord)))


def _departures_a_day(distance: float) -> int:
    """Near places are served more often than far ones."""
    for limit, count in ((800, 6), (2_500, 5), (5_000, 3)):
        if distance <= limit:
            return count
    return 2


def _flight(origin: Airport, destination: Airport, day: date, number: int, count: int) -> Offer:
    """Flight `number` of `count` that day."""
    distance = distance_km(origin, destination)
    route = _Chance(f"{origin.iata}-{destination.iata}-{number}")
    code, carrier = _CARRIERS[route.below(len(_CARRIERS))]
    flight_number = f"{code} {route.below(8_900) + 100}"
    step = (_LAST_DEPARTURE - _FIRST_DEPARTURE) // count
    minute = _FIRST_DEPARTURE + (number - 1) * step + 5 * route.below(step // 5)
    departs, arrives = _times(origin, destination, day, minute, distance)
    return Offer(
        id=f"{origin.iata}-{destination.iata}-{day:%Y%m%d}-{number}",
        carrier=carrier,
        flight_number=flight_number,
        origin=origin.iata,
        origin_name=origin.name,
        destination=destination.iata,
        destination_name=destination.name,
        departs=departs,
        arrives=arrives,
        duration_minutes=round((arrives - departs).total_seconds() / 60),
        distance_km=round(distance),
        fare=_fare(distance, day, minute, _Chance(f"{flight_number} {day.isoformat()}")),
    )


def _times(origin: Airport, destination: Airport, day: date, minute: int, distance: float) -> tuple[datetime, datetime]:
    """Local departure and arrival; computed in UTC, so that a clock change on the way does no harm."""
    block = 5 * round((GROUND_MINUTES + distance / CRUISE_KM_PER_MINUTE) / 5)
    local = datetime.combine(day, time(minute // 60, minute % 60), ZoneInfo(origin.timezone))
    departs = local.astimezone(UTC)
    return departs.astimezone(ZoneInfo(origin.timezone)), (departs + timedelta(minutes=block)).astimezone(
        ZoneInfo(destination.timezone)
    )


def _fare(distance: float, day: date, minute: int, chance: "_Chance") -> Decimal:
    """Euros, to the cent: base and kilometres, dearer at busy times of week and day, and a spread of 30 percent."""
    cents = 3_900 + round(distance * 6.5)
    cents = cents * _DEAR_WEEKDAYS.get(day.weekday(), 100) // 100
    cents = cents * (112 if minute < 9 * 60 or 16 * 60 <= minute < 19 * 60 else 100) // 100
    cents = cents * (85 + chance.below(31)) // 100
    return Decimal(cents).scaleb(-2)


@dataclass
class _Chance:
    """Repeatable chance: numbers drawn from the digest of a name."""

    name: str
    drawn: int = 0

    def below(self, limit: int) -> int:
        """The next number from 0 to limit - 1."""
        self.drawn += 1
        digest = hashlib.sha256(f"{self.name}#{self.drawn}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % limit
