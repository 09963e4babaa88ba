"""Rounds: turns, medians and ratios."""

import pytest

from bench.rounds import Outcome, Rounds


def test_contenders_take_turns_and_the_order_turns_round():
    """Nobody is always measured first, when the machine is still warm from somebody else."""
    said = []

    def contender(name):
        return lambda: said.append(name) or 1.0

    Rounds(3).race({"a": contender("a"), "b": contender("b")})
    assert said == ["a", "b", "b", "a", "a", "b"]


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    """Not the ratio of medians: what slows a whole round down must not count."""
    outcome = Outcome({"ours": [10, 100, 30], "theirs": [5, 10, 10], "more": [5, 10, 5]})
    assert outcome.median("ours") == 30
    assert outcome.ratio("ours", "theirs") == 3
    assert outcome.ratio("ours", "theirs", "more") == pytest.approx(2)
