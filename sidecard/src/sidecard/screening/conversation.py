"""Personal data by a Dapr conversation component's own scrubbing, beside the default screen's findings.

Dapr's Conversation API (alpha2) scrubs a prompt with `scrubPii` before its component has it, and that component's
answer repeats it: so the component must be one that repeats what it is told, such as `conversation.echo`. Where its
answer can't be laid over the text, all of the text counts as personal data.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

import httpx

from sidecard.screening.finding import Direction, Finding, Kind, ScreeningFailed, ScreenUnavailable
from sidecard.screening.screen import Screen, Text

AT_ONCE = 8
TIMEOUT_SECONDS = 5.0
_TAG = re.compile(r"<([A-Z][A-Z_]{1,39})>")
_RULE = "Dapr scrubPii"


class ConversationScreen:
    """What another screen finds, and what the component scrubs. `sidecar` is a client of the own sidecar."""

    def __init__(self, component: str, beside: Screen, sidecar: httpx.AsyncClient) -> None:
        path = f"/v1.0-alpha2/conversation/{quote(component, safe='')}/converse"
        self._url = sidecar.base_url.copy_with(raw_path=path.encode())  # its base is of another version of the API
        self._beside = beside
        self._sidecar = sidecar
        self._some = asyncio.Semaphore(AT_ONCE)

    async def start(self) -> None:
        """See screen.Screen. Scrubs a word, so that an agent whose component is not there is not ready."""
        await self._beside.start()
        await self._scrubbed("hello")

    def clean(self, texts: Sequence[str], packed: Sequence[str] = ()) -> bool:
        """See screen.Screen: only the component can tell, but of nothing."""
        return not any(texts) and not any(packed)

    async def inspect(self, texts: Sequence[Text], direction: Direction) -> list[list[Finding]]:
        """See screen.Screen."""
        found, scrubbed = await asyncio.gather(
            self._beside.inspect(texts, direction), asyncio.gather(*(self._scrubbed(one.text) for one in texts))
        )
        return [
            [*by_rules, *_removed(one.text, after)] for one, by_rules, after in zip(texts, found, scrubbed, strict=True)
        ]

    async def close(self) -> None:
        """See screen.Screen."""
        await self._beside.close()
        await self._sidecar.aclose()

    async def _scrubbed(self, text: str) -> str:
        if not text.strip():
            return text
        prompt = {"messages": [{"ofUser": {"content": [{"text": text}]}}], "scrubPii": True}
        try:
            async with self._some:
                answer = await self._sidecar.post(self._url, json={"inputs": [prompt]}, timeout=TIMEOUT_SECONDS)
        except httpx.HTTPError as error:
            raise ScreenUnavailable(f"the conversation component does not answer ({type(error).__name__})") from error
        if answer.status_code != httpx.codes.OK:
            raise ScreenUnavailable(f"the conversation component answers HTTP {answer.status_code}")
        try:
            scrubbed = answer.json()["outputs"][0]["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            scrubbed = None
        if not isinstance(scrubbed, str):
            raise ScreeningFailed("the conversation component's answer is not of the form that Dapr documents")
        return scrubbed


def _removed(text: str, scrubbed: str) -> Iterator[Finding]:
    """What stands in the text where the scrubbed one has a tag."""
    if scrubbed == text:
        return
    pieces = _TAG.split(scrubbed)  # text, tag, text, tag, …, text
    laid = re.compile("".join(re.escape(piece) if n % 2 == 0 else r"([^\n]{1,400}?)" for n, piece in enumerate(pieces)))
    match = laid.fullmatch(text) if len(pieces) < len(text) and len(pieces) <= 2 * AT_ONCE + 1 else None
    if match is None:
        yield Finding(Kind.PERSONAL, "PERSONAL_DATA", _RULE, 0, len(text))
        return
    for number, tag in enumerate(pieces[1::2], 1):
        start, end = match.span(number)
        if text[start:end] != f"<{tag}>":
            yield Finding(Kind.PERSONAL, tag, _RULE, start, end)
