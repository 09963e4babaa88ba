"""Rounds: contenders take turns, in an order that turns round each time, and medians of the rounds count."""

import statistics
from collections.abc import Callable, Mapping

Measure = Callable[[], float]


class Rounds:
    """How often everything is measured."""

    def __init__(self, count: int) -> None:
        self.count = count

    def race(self, contenders: Mapping[str, Measure]) -> "Outcome":
        """Let each contender be measured once per round."""
        figures: dict[str, list[float]] = {name: [] for name in contenders}
        names = list(contenders)
        for _ in range(self.count):
            for name in names:
                figures[name].append(contenders[name]())
            names.reverse()
        return Outcome(figures)


class Outcome:
    """The figures of each contender, a figure per round."""

    def __init__(self, figures: Mapping[str, list[float]]) -> None:
        self.figures = figures

    def median(self, name: str) -> float:
        """The median of one contender."""
        return statistics.median(self.figures[name])

    def ratio(self, ours: str, *theirs: str) -> float:
        """The median over the rounds of one contender's figure over that of another, or over the sum of others."""
        others = map(sum, zip(*(self.figures[name] for name in theirs), strict=True))
        return statistics.median(own / other for own, other in zip(self.figures[ours], others, strict=True))
