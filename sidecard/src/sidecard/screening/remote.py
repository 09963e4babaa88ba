"""A screen of one's own, behind HTTP.

It is sent `{"direction": "in", "texts": [{"place": "parts[0].text", "label": "", "text": "…"}]}` by POST, and answers
200 `{"findings": [{"text": 0, "kind": "personal", "entity": "PERSON", "rule": "my-model", "start": 0, "end": 12}]}`:
the number of the text, and characters of it; kinds are injection, personal and secret. Anything else than that in time
means that nothing passes.
"""

from collections.abc import Sequence
from typing import Literal

import httpx
from pydantic import BaseModel, Field, ValidationError

from sidecard.screening.finding import Direction, Finding, Kind, ScreeningFailed, ScreenUnavailable
from sidecard.screening.screen import Text

TIMEOUT_SECONDS = 5.0
MOST_FINDINGS = 10_000
_NAME = r"^[A-Za-z][A-Za-z0-9_ .:+-]{0,79}$"


class _Found(BaseModel):
    text: int = Field(ge=0)
    kind: Literal["injection", "personal", "secret"]
    entity: str = Field(pattern=r"^[A-Z][A-Z0-9_]{0,39}$")
    rule: str = Field(pattern=_NAME)
    start: int = Field(ge=0)
    end: int = Field(ge=1)


class _Answer(BaseModel):
    findings: list[_Found] = Field(max_length=MOST_FINDINGS)


class RemoteScreen:
    """Asks a service at this URL about every text. Its certificate is verified as any other's; no redirects."""

    def __init__(self, url: str, client: httpx.AsyncClient | None = None) -> None:
        self._url = url
        self._client = client or httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False)

    async def start(self) -> None:
        """See screen.Screen. Asks about nothing, once, so that an agent whose service is not there is not ready."""
        await self.inspect([], Direction.IN)

    def clean(self, texts: Sequence[str], packed: Sequence[str] = ()) -> bool:
        """See screen.Screen: only the service can tell, but of nothing."""
        return not any(texts) and not any(packed)

    async def inspect(self, texts: Sequence[Text], direction: Direction) -> list[list[Finding]]:
        """See screen.Screen."""
        asked = [{"place": one.place, "label": one.label, "text": one.text} for one in texts]
        try:
            answer = await self._client.post(self._url, json={"direction": direction.value, "texts": asked})
        except httpx.HTTPError as error:
            raise ScreenUnavailable(f"the screening service does not answer ({type(error).__name__})") from error
        if answer.status_code != httpx.codes.OK:
            raise ScreenUnavailable(f"the screening service answers HTTP {answer.status_code}")
        try:
            found = _Answer.model_validate_json(answer.content).findings
        except ValidationError:  # which would repeat what it holds
            raise ScreeningFailed("the screening service's answer is not of the agreed form") from None
        findings: list[list[Finding]] = [[] for _ in texts]
        for one in found:
            if one.text >= len(texts) or not one.start < one.end <= len(texts[one.text].text):
                raise ScreeningFailed("the screening service found something where there is no text")
            findings[one.text].append(Finding(Kind(one.kind), one.entity, one.rule, one.start, one.end))
        return findings

    async def close(self) -> None:
        """See screen.Screen."""
        await self._client.aclose()
