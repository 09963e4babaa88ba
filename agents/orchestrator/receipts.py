"""Reads amounts of money in a request: receipts to file, and the budget."""

from dataclasses import dataclass
from decimal import Decimal

from agents.money import AmountRejected, parse_amount, to_eur
from agents.orchestrator.models import Category
from agents.orchestrator.sentence import LONGEST_NAME, NEAR, Sentence
from agents.orchestrator.vocabulary import BUDGET, BUDGET_PAIRS, CATEGORIES, RECEIPT, SPENDING, STOPS, TRAVEL


@dataclass(frozen=True)
class Spent:
    """A receipt as it is written. `at` is its amount's token; None if it has no amount."""

    at: int | None
    amount: Decimal | None
    currency: str
    vendor: str | None
    category: Category
    day: str | None


class Receipts(Sentence):
    """A sentence whose amounts are read."""

    def _budget(self, unclear: list[str]) -> Decimal | None:
        found: list[tuple[int, Decimal]] = []
        for at, token in enumerate(self.tokens):
            if token.amount is not None and self._is_budget(at):
                self.taken.add(at)
                found.append((at, to_eur(token.amount, token.currency)))
            elif token.low == "budget" and (bare := self._bare_number(at)):
                found.append((at, bare))
        if len(found) > 1:
            unclear.append(f"Several budgets are named; the first counts: {found[0][1]} EUR.")
        return found[0][1] if found else None

    def _is_budget(self, at: int) -> bool:
        before = []
        for there in range(at - 1, max(at - NEAR, -1), -1):
            if self.tokens[there].kind == "money" or self.lows[there] in RECEIPT:
                break
            before.append(self.lows[there])
        pairs = set(zip(before[1:], before, strict=False))
        return bool(BUDGET & {*before, self._low(at + 1)}) or bool(BUDGET_PAIRS & pairs)

    def _bare_number(self, at: int) -> Decimal | None:
        """The amount in "budget 900", "a budget of about 900": euros."""
        for there in range(at + 1, min(at + 4, len(self.tokens))):
            if self._kind(there) == "money":
                return None
            if self._kind(there) == "word" and self.lows[there][:1].isdigit():
                try:
                    return parse_amount(self.lows[there])
                except AmountRejected:
                    return None
        return None

    def _receipts(self, unclear: list[str]) -> list[Spent]:
        sums = [at for at, one in enumerate(self.tokens) if one.kind == "money" and at not in self.taken]
        if not any(low in SPENDING for low in self.lows):
            unclear.extend(
                f"What is the {self.tokens[at].text} for? Say “file the … receipt from …” or “budget …”." for at in sums
            )
            return []
        edges = [at for at, one in enumerate(self.tokens) if one.kind == "money"]
        spent = []
        for at in sums:
            since = max((edge + 1 for edge in edges if edge < at), default=0)
            until = min((edge for edge in edges if edge > at), default=len(self.tokens))
            token = self.tokens[at]
            day = self._receipt_day(at, until)
            vendor = self._vendor_before(at, since) or self._vendor_after(at, until)
            spent.append(Spent(at, token.amount, token.currency, vendor, self._category(at, since, until, vendor), day))
        return spent or self._receipt_without_amount()

    def _receipt_without_amount(self) -> list[Spent]:
        for at, low in enumerate(self.lows):
            if low in RECEIPT - {"claim"}:
                end = len(self.tokens)
                vendor = self._vendor_after(at, end)
                category = self._category(at, 0, end, vendor)
                return [Spent(None, None, "EUR", vendor, category, self._receipt_day(at, end))]
        return []

    def _receipt_day(self, at: int, until: int) -> str | None:
        there = next(
            (there for there in range(at, until) if self._kind(there) == "day" and there not in self.taken), None
        )
        return self.tokens[there].text if there is not None else None

    def _vendor_after(self, at: int, until: int) -> str | None:
        for there in range(at + 1, until):
            says = self.lows[there] in {"from", "at", "by", "with", "to"} and there not in self.taken
            if says and (vendor := self._vendor(there + 1, until)):
                return vendor
        return None

    def _vendor_before(self, at: int, since: int) -> str | None:
        """A vendor that stands right before its amount: "from Hotel Avenida for 180 EUR", "Hotel Avenida, 180 EUR"."""
        end = at
        while end > since and (self._kind(end - 1) == "stop" or self.lows[end - 1] in {"for", "of", "is", "was"}):
            end -= 1
        for there in range(end - 1, max(end - NEAR - 1, since - 1), -1):
            if self.lows[there] in {"from", "at", "by", "with"} and there not in self.taken:
                vendor = self._vendor(there + 1, end)
                return vendor if vendor and there + 1 + len(vendor.split()) >= end else None
        start = end
        while start > since and self._kind(start - 1) == "word" and self.tokens[start - 1].text[:1].isupper():
            start -= 1
        named = [one.text for one in self.tokens[start:end] if one.low not in SPENDING | STOPS]
        return " ".join(named) if named and start not in self.taken else None

    def _vendor(self, at: int, until: int) -> str | None:
        words: list[str] = []
        for there in range(at, min(at + LONGEST_NAME + 1, until)):
            token = self.tokens[there]
            joins = token.low in {"and", "of", "&"} and bool(words) and self._continues_name(there)
            if token.kind != "word" or (token.low in STOPS | {"dated"} and not joins):
                break
            words.append(token.text)
        if words and words[0].casefold() == "the" and len(words) > 1 and not words[1][:1].isupper():
            return None
        return " ".join(words) or None

    def _continues_name(self, at: int) -> bool:
        """Whether "and" joins a vendor's name, as in Marks and Spencer: a capital follows, and no new request."""
        low = self._low(at + 1)
        return (
            self._kind(at + 1) == "word"
            and self.tokens[at + 1].text[:1].isupper()
            and low not in STOPS | SPENDING | TRAVEL
        )

    def _category(self, at: int, since: int, until: int, vendor: str | None) -> Category:
        """The category that the vendor's name tells, else the one whose word stands nearest to the amount."""
        for word in (vendor or "").casefold().split():
            if word in CATEGORIES:
                return CATEGORIES[word]
        near = [there for there in range(max(since, at - 8), min(until, at + 9)) if self.lows[there] in CATEGORIES]
        near = [there for there in near if there not in self.taken and not self._asks_for_flight(there)]
        return CATEGORIES[self.lows[min(near, key=lambda there: (abs(there - at), there < at))]] if near else "other"

    def _asks_for_flight(self, at: int) -> bool:
        """Whether a "flight" is one to book, not one that was paid for."""
        followed = {self._low(at + 1), self._low(at + 2)} & RECEIPT
        return self.lows[at] == "flight" and not followed
