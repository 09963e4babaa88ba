"""Text as it reads to somebody, whatever characters it was written with: so that rules see through disguises.

Compatibility forms, marks that nobody sees, accents, look-alike letters of other alphabets and base64 are undone. Not
undone are words in other languages, leetspeak, ciphers and words with spaces between their letters.
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_LOOK_ALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u051b\u0475\u04bb\u0261\u0581\u04cf\u043a\u043c\u0442\u043d\u0432"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf\u03b1\u03bd\u03c1\u03b9\u03ba\u03c4\u03c5\u03b5"
    "\u0131\u1d00\u0299\u1d04\u1d05\u1d07\ua730\u0262\u029c\u026a\u1d0a\u1d0b\u029f\u1d0d\u0274\u1d0f\u1d18\u0280\ua731\u1d1b\u1d1c\u1d20\u1d21\u028f\u1d22\u0251\u0578\u057d\u0585",
    "aeopcyxijsdwvhggikmthbabezhikmnoptyxoavpiktueiabcdefghijklmnoprstuvwyzanuo",
)


class _Spaces(dict[int, str | None]):
    """For str.translate: apostrophes go, letters and digits stay, everything else is a space."""

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        self[code] = kept = None if char in "'\u2019\u02bc`" else char if char.isalnum() else " "
        return kept


_SPACES = _Spaces()
_ASCII_SPACES = bytes(code if chr(code).isalnum() else 32 for code in range(128)) + bytes(128)
_APOSTROPHES = b"'`"
_LONG_SHAPE = bytes(119 if chr(code).isalnum() or chr(code) in "+/_-" else 32 for code in range(128)) + bytes(128)
_LONG_SHAPE_OF_ANY = bytes(119 if chr(code) == "?" else kept for code, kept in enumerate(_LONG_SHAPE))
_LONG_RUN = b"w" * 24
_SHAPE = bytes(
    48 if chr(code).isdigit() else 65 if chr(code).isupper() else 97 if chr(code).islower() else code
    for code in range(256)
)
_OTHER_DIGITS = re.compile(r"[^\D0-9]|[^\S\t-\r\x1c-\x1f ]")
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{24,}={0,2}")
MOST_ENCODED = 64
"""Stretches of base64 that are looked into, in one stretch of text."""


@dataclass(frozen=True, slots=True)
class Look:
    """What can be told of a text at a glance, by operations that cost less than any expression.

    `lower` is it `folded`; `shape` has 0 for each of its digits, A and a for letters, ? for what is not ASCII, and is
    empty when it has digits or spaces that are not ASCII; `long` says whether there are 24 letters, digits and signs of
    base64 in a row.
    """

    text: str
    lower: str
    shape: bytes
    long: bool


def look(text: str) -> Look:
    """A glance at a text."""
    ascii_ = text.encode("ascii", "replace")
    if text.isascii():
        return Look(text, text.lower(), ascii_.translate(_SHAPE), _LONG_RUN in ascii_.translate(_LONG_SHAPE))
    shape = b"" if _OTHER_DIGITS.search(text) else ascii_.translate(_SHAPE)
    return Look(text, folded(text), shape, _LONG_RUN in ascii_.translate(_LONG_SHAPE_OF_ANY))


def folded(text: str) -> str:
    """The text in small letters, as expressions that ignore case read it: a long s is an s, a Kelvin sign a k."""
    if text.isascii():
        return text.lower()
    return text.casefold().replace("\u0131", "i").replace("\u0307", "")


def seen(text: str) -> str:
    """The text in small letters of the Latin alphabet as far as it looks like them; its signs are kept."""
    if not text.isascii():
        # Small letters first where that is what look-alikes are listed as.
        text = unicodedata.normalize("NFKD", text).translate(_LOOK_ALIKES).casefold().translate(_LOOK_ALIKES)
        text = "".join(_visible(text))
    return text.lower()


def _visible(text: str) -> Iterator[str]:
    """Its characters but for format characters and marks on others; tag characters are the ASCII they stand for."""
    for char in text:
        if char.isascii():
            yield char
            continue
        code = ord(char)
        if 0xE0020 <= code <= 0xE007E:  # noqa: PLR2004 -- Unicode's tags: ASCII that is not shown
            yield chr(code - 0xE0000).lower()
        elif unicodedata.category(char) not in ("Cf", "Mn", "Me"):
            yield char


def tokens(signs: str) -> list[str]:
    """The words of what `seen` gave."""
    if signs.isascii():
        return signs.encode().translate(_ASCII_SPACES, _APOSTROPHES).decode().split()
    return signs.translate(_SPACES).split()


def encoded(text: str) -> Iterator[str]:
    """Texts that stand in base64 within a text: none in one that is not `long`."""
    for count, match in enumerate(_ENCODED.finditer(text)):
        if count == MOST_ENCODED:
            return
        found = match.group().rstrip("=").translate(str.maketrans("-_", "+/"))
        try:
            plain = base64.b64decode(found + "=" * (-len(found) % 4), validate=True).decode()
        except (binascii.Error, ValueError):
            continue
        if sum(char.isprintable() or char.isspace() for char in plain) == len(plain):
            yield plain
