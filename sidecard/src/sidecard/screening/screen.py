"""What every screen offers, whatever it looks with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sidecard.screening.finding import Direction, Finding


@dataclass(frozen=True, slots=True)
class Text:
    """A string to inspect. `place` is where it stands (`parts[0].data.note`), `label` the name it goes by there."""

    place: str
    text: str
    label: str = ""


class Screen(Protocol):
    """Looks for prompt injection, personal data and secrets. It decides nothing: that is the policy's."""

    async def start(self) -> None:
        """Make ready what it takes. Until then, and when it fails, nothing passes. Raises ScreeningFailed."""

    def clean(self, texts: Sequence[str], packed: Sequence[str] = ()) -> bool:
        """A cheap proof that nothing is to be found in these texts, none of which has a label; False without one.

        Of a `packed` one each string that it is made of counts: a control character and at most one other stand before
        it. Raises ScreeningFailed.
        """

    async def inspect(self, texts: Sequence[Text], direction: Direction) -> list[list[Finding]]:
        """What is found in each of the texts. Raises ScreeningFailed when it can't be told."""

    async def close(self) -> None:
        """Give back what it holds."""
