"""Reads a request in plain English by a small grammar over tokens: here its routes, days and people."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from agents.orchestrator.gazetteer import is_city, is_place
from agents.orchestrator.payment import Card, split_card
from agents.orchestrator.receipts import Receipts, Spent
from agents.orchestrator.sentence import LONGEST_NAME, NEAR
from agents.orchestrator.tokens import tokens
from agents.orchestrator.vocabulary import (
    ASKS,
    DASHES,
    FLIGHT,
    PARTICLES,
    RECEIPT,
    RETURN,
    STOPS,
    TRAVEL,
)


@dataclass(frozen=True)
class Route:
    """A flight as it is written: words for the places and the tokens [start, end) it stands in."""

    origin: str | None
    destination: str | None
    start: int
    end: int


@dataclass
class Reading:
    """What a text says, before dates are resolved and gaps are named."""

    routes: list[Route] = field(default_factory=list)
    days: list[str | None] = field(default_factory=list)
    """Day of each route."""
    returns: bool = False
    return_day: str | None = None
    passenger: str | None = None
    spent: list[Spent] = field(default_factory=list)
    budget: Decimal | None = None
    card: Card | None = None
    unclear: list[str] = field(default_factory=list)


def read(text: str) -> Reading:
    """Reads a text of bounded length. Never fails; what is not understood is absent."""
    card, text = split_card(text)
    out = _Reader(tokens(text)).reading()
    out.card = card
    return out


class _Reader(Receipts):
    def reading(self) -> Reading:
        out = Reading(routes=self._routes())
        out.budget = self._budget(out.unclear)
        self._return(out)
        out.days = [self._day_of(out.routes, number) for number in range(len(out.routes))]
        out.passenger = self._passenger(out) if out.routes else None
        out.spent = self._receipts(out.unclear)
        return out

    # Routes

    def _routes(self) -> list[Route]:
        found: list[Route] = []
        for at, low in enumerate(self.lows):
            if at in self.taken:
                continue
            dash = self.tokens[at].text in DASHES
            route = self._route_at(at, is_dash=dash) if low == "to" or dash else self._pair_at(at)
            if route:
                found.append(route)
                self.taken.update(range(route.start, route.end))
        if not found:
            found = self._departure_only()
        return found

    def _route_at(self, to: int, *, is_dash: bool) -> Route | None:
        """The route around the word "to": from A to B, A to B, to B from A, fly to B; around a dash, between cities."""
        destination, end = self._place_after(to + 1)
        if not destination:
            return None
        origin, start = self._place_before(to)
        if not origin:
            follows = next((at for at in range(end, min(end + 4, len(self.lows))) if self.lows[at] == "from"), None)
            if follows is not None and all(
                self.tokens[at].kind == "day" or self.lows[at] == "on" for at in range(end, follows)
            ):
                origin, end_of_origin = self._place_after(follows + 1)
                end = end_of_origin if origin else end
        sure = bool(origin) and is_city(origin or "") and is_city(destination)
        named = bool(origin) or is_place(destination) or self._low(to - 1) in TRAVEL
        spoken = self.is_travel() and named
        return Route(origin, destination, start, end) if sure or (spoken and not is_dash) else None

    def _pair_at(self, at: int) -> Route | None:
        """LHR-LIS, London-Lisbon."""
        origin, _, destination = self.tokens[at].text.partition("-")
        return Route(origin, destination, at, at + 1) if is_city(origin) and is_city(destination) else None

    def _departure_only(self) -> list[Route]:
        """A flight is wanted and only its origin, or nothing, is said: book a flight from London."""
        if not any(low in FLIGHT for low in self.lows):
            return []
        for at, low in enumerate(self.lows):
            place, end = self._place_after(at + 1) if low == "from" else (None, at)
            if place and is_place(place):
                self.taken.update(range(at, end))
                return [Route(place, None, at, end)]
        at = next(at for at, low in enumerate(self.lows) if low in FLIGHT)
        asks = any(low in ASKS for low in self.lows)
        return [Route(None, None, at, at + 1)] if asks else []

    def _place_after(self, at: int) -> tuple[str | None, int]:
        """The place that begins at a token, and where it ends."""
        words = self._run(at, LONGEST_NAME, STOPS | TRAVEL)
        for length in range(len(words), 0, -1):
            if is_place(" ".join(words[:length])):
                return " ".join(words[:length]), at + length
        if not words or words[0].casefold() == "the" or len(words) > LONGEST_NAME - 2:
            return None, at
        return " ".join(words), at + len(words)

    def _place_before(self, to: int) -> tuple[str | None, int]:
        """The place that ends before the word "to", and where it begins."""
        for at in range(to - 1, max(to - NEAR - 2, -1), -1):
            if self.lows[at] == "from":
                place, _ = self._place_after(at + 1)
                return place, at
        for at in range(max(to - 4, 0), to):
            words = self._run(at, to - at, frozenset())
            if len(words) == to - at and is_city(" ".join(words)):
                return " ".join(words), at
        return None, to

    # Days

    def _return(self, out: Reading) -> None:
        """Marks a return trip, with the day that follows the word."""
        for at, low in enumerate(self.lows):
            is_round = low == "round" and self._low(at + 1) == "trip"
            if len(out.routes) != 1 or not (low in RETURN or is_round):
                continue
            near = range(at + 1, min(at + NEAR, len(self.tokens)))
            day = next((there for there in near if self.tokens[there].kind == "day"), None)
            says_how = low != "back" or day is not None
            only_kind = is_round or "-" in low or self._low(at + 1) in {"flight", "trip", "ticket"}
            if says_how and not only_kind and day is not None and day not in self.taken:
                self.taken.add(day)
                out.return_day = self.tokens[day].text
            out.returns = out.returns or says_how
        if out.returns and out.return_day is None:
            out.return_day = self._second_of_two_days()

    def _second_of_two_days(self) -> str | None:
        """The 10 March of "3 March to 10 March"."""
        for at in range(1, len(self.tokens) - 1):
            joins = self.lows[at] in {"to", "until", "till"} or self.tokens[at].text in DASHES
            if joins and self._kind(at - 1) == "day" == self._kind(at + 1):
                self.taken.add(at + 1)
                return self.tokens[at + 1].text
        return None

    def _day_of(self, routes: Sequence[Route], number: int) -> str | None:
        """The day of a route: the next one after it, else the last before it, no amount between; else the only one."""
        route = routes[number]
        until = routes[number + 1].start if number + 1 < len(routes) else len(self.tokens)
        since = routes[number - 1].end if number else 0
        within = range(route.start, route.end)
        for places in (within, range(route.end, until), range(route.start - 1, since - 1, -1)):
            for at in places:
                if self.tokens[at].kind == "money" or self.lows[at] in RECEIPT:
                    break
                if self.tokens[at].kind == "day" and (at not in self.taken or at in within):
                    self.taken.add(at)
                    return self.tokens[at].text
        days = [at for at, one in enumerate(self.tokens) if one.kind == "day" and at not in self.taken]
        if len(days) == 1 and len(routes) == 1 and self._low(days[0] - 1) not in {"dated", "of", "from"}:
            self.taken.add(days[0])
            return self.tokens[days[0]].text
        return None

    # People

    def _passenger(self, out: Reading) -> str | None:
        for at, low in enumerate(self.lows):
            if low in {"passenger", "traveller", "traveler", "passengers"}:
                begin = at + 1
                while self._low(begin) in {"is", "name", "named", "called", ""} and begin - at < NEAR:
                    begin += 1
                if name := self._name(begin, any_case=True):
                    return name
        for at, low in enumerate(self.lows):
            spends = any(
                self.lows[there] in RECEIPT or self.tokens[there].kind == "money" for there in range(max(at - 3, 0), at)
            )
            begin = at + 2 if self._low(at + 1) in {"me", "myself"} and self._kind(at + 2) == "word" else at + 1
            name = self._name(begin) if low == "for" and at not in self.taken and not spends else None
            if name and (out.routes[0].destination or not is_city(name)):
                self._others(at + 1 + len(name.split()), out.unclear)
                return name
            name = self._name(at + 1) if low in {"book", "fly", "get"} else None
            follows = self._low(at + 1 + len(name.split())) if name else ""
            if name and follows in {"a", "an", "on", "onto", "from", "the"} and not is_place(name):
                return name
            if low in {"needs", "wants", "must", "flies", "travels", "is"} and (name := self._name_before(at)):
                return name
        return None

    def _name(self, at: int, *, any_case: bool = False) -> str | None:
        """A person's name that begins at a token: capitalised words, with particles between."""
        words: list[str] = []
        for token in self.tokens[at : at + LONGEST_NAME] if at >= 0 else []:
            particle = bool(words) and token.low in PARTICLES
            fits = token.text[:1].isupper() or any_case or particle
            if token.kind != "word" or not fits or not _is_name(token.text) or (token.low in STOPS and not particle):
                break
            words.append(token.text)
        while words and words[-1].casefold() in PARTICLES:
            words.pop()
        return " ".join(words) or None

    def _name_before(self, at: int) -> str | None:
        start = at
        while start > 0 and self._kind(start - 1) == "word" and self.tokens[start - 1].text[:1].isupper():
            start -= 1
        name = self._name(start)
        return name if name and len(name.split()) in {2, 3, 4} and len(name.split()) == at - start else None

    def _others(self, at: int, unclear: list[str]) -> None:
        other = self._name(at + 1) if self._low(at) == "and" else None
        if other and len(other.split()) > 1:
            unclear.append(f"One request books for one passenger; ask again for {other}.")


def _is_name(word: str) -> bool:
    return all(char.isalpha() or char in "-'\u2019." for char in word)
