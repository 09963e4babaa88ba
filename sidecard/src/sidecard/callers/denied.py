"""Who is revoked, as far as this process has heard: asked for every request, and told to those who still serve one."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

from pydantic import AfterValidator

KEY_DIGITS = 16
"""Hexadecimal digits of the SHA-256 of an API key that name it."""
_FORMS = {
    "caller": re.compile(r"[^\s:][^\s]{0,255}"),
    "app": re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"),
    "key": re.compile(r"[0-9a-f]{16,64}"),
    "client": re.compile(r"\S{1,256}"),
    "token": re.compile(r"\S{1,256}"),
    "certificate": re.compile(r"[0-9a-f]{64}"),
}
_HEXADECIMAL = {"key", "certificate"}
FORMS = (
    "a caller's name, app:<app-id>, key:<the first 16 hexadecimal digits of its SHA-256>, client:<client id>, "
    "token:<its jti> or certificate:<SHA-256 thumbprint>"
)


def mark_of(said: str) -> str:
    """What is meant in the form that callers are marked with; a name alone is a caller's. Raises ValueError."""
    kind, colon, name = said.partition(":")
    if not colon:
        kind, name = "caller", said
    if kind in _HEXADECIMAL:
        name = name.replace(":", "").lower()
    if kind not in _FORMS or not name.isprintable() or not _FORMS[kind].fullmatch(name):
        raise ValueError(f"name who is meant by {FORMS}")
    return f"{kind}:{name[:KEY_DIGITS] if kind == 'key' else name}"


Mark = Annotated[str, AfterValidator(mark_of)]
"""One way of being known that can be revoked, such as `caller:manager` or `app:flights`."""


class Denied:
    """The marks that are revoked now. Nobody is, until `become` is called; `heard` says whether it was."""

    def __init__(self) -> None:
        self.heard = False
        self._marks: frozenset[str] = frozenset()
        self._served: dict[Callable[[], None], tuple[str, ...]] = {}

    def covers(self, marks: Iterable[str]) -> bool:
        """Whether one of these is revoked."""
        return bool(self._marks) and not self._marks.isdisjoint(marks)

    def become(self, marks: Iterable[str]) -> None:
        """Replace what is revoked, and stop what is served to those who are by now."""
        self._marks, self.heard = frozenset(marks), True
        for stop, served in list(self._served.items()):
            if self.covers(served):
                stop()

    @contextlib.contextmanager
    def stopping(self, marks: tuple[str, ...], stop: Callable[[], None]) -> Iterator[None]:
        """Within it `stop` is called once these are revoked; at once, when they are already."""
        if self.covers(marks):
            stop()
        self._served[stop] = marks
        try:
            yield
        finally:
            del self._served[stop]
