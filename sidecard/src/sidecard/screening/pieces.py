"""A text that is given out in pieces, as it is made: which of it may go already, and what is held for the next piece.

What was given out can't be taken back, so nothing goes that may be the beginning of something: the last word until it
is at its end, numbers until something else follows, and a key block until it is closed. All of it is looked at in the
light of what went before, so that a name and its value, or the words of an injection, count together wherever they are
cut. What is held depends on the text alone: a run that is repeated, or replayed, holds the same.
"""

import re

BEFORE = 128
"""Characters of what has gone that the next ones are looked at with: names of values, and words of injections."""
NUMBERS = 64
"""Characters of numbers and what stands between them that are held: an account's number takes 42."""
WORD = 2_048
"""Characters of a word that are held: a token is one. Of a longer one all but its end goes."""
KEY_BLOCK = 8_192
_NUMBERS = re.compile(r"(?:[^\s\d]{0,24}\d\S{0,40}\s{1,3}|[(+\-]\s)+\Z")
_BEGIN, _END = "-----BEGIN ", "-----END "


class Pieces:
    """One artifact's text. `told` says whether it was found to be an injection: once is enough."""

    def __init__(self) -> None:
        self.told = False
        self._gone = ""
        self._held = ""

    def take(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        """The end of what has gone, and what may go now with this piece: all of it with the `last` one."""
        text = self._held + piece
        at = len(text) if last else _held_from(text)
        before, goes, self._held = self._gone, text[:at], text[at:]
        self._gone = (before + goes)[-BEFORE:]
        return before, goes

    @property
    def holds(self) -> bool:
        """Whether anything is held."""
        return bool(self._held)


def _held_from(text: str) -> int:
    """Where in a text that begins which may go on in the next piece."""
    begin = text.rfind(_BEGIN)
    if begin >= 0 and len(text) - begin <= KEY_BLOCK and not _closed(text, begin):
        return begin
    start = len(text)
    while start and not text[start - 1].isspace() and len(text) - start <= WORD:
        start -= 1
    if len(text) - start > WORD:
        return len(text) - BEFORE
    numbers = _NUMBERS.search(text[max(0, start - NUMBERS) : start])
    return start - (numbers.end() - numbers.start()) if numbers else start


def _closed(text: str, begin: int) -> bool:
    end = text.find(_END, begin)
    return end >= 0 and text.find("-----", end + len(_END)) >= 0
