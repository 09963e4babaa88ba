"""Prompt injection, by the published rules in injection.yaml."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from sidecard.screening import plain
from sidecard.screening.finding import Finding, Kind

SHORTEST = 12
"""Characters that an injection has at least."""
_HEAD = 5


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what it matches, on the words of a text or with its signs, and what it is worth."""

    id: str
    points: int
    what: str
    words: frozenset[str]
    match: re.Pattern[str]
    signs: bool = False


class Injection:
    """The rules, ready to use."""

    def __init__(self) -> None:
        text = resources.files(__package__).joinpath("injection.yaml").read_text("utf-8")
        read: dict[str, Any] = yaml.safe_load(text)
        self.enough: int = read["enough"]
        self.rules = [
            Rule(
                id=rule["id"],
                points=rule["points"],
                what=rule["what"],
                words=frozenset(rule["words"]),
                match=re.compile(rule["match"]),
                signs=rule.get("reads") == "signs",
            )
            for rule in read["rules"]
        ]
        self._heads = frozenset(word for rule in self.rules if not rule.signs for word in rule.words)
        self._by_signs = [rule for rule in self.rules if rule.signs]

    def may_match(self, text: str) -> bool:
        """Whether a text can be an injection: False is a proof that it is none, nor holds one.

        Up to two characters may stand before each of its strings that are none of it, as in protobuf's bytes.
        """
        signs = plain.seen(text)
        tokens = plain.words(signs).split()
        heads = {token[:_HEAD] for token in tokens}
        heads.update([token[1 : 1 + _HEAD] for token in tokens])
        heads.update([token[2 : 2 + _HEAD] for token in tokens])
        heads &= self._heads
        rules = self.rules if heads else self._by_signs
        points = sum(rule.points for rule in rules if _worth_a_look(rule, heads, signs))
        return points >= self.enough or any(True for _ in plain.encoded(text))

    def find(self, text: str) -> Iterator[Finding]:
        """One finding over the whole text when it is an injection; its rule names those that matched."""
        if len(text) < SHORTEST:
            return
        matched: dict[str, int] = {}
        for read in (text, *plain.encoded(text)):
            for rule in self.matching(read):
                matched[rule.id] = rule.points
        if sum(matched.values()) >= self.enough:
            yield Finding(Kind.INJECTION, "PROMPT_INJECTION", "+".join(sorted(matched)), 0, len(text))

    def matching(self, text: str, *, all_rules: bool = False) -> Iterator[Rule]:
        """The rules that match a text, as they read it. With `all_rules` their words are not asked first."""
        signs = plain.seen(text)
        words = f" {plain.words(signs)} "
        heads = {token[:_HEAD] for token in words.split()}
        for rule in self.rules:
            looked_at = all_rules or _worth_a_look(rule, heads, signs)
            if looked_at and rule.match.search(signs if rule.signs else words):
                yield rule


def _worth_a_look(rule: Rule, heads: set[str], signs: str) -> bool:
    if not rule.signs:
        return not rule.words.isdisjoint(heads)
    for word in rule.words:  # noqa: SIM110 -- a generator costs more than this loop
        if word in signs:
            return True
    return False
