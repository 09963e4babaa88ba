"""The words a request is read by."""

from agents.orchestrator.models import Category


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TRAVEL = _words("fly flying flight flights travel travelling traveling trip ticket tickets plane go going")
FLIGHT = _words("flight flights fly flying")
ASKS = _words("book find get need want fly reserve")
RECEIPT = _words("receipt receipts expense expenses invoice invoices bill bills claim reimbursement")
SPENDING = RECEIPT | _words("file submit reimburse paid pay spent refund charged cost")
BUDGET = _words("budget max maximum limit cap under below within most exceed exceeding ceiling")
BUDGET_PAIRS = frozenset({("up", "to"), ("more", "than"), ("less", "than")})
RETURN = _words("return returning round-trip roundtrip back")
STOPS = _words(
    "a an on for and or at by in next this my our your with please then via around about under over i we me us he she "
    "it book file find get leaving departing departure return returning back coming one round from to of is are was be "
    "flight flights train passenger traveller traveler budget receipt receipts but if when that which as also so "
    "thanks thank using within before after until submit claim early morning afternoon evening night"
)
"""Words that end a place, a name or a vendor."""
PARTICLES = _words("de da do dos das del della der den di du van von la le al el bin ibn ben of y e")
"""Words in lower case within a person's name."""
CATEGORIES: dict[str, Category] = {
    **dict.fromkeys(_words("hotel hotels lodging accommodation hostel room airbnb"), "hotel"),
    **dict.fromkeys(_words("flight airline airfare plane"), "flight"),
    **dict.fromkeys(_words("train rail railway metro"), "train"),
    **dict.fromkeys(_words("taxi cab uber bolt ride transfer"), "taxi"),
    **dict.fromkeys(_words("meal meals dinner lunch breakfast restaurant food coffee"), "meal"),
    **dict.fromkeys(_words("conference registration seminar workshop"), "conference"),
}
DASHES = frozenset("-\u2013\u2014")
