"""The planner: from a request to a plan, without a model. Pure: the same request and day give the same plan."""

from collections.abc import Sequence
from datetime import date

from agents.days import DayRejected, resolve_day, resolve_past_day
from agents.money import LARGEST, AmountRejected, currency_code
from agents.orchestrator.models import EXAMPLE, MOST_RECEIPTS, Leg, Missing, Receipt, TripPlan, TripRequest
from agents.orchestrator.reading import Reading, read
from agents.orchestrator.receipts import Spent
from agents.orchestrator.tokens import tokens

PASSENGER_LENGTHS = range(2, 101)
LONGEST_PLACE = 80
"""What the flights agent takes; anything else is asked for again."""
LONGEST_TEXT = 5_000
"""Characters of a request that are read. Longer ones are not understood in part: the traveller is told."""
HELP = (
    "No flight to book and no receipt to file was found in this request. "
    f"Say from where to where and when, for whom, and what to file; for example: “{EXAMPLE}”."
)


def plan(request: TripRequest, today: date) -> TripPlan:
    """What the request asks for, with questions for what it leaves out.

    Never fails, whatever the text: a plan that is not `understood` says in `unclear` what to write instead. A day that
    can't be meant becomes a question that says why.
    """
    text = request.text or ""
    if len(text) > LONGEST_TEXT:
        return TripPlan(unclear=[f"The request has {len(text):,} characters; please say it in {LONGEST_TEXT:,}."])
    reading = read(text)
    if len(reading.spent) > MOST_RECEIPTS:
        return TripPlan(unclear=[f"The request has {len(reading.spent)} receipts; file {MOST_RECEIPTS} at a time."])
    missing: list[Missing] = []
    unclear = list(reading.unclear)
    legs = _legs(request, reading, today, missing)
    passenger = request.passenger or reading.passenger
    if legs and len(passenger or "") not in PASSENGER_LENGTHS:
        missing.append(Missing(field="passenger", question="Who flies? Give the passenger's full name."))
    receipts = _receipts(request, reading, today, missing, unclear)
    out = TripPlan(
        legs=legs,
        passenger=passenger if legs else None,
        receipts=receipts,
        budget=request.budget if request.budget is not None else reading.budget,
        card=request.card or reading.card or "company",
        missing=missing,
        unclear=unclear,
    )
    return out if out.understood else out.model_copy(update={"unclear": [*unclear, HELP]})


def _legs(request: TripRequest, reading: Reading, today: date, missing: list[Missing]) -> list[Leg]:
    """The flights. Fields of the request fill or replace those of the first one."""
    asked = [(route.origin, route.destination) for route in reading.routes]
    days = list(reading.days)
    if not asked and (request.origin or request.destination):
        asked, days = [(None, None)], [None]
    if not asked:
        return []
    asked[0] = (request.origin or asked[0][0], request.destination or asked[0][1])
    days[0] = request.day or days[0]
    legs: list[Leg] = []
    for (start, end), text in zip(asked, days, strict=True):
        origin, destination = _place(start), _place(end)
        if not origin:
            missing.append(Missing(field="origin", question="From where? Give a city or an airport."))
        if not destination:
            missing.append(Missing(field="destination", question="To where? Give a city or an airport."))
        not_before = legs[-1].day if legs and legs[-1].day else today
        route = f" from {origin} to {destination}" if origin and destination else ""
        day = _day(text, not_before, "day", f"On which day is the flight{route}?", missing)
        legs.append(Leg(origin=origin, destination=destination, day=day))
    back = request.return_day or reading.return_day
    if back or (reading.returns and len(legs) == 1):
        day = _day(back, legs[0].day or today, "return_day", "On which day is the flight back?", missing)
        legs.append(Leg(origin=legs[-1].destination, destination=legs[0].origin, day=day))
    return legs


def _place(words: str | None) -> str | None:
    return words if words and len(words) <= LONGEST_PLACE else None


def _day(text: str | None, today: date, field: str, question: str, missing: list[Missing]) -> date | None:
    """The day, or None and a question."""
    try:
        if text:
            return resolve_day(text, today)
    except DayRejected as rejected:
        question = f"{rejected} {question}"
    missing.append(Missing.model_validate({"field": field, "question": question}))
    return None


def _receipts(
    request: TripRequest, reading: Reading, today: date, missing: list[Missing], unclear: list[str]
) -> list[Receipt]:
    """The receipts, each with an amount and a vendor or a question for it."""
    if request.receipts is not None:
        receipts = list(request.receipts)
    else:
        receipts = [_receipt(spent, today, unclear) for spent in reading.spent]
    return [_complete(receipt, request, missing) for receipt in receipts]


def _receipt(spent: Spent, today: date, unclear: list[str]) -> Receipt:
    day = None
    try:
        day = resolve_past_day(spent.day, today) if spent.day else None
    except DayRejected as rejected:
        unclear.append(f"The receipt's day was left out: {rejected}")
    vendor = spent.vendor[:120] if spent.vendor else None
    return Receipt(amount=spent.amount, currency=spent.currency, vendor=vendor, category=spent.category, spent_on=day)


def _complete(receipt: Receipt, request: TripRequest, missing: list[Missing]) -> Receipt:
    """The receipt with what the request's own fields add; a question for what is still missing."""
    kind = receipt.category if receipt.category != "other" else "file"
    if receipt.amount is not None and receipt.amount > LARGEST:
        receipt = receipt.model_copy(update={"amount": None})
    changes: dict[str, object] = {}
    try:
        changes["currency"] = currency_code(receipt.currency)
    except AmountRejected as rejected:
        missing.append(Missing(field="amount", question=f"{rejected} How much was the receipt, in one of these?"))
    if receipt.amount is None or "currency" not in changes:
        changes |= _amount(request.amount)
    if receipt.vendor is None and request.vendor:
        changes["vendor"] = request.vendor
    receipt = receipt.model_copy(update=changes)
    if receipt.amount is None:
        missing.append(Missing(field="amount", question=f"How much is the {kind} receipt? For example 180 EUR."))
    if receipt.vendor is None:
        what = f"{receipt.amount} {receipt.currency}" if receipt.amount is not None else kind
        missing.append(Missing(field="vendor", question=f"Who issued the {what} receipt?"))
    return receipt


def _amount(text: str | None) -> dict[str, object]:
    """Amount and currency in an answer like "180 EUR" or "180"."""
    pieces: Sequence[str] = [text or "", f"{text} EUR"]
    for piece in pieces if text else []:
        for token in tokens(piece):
            if token.kind == "money":
                return {"amount": token.amount, "currency": token.currency}
    return {}
