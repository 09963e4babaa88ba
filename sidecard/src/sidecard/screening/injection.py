"""Prompt injection, by the published rules in injection.yaml."""

import operator
import re
from collections.abc import Callable, Iterator, Sequence
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
        self._by_head = _by(lambda word: word, [rule for rule in self.rules if not rule.signs])
        self._heads = frozenset(self._by_head)
        self._by_sign = {
            sign: [(word, rule) for rule in rules for word in rule.words if _sign(word) == sign]
            for sign, rules in _by(_sign, [rule for rule in self.rules if rule.signs]).items()
        }

    def may_match(self, text: str) -> bool:
        """Whether a text can be an injection: False is a proof that it is none, nor holds one.

        Before each of its strings a control character and one more may stand, as in protobuf's bytes.
        """
        signs = plain.seen(text)
        packed = not signs.isprintable()
        rules = self._worth_a_look(signs, packed=packed)
        if rules and sum(rule.points for rule in rules.values()) >= self.enough:
            return True
        return plain.may_be_encoded(text) and (packed or any(True for _ in plain.encoded(text)))

    def _worth_a_look(self, signs: str, *, packed: bool) -> dict[str, Rule]:
        """The rules of which a word is there, by their ids; with `packed` also behind a character of another string."""
        tokens = plain.tokens(signs)
        heads = self._heads.intersection(map(_FIRST, tokens))
        if packed:
            heads |= self._heads.intersection(map(_BUT_ONE, tokens))
        rules = {rule.id: rule for head in heads for rule in self._by_head[head]}
        for sign, words in self._by_sign.items():
            if sign in signs:
                for word, rule in words:
                    if word in signs:
                        rules[rule.id] = rule
        return rules

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
        rules = self.rules if all_rules else self._worth_a_look(signs, packed=False).values()
        for rule in rules:
            if rule.match.search(signs if rule.signs else words):
                yield rule


def _by(key: Callable[[str], str], rules: Sequence[Rule]) -> dict[str, list[Rule]]:
    """Rules by a key of their words."""
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        for one in sorted(set(map(key, rule.words))):
            found.setdefault(one, []).append(rule)
    return found


def _sign(word: str) -> str:
    """The first of its characters that is no letter; "", which is in every text, when all are."""
    return next((char for char in word if not (char.isalpha() or char == " ")), "")
