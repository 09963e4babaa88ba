"""A request as tokens, with a note of those that mean one thing already."""

from collections.abc import Sequence

from agents.orchestrator.tokens import Token
from agents.orchestrator.vocabulary import TRAVEL

LONGEST_NAME = 6
"""Words of a place, a person's or a vendor's name."""
NEAR = 6
"""Words: how far apart what belongs together stands."""


class Sentence:
    """The tokens of a request. `lows` are its words in lower case, empty for other tokens."""

    def __init__(self, pieces: Sequence[Token]) -> None:
        self.tokens = pieces
        self.lows = [one.low if one.kind == "word" else "" for one in pieces]
        self.taken: set[int] = set()

    def is_travel(self) -> bool:
        """Whether somebody wants to go somewhere."""
        return any(low in TRAVEL or low == "book" for low in self.lows)

    def _run(self, at: int, longest: int, stops: frozenset[str]) -> list[str]:
        """The words from a token on, up to a stop."""
        words: list[str] = []
        for token in self.tokens[at : at + longest]:
            if token.kind != "word" or token.text.casefold() in stops:
                break
            words.append(token.text)
        return words

    def _low(self, at: int) -> str:
        return self.lows[at] if 0 <= at < len(self.lows) else ""

    def _kind(self, at: int) -> str:
        return self.tokens[at].kind if 0 <= at < len(self.tokens) else ""
