"""Personal data by the scrubbing of Dapr's Conversation API, beside the default screen's findings.

With `scrubPii` a sidecar scrubs a prompt before its conversation component has it (alpha2 of the API; met as daprd 1.18
does it), and the component's answer repeats it: so it must be one that repeats what it is told, `conversation.echo`.
That is tried out at start. Where its answer can't be laid over the text, all of the text counts as personal data.

daprd 1.18 takes any four digits for a telephone number, leaves links as they are, and takes 2 ms for a short text and
3 s for a megabyte. Behind findings that overlap it finds nothing more: so it is asked until nothing is left to find.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from urllib.parse import quote

import httpx

from sidecard.errors import ConfigurationError
from sidecard.screening.finding import Direction, Finding, Kind, ScreeningFailed, ScreenUnavailable
from sidecard.screening.screen import Screen, Text

AT_ONCE = 8
SECONDS = 5.0
SECONDS_PER_MEGABYTE = 8.0
MOST_ROUNDS = 8
"""Of asking about the same text; one that needs more is all personal data."""
MOST_TEXTS = 1_000
"""Different ones, of a message."""
_MEGABYTE = 1_000_000
_SAMPLE, _SCRUBBED = "write to ada@example.org", "write to <EMAIL_ADDRESS>"
_TAG = re.compile(r"<([A-Z][A-Z0-9_]{1,39})>")
_NAMES = {"IP": "IP_ADDRESS", "IBAN": "IBAN_CODE"}
"""What policies call what Dapr calls otherwise than the default screen."""
_ANYTHING = "PERSONAL_DATA"
_RULE = "Dapr scrubPii"


class ConversationScreen:
    """What another screen finds, and what the component scrubs. `sidecar` is a client of the own sidecar."""

    def __init__(self, component: str, beside: Screen, sidecar: httpx.AsyncClient) -> None:
        path = f"/v1.0-alpha2/conversation/{quote(component, safe='')}/converse"
        self._url = sidecar.base_url.copy_with(raw_path=path.encode())  # its base is of another version of the API
        self._component = component
        self._beside = beside
        self._sidecar = sidecar
        self._some = asyncio.Semaphore(AT_ONCE)

    async def start(self) -> None:
        """See screen.Screen. Tries the component out. Raises ConfigurationError for one that can't serve for this."""
        await self._beside.start()
        name = self._component
        try:
            after = await self._scrubbed(_SAMPLE)
        except ScreenUnavailable as error:
            raise ScreenUnavailable(
                f"{error}; SIDECARD_SCREEN names it: it takes a component {name!r} of type conversation.echo among the "
                "sidecar's resources, scoped to this app, and a daprd that has that type (its stable build has not)"
            ) from error
        if after != _SCRUBBED:
            raise ConfigurationError(
                f"the conversation component {name!r} of SIDECARD_SCREEN does not give back an e-mail address as "
                "<EMAIL_ADDRESS> and all else as it was: use one of type conversation.echo, with daprd 1.16 or later"
            )

    def clean(self, texts: Sequence[str], packed: Sequence[str] = ()) -> bool:
        """See screen.Screen: only the component can tell, but of nothing."""
        return not any(texts) and not any(packed)

    async def inspect(self, texts: Sequence[Text], direction: Direction) -> list[list[Finding]]:
        """See screen.Screen."""
        found = await self._beside.inspect(texts, direction)
        distinct = list(dict.fromkeys(one.text for one in texts))
        if len(distinct) > MOST_TEXTS:
            raise ScreeningFailed(f"more than {MOST_TEXTS} strings are in it; send less at once")
        scrubbed: dict[str, str] = {}
        for start in range(0, len(distinct), AT_ONCE):  # no more than these go on when one of them fails
            some = distinct[start : start + AT_ONCE]
            scrubbed |= zip(some, await asyncio.gather(*map(self._scrubbed, some)), strict=True)
        return [
            [*by_rules, *_removed(one.text, scrubbed[one.text])] for one, by_rules in zip(texts, found, strict=True)
        ]

    async def close(self) -> None:
        """See screen.Screen."""
        await self._beside.close()
        await self._sidecar.aclose()

    async def _scrubbed(self, text: str) -> str:
        if not text.strip():
            return text
        seconds = SECONDS + SECONDS_PER_MEGABYTE * len(text) / _MEGABYTE
        try:
            async with self._some, asyncio.timeout(seconds):
                for _ in range(MOST_ROUNDS):
                    before, text = text, await self._converse(text)
                    if text == before:
                        return text
        except TimeoutError:
            raise ScreenUnavailable(f"{self._named} takes more than {seconds:.0f} seconds") from None
        return f"<{_ANYTHING}>"

    async def _converse(self, text: str) -> str:
        prompt = {"messages": [{"ofUser": {"content": [{"text": text}]}}], "scrubPii": True}
        try:
            answer = await self._sidecar.post(self._url, json={"inputs": [prompt]}, timeout=None)
        except httpx.HTTPError as error:
            raise ScreenUnavailable(f"{self._named} does not answer ({type(error).__name__})") from error
        if answer.status_code != httpx.codes.OK:
            code = _error_code(answer)
            if code == "ERR_BODY_READ":
                raise ScreeningFailed("a text in it is longer than the sidecar reads; send less at once")
            raise ScreenUnavailable(f"{self._named} answers HTTP {answer.status_code} {code}".rstrip())
        try:
            scrubbed = answer.json()["outputs"][0]["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            scrubbed = None
        if not isinstance(scrubbed, str):
            raise ScreeningFailed(f"{self._named} answers in another form than daprd 1.18 does")
        return scrubbed

    @property
    def _named(self) -> str:
        return f"the conversation component {self._component!r}"


def _error_code(answer: httpx.Response) -> str:
    """Dapr's own, such as ERR_CONVERSATION_NOT_FOUND; never its message, which may repeat what it was told."""
    try:
        code = str(answer.json()["errorCode"])
    except (ValueError, LookupError, TypeError):
        return ""
    return code if re.fullmatch(r"[A-Z_]{1,60}", code) else ""


def _removed(text: str, scrubbed: str) -> Iterator[Finding]:
    """What stands in the text where the scrubbed one has a tag.

    Whatever is none of it is what the sidecar let pass, letter by letter. Where it can be laid over the text in several
    ways, nobody knows which part is what: it is named as its tags are if all of them are the same.
    """
    if scrubbed == text:
        return
    pieces = _TAG.split(scrubbed)  # text, tag, text, tag, …, text
    kept, tags = pieces[::2], pieces[1::2]
    spans = _laid(text, kept)
    if spans is None:
        yield Finding(Kind.PERSONAL, _ANYTHING, _RULE, 0, len(text))
        return
    backwards = _laid(text[::-1], [piece[::-1] for piece in reversed(kept)]) or []
    lasts = [(len(text) - end, len(text) - start) for start, end in reversed(backwards)]
    for sure, run in groupby(zip(spans, lasts, tags, strict=True), lambda one: one[0] == one[1]):
        stretch = list(run)
        names = {tag for _, _, tag in stretch}
        for (start, end), _, tag in stretch:
            if not sure or text[start:end] != f"<{tag}>":  # which somebody wrote
                name = _NAMES.get(tag, tag) if sure or len(names) == 1 else _ANYTHING
                yield Finding(Kind.PERSONAL, name, _RULE, start, end)


def _laid(text: str, kept: Sequence[str]) -> list[tuple[int, int]] | None:
    """What stands in the text between the pieces of it that were kept, each taken as early as can be; None if nowhere.

    If they can be found in this order at all, they are: it takes no second try, however the text was made.
    """
    first, *others = kept
    if not others or not text.startswith(first):
        return None
    spans, at = [], len(first)
    for piece in others[:-1]:
        found = text.find(piece, at + 1)
        if found < 0:
            return None
        spans.append((at, found))
        at = found + len(piece)
    end = len(text) - len(others[-1])
    if end <= at or not text.endswith(others[-1]):
        return None
    return [*spans, (at, end)]
