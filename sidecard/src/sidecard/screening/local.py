"""The default screen: maintained recognisers and published rules, in this process, without network or model."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from sidecard.screening import personal, plain, secret
from sidecard.screening.finding import Direction, Finding, Kind, ScreeningFailed
from sidecard.screening.injection import Injection
from sidecard.screening.personal import PersonalData
from sidecard.screening.screen import Text
from sidecard.screening.secret import Secrets

AT_ONCE = 2_048
"""Characters that are inspected on the event loop; more go to a thread, in stretches, so that others are served."""
PROVED_AT_ONCE = 8_192
STRETCH = 32_768
OVERLAP = 8_192
"""Characters that two neighbouring stretches share, so that nothing is cut in two: a private key has 3,000."""
SECONDS_PER_MEGABYTE = 4.0
"""Of a thread's own time; a text that takes longer was made for that, and is refused."""
LEAST_SECONDS = 1.0
MOST_FINDINGS = 20_000
_MEGABYTE = 1_000_000
_SHORT = 256
_REMEMBERED = 2_048
"""Short strings, such as names of artifacts and words said again and again, that are remembered to be clean."""


class LocalScreen:
    """Presidio's and detect-secrets' recognisers and injection.yaml."""

    def __init__(self) -> None:
        self._found: _Recognisers | None = None
        self._loading: asyncio.Task[_Recognisers] | None = None
        self._one = asyncio.Semaphore(1)

    async def start(self) -> None:
        """See screen.Screen. Loads the recognisers in a thread: a third of a second of work, once."""
        if self._found is None:
            self._found = await asyncio.to_thread(_Recognisers)

    def clean(self, texts: Sequence[str], packed: Sequence[str] = ()) -> bool:
        """See screen.Screen."""
        if self._found is None:
            raise ScreeningFailed("this agent is starting: what it screens messages with is not loaded yet")
        if sum(map(len, texts)) + sum(map(len, packed)) > PROVED_AT_ONCE:
            return False
        return all(map(self._found.is_clean, texts)) and all(map(self._found.is_clean_packed, packed))

    async def inspect(self, texts: Sequence[Text], direction: Direction) -> list[list[Finding]]:
        """See screen.Screen. The same is looked for in both directions."""
        if self._found is None:
            raise ScreeningFailed("this agent is starting: what it screens messages with is not loaded yet")
        size = sum(len(one.text) for one in texts)
        if size <= AT_ONCE:
            return self._found.inspect(texts, LEAST_SECONDS)
        seconds = LEAST_SECONDS + SECONDS_PER_MEGABYTE * size / _MEGABYTE
        async with self._one:  # large ones one after the other: they must not take what the small ones need
            return await asyncio.to_thread(self._found.inspect, texts, seconds)

    async def close(self) -> None:
        """See screen.Screen."""


class _Budget:
    """Time of this thread, and findings."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = 0.0

    def spend(self) -> None:
        """Raises ScreeningFailed so long after it was first asked."""
        now = time.thread_time()
        self._until = self._until or now + self._seconds
        if now > self._until:
            raise ScreeningFailed("it takes too long to inspect; send less at once")


class _Recognisers:
    """All that looks, loaded."""

    def __init__(self) -> None:
        self._personal = PersonalData()
        self._secrets = Secrets()
        self._injection = Injection()
        self._clean: dict[str, None] = {}

    def is_clean(self, text: str) -> bool:
        """Whether nothing is found in a text that stands without a name; False too when it is too long to tell here."""
        if text in self._clean:
            return True
        look = plain.look(text)
        if not self._is_clean(look):
            return False
        if len(text) <= _SHORT:
            if len(self._clean) >= _REMEMBERED:
                self._clean.clear()  # in one operation, since large texts are inspected in a thread meanwhile
            self._clean[text] = None
        return True

    def is_clean_packed(self, text: str) -> bool:
        """Whether nothing can be found in any of the strings that a text is made of (see screen.Screen)."""
        look = plain.look(text)
        return not (personal.may_match(look) or secret.may_match(look) or self._injection.may_match(look, packed=True))

    def _is_clean(self, look: plain.Look) -> bool:
        """Looks at a short text itself where there is no proof: that costs less than to take a message apart."""
        if len(look.text) > AT_ONCE:
            return not (personal.may_match(look) or secret.may_match(look) or self._injection.may_match(look))
        for _ in self._find(look, look, "", _Budget(LEAST_SECONDS).spend):
            return False
        return True

    def inspect(self, texts: Sequence[Text], seconds: float) -> list[list[Finding]]:
        spend = _Budget(seconds).spend
        return [self._inspect(one, spend) for one in texts]

    def _inspect(self, one: Text, spend: Callable[[], None]) -> list[Finding]:
        if len(one.text) <= _SHORT and not one.label and self.is_clean(one.text):
            return []
        found: dict[tuple[str, int, int], Finding] = {}
        for start, end in _stretches(len(one.text)):
            spend()
            stretch = one.text[start:end]
            if len(found) > MOST_FINDINGS:
                raise ScreeningFailed("more is found in it than can be handled; send less at once")
            for finding in self._look_at(stretch, one.label, spend):
                at = Finding(finding.kind, finding.entity, finding.rule, start + finding.start, start + finding.end)
                if finding.kind is not Kind.INJECTION and _cut(at, start, end, len(one.text)):
                    continue  # the neighbouring stretch has all of it
                found.setdefault((at.kind, at.start, at.end), at)
        return list(found.values())

    def _look_at(self, text: str, label: str, spend: Callable[[], None]) -> Iterator[Finding]:
        """What is in a stretch; its label is read with it, as `label: text` and `label = "text"`."""
        look = plain.look(text)
        if not label:
            yield from self._find(look, look, "", spend)
            return
        yield from self._find(look, plain.look(f"{label}: {text}"), label, spend)
        if secret.names(label):
            quoted = plain.look(f'{label} = "{text}"')
            yield from _behind(len(label) + 4, self._secrets.find(quoted, spend), len(text))

    def _find(self, look: plain.Look, named: plain.Look, label: str, spend: Callable[[], None]) -> Iterator[Finding]:
        if personal.may_match(named):
            found = self._personal.find(named, spend)
            yield from _behind(len(label) + 2, found) if label else found
        if secret.may_match(look):
            yield from self._secrets.find(look, spend)
        yield from self._injection.find(look)


def _behind(offset: int, findings: Iterator[Finding], length: int | None = None) -> Iterator[Finding]:
    """Findings in what stands behind so many characters."""
    for one in findings:
        start, end = max(0, one.start - offset), one.end - offset
        end = end if length is None else min(end, length)
        if end > start:
            yield Finding(one.kind, one.entity, one.rule, start, end)


def _stretches(size: int) -> Iterator[tuple[int, int]]:
    start = 0
    while True:
        end = min(size, start + STRETCH)
        yield start, end
        if end == size:
            return
        start = end - OVERLAP


def _cut(finding: Finding, start: int, end: int, size: int) -> bool:
    """Whether it touches an end of a stretch that is none of the text, and is short enough for the neighbour."""
    touches = (finding.start == start and start > 0) or (finding.end == end and end < size)
    return touches and finding.end - finding.start < OVERLAP // 2
