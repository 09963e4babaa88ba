"""Prompt injection, by the published rules in injection.yaml."""

import operator
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from sidecard.screening import plain
from sidecard.screening.finding import Finding, Kind

SHORTEST = 12
"""Characters that an injection has at least."""
_HEAD = 5
_FIRST = operator.itemgetter(slice(_HEAD))
_BUT_ONE = operator.itemgetter(slice(1, 1 + _HEAD))


@dataclass(frozen=True, slots=True, eq=False)
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
        self._by_head: dict[str, list[Rule]] = {}
        by_sign: dict[str, list[tuple[str, Rule]]] = {}
        for rule in self.rules:
            for word in sorted(rule.words):
                if word.isalnum():
                    self._by_head.setdefault(word, []).append(rule)
                else:
                    by_sign.setdefault(_sign(word), []).append((word, rule))
        self._heads = frozenset(self._by_head)
        self._by_sign = list(by_sign.items())

    def may_match(self, look: plain.Look, *, packed: bool = False) -> bool:
        """Whether a text can be an injection: False is a proof that it is none, nor holds one.

        When it is `packed`, a control character and one more may stand before each of the strings that it is made of.
        """
        if look.long and (packed or any(True for _ in plain.encoded(look.text))):
            return True
        signs = plain.seen(look.text)
        return _points(self._worth_a_look(signs, plain.tokens(signs), packed=packed)) >= self.enough

    def find(self, look: plain.Look) -> Iterator[Finding]:
        """One finding over the whole text when it is an injection; its rule names those that matched."""
        if len(look.text) < SHORTEST:
            return
        encoded = list(plain.encoded(look.text)) if look.long else []
        matched = set(self.matching(look.text, alone=not encoded))
        for text in encoded:
            matched.update(self.matching(text))
        if _points(matched) >= self.enough:
            names = "+".join(sorted(rule.id for rule in matched))
            yield Finding(Kind.INJECTION, "PROMPT_INJECTION", names, 0, len(look.text))

    def matching(self, text: str, *, alone: bool = False) -> Iterator[Rule]:
        """The rules that match a text, as they read it.

        When it stands `alone`, only as long as they can come to `enough` points.
        """
        signs = plain.seen(text)
        tokens = plain.tokens(signs)
        rules = self._worth_a_look(signs, tokens)
        attainable = _points(rules)
        words = ""
        for rule in rules:
            if alone and attainable < self.enough:
                return
            words = words or f" {' '.join(tokens)} "
            if rule.match.search(signs if rule.signs else words):
                yield rule
            else:
                attainable -= rule.points

    def _worth_a_look(self, signs: str, tokens: list[str], *, packed: bool = False) -> set[Rule]:
        """The rules of which a word is there; with `packed` also behind a character of another string."""
        heads = self._heads.intersection(map(_FIRST, tokens))
        if packed:
            heads |= self._heads.intersection(map(_BUT_ONE, tokens))
        rules = {rule for head in heads for rule in self._by_head[head]} if heads else set()
        for sign, words in self._by_sign:
            if sign in signs:
                for word, rule in words:
                    if word in signs:
                        rules.add(rule)
        return rules


def _points(rules: Iterable[Rule]) -> int:
    return sum(rule.points for rule in rules)


def _sign(word: str) -> str:
    """The first of its signs; "", which is in every text, when it has but spaces."""
    return next((char for char in word if not (char.isalpha() or char == " ")), "")
