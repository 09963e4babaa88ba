"""Credentials in text, by detect-secrets' own detectors: keys and tokens of known forms, and values named as secrets.

Its detectors by entropy alone are left out: in messages they find every id, digest and picture.
"""

import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sidecard.screening import plain
from sidecard.screening.finding import Finding, Kind

_SHORTEST = 4


@dataclass(frozen=True, slots=True)
class _Sort:
    """A detector: where it lies, what it can match at all, and how many characters around that it may look at.

    `form` matches within everything that the detector can match, and takes no more time than the text is long. One of
    `words` is in the small letters of all that it matches; where there are none, it has 24 letters and digits in a row.
    """

    name: str
    module: str
    form: str
    words: tuple[str, ...] = ()
    before: int = 64
    after: int = 448

    def may_match(self, look: plain.Look) -> bool:
        """Whether it can match anything in a text: False is a proof that it does not."""
        return any(map(look.lower.__contains__, self.words)) if self.words else look.long


_ASSIGNED = r"(?i:key|pwd|password|pass|token)['\"\]]{0,3} {0,8}[=:> ]{1,4} {0,8}['\"]?"
_KEYWORD = "KeywordDetector"
_NAMES = ("key", "passw", "_pass", "dbpass", "basepass", "pwd", "secret", "contrase")
_SORTS = (
    _Sort("ArtifactoryDetector", "artifactory", r"AKC[a-zA-Z0-9]{10}|AP[0-9A-F][a-zA-Z0-9]{8}", ("akc", "ap")),
    _Sort(
        "AWSKeyDetector",
        "aws",
        r"(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[0-9A-Z]{16}|(?i:aws)",
        ("aws", "a3t", "abia", "acca", "akia", "asia"),
    ),
    _Sort("AzureStorageKeyDetector", "azure_storage_key", r"AccountKey=", ("accountkey=",)),
    _Sort("BasicAuthDetector", "basic_auth", r"://[^\s/:@]{1,128}:[^\s@]{1,256}@", ("://",)),
    _Sort("CloudantDetector", "cloudant", r"(?i:cloudant)", ("cloudant",), before=192),
    _Sort("DiscordBotTokenDetector", "discord", r"[MNO][\w-]{23,25}\.[\w-]{6}\."),
    _Sort("GitHubTokenDetector", "github_token", r"gh[pousr]_[A-Za-z0-9_]{36}"),
    _Sort("GitLabTokenDetector", "gitlab_token", r"gl[a-z]{2,5}-[\w-]{20}|GR1348941", ("gl", "gr1348941"), after=1_100),
    _Sort("IbmCloudIamDetector", "ibm_cloud_iam", _ASSIGNED + r"[\w-]{44}"),
    _Sort("IbmCosHmacDetector", "ibm_cos_hmac", _ASSIGNED + r"(?i:[a-f0-9]{48})"),
    _Sort("JwtTokenDetector", "jwt", r"(?<![\w=-])eyJ[\w=-]{1,4096}\.[\w=-]", ("eyj",), after=4_096),
    _Sort(
        _KEYWORD,
        "keyword",
        r"(?i:(?:(?:api|auth|service|account|db|database|priv|private|client)_?key|(?:db|database|key)_?pass"
        r"|password|passwd|pwd|secret|contrase(?:\u00f1|n)a)\w{0,32}[\]'\"]{0,2}\s{0,4}(?:[:=!(.\[]|[^\s]{0,50}\s{0,4}['\"`]))"
        r"|['\"`]\s{0,4}[!=]{2,3}\s{0,4}\w{0,32}(?i:key|pass|pwd|secret)",
        _NAMES,
        after=256,
    ),
    _Sort("MailchimpDetector", "mailchimp", r"[0-9a-z]{32}-us\d"),
    _Sort("NpmDetector", "npm", r":_authToken=", (":_authtoken=",), before=256),
    _Sort("OpenAIDetector", "openai", r"T3BlbkFJ", before=256),
    _Sort(
        "PrivateKeyDetector",
        "private_key",
        r"BEGIN [A-Z0-9 ]{0,20}PRIVATE KEY|PuTTY-User-Key-File-2",
        ("key",),
        after=16_384,
    ),
    _Sort("PypiTokenDetector", "pypi_token", r"pypi-Ag", after=1_024),
    _Sort("SendGridDetector", "sendgrid", r"SG\.[\w-]{22}\."),
    _Sort(
        "SlackDetector",
        "slack",
        r"(?i:xox)[abposrABPOSR]-\d|https://hooks\.slack\.com/services/T",
        ("xox", "hooks.slack"),
    ),
    _Sort("SoftlayerDetector", "softlayer", _ASSIGNED + r"(?i:[a-z0-9]{64})|(?i:softlayer\.com)"),
    _Sort("SquareOAuthDetector", "square_oauth", r"sq0csp-"),
    _Sort("StripeDetector", "stripe", r"k_live_[0-9a-zA-Z]{24}"),
    _Sort("TelegramBotTokenDetector", "telegram_token", r"\d{8,10}:[\w-]{35}"),
    _Sort("TwilioKeyDetector", "twilio", r"(?:AC|SK)[a-z0-9]{32}"),
)
_WORDS = (*_NAMES, "aws", "xox", "hooks.slack", "eyj", ":_authtoken=", "gr1348941")
_SHORT = re.compile(r"A(?:KC|KIA|SIA|BIA|CCA|3T|P[0-9A-F])[a-zA-Z0-9]{8}")
"""This, or one of those words, or much in a row is in everything that any detector can match."""
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----[^-]{0,16000}(?:-----END [A-Z0-9 ]{0,40}-----)?"
)


def may_match(look: plain.Look) -> bool:
    """Whether any detector can find anything: False is a proof that none does."""
    if look.long or any(map(look.lower.__contains__, _WORDS)):
        return True
    return ("://" in look.text and "@" in look.text) or _SHORT.search(look.text) is not None


class Secrets:
    """detect-secrets' detectors, ready to use: building one loads them. None of them ever verifies what it found."""

    def __init__(self) -> None:
        package = "detect_secrets.plugins"
        self._detectors: list[tuple[_Sort, re.Pattern[str], Any]] = [
            (sort, re.compile(sort.form), getattr(importlib.import_module(f"{package}.{sort.module}"), sort.name)())
            for sort in _SORTS
        ]
        keyword = importlib.import_module(f"{package}.keyword")
        self._unquoted = keyword.CONFIG_DENYLIST_REGEX_TO_GROUP
        self._likely = _heuristics()

    def find(self, look: plain.Look, spend: Callable[[], None]) -> Iterator[Finding]:
        """What is found in a stretch of text; `spend` is called now and then, and raises when it takes too long."""
        text = look.text
        for sort, form, detector in self._detectors:
            if not sort.may_match(look):
                continue
            done = 0
            entity = re.sub(r"\W+", "_", detector.secret_type).strip("_").upper()
            for match in form.finditer(text):
                spend()
                if match.end() <= done:
                    continue
                begin = max(0, match.start() - sort.before)
                done = match.end()
                for start, end in self._spans(sort, detector, text[begin : match.end() + sort.after]):
                    yield Finding(Kind.SECRET, entity, sort.name, begin + start, begin + end)
                    done = max(done, begin + end)

    def _spans(self, sort: _Sort, detector: Any, stretch: str) -> Iterator[tuple[int, int]]:  # noqa: ANN401
        if sort.name == _KEYWORD:
            yield from self._named(detector, stretch)
        elif sort.name == "PrivateKeyDetector":
            if any(True for _ in detector.analyze_string(stretch)):
                yield _key_block(stretch)
        else:
            for line_start, line in _lines(stretch):
                for pattern in detector.denylist:
                    for match in pattern.finditer(line):
                        start, end = _value_in(match)
                        yield line_start + start, line_start + end

    def _named(self, detector: Any, stretch: str) -> Iterator[tuple[int, int]]:  # noqa: ANN401
        """Values that are named as secrets: in quotes, or as the one word behind the name."""
        for line_start, line in _lines(stretch):
            quoted = {value for value in detector.analyze_string(line) if self._likely(value, line)}
            unquoted = (value.split() for value in detector.analyze_string(line, self._unquoted))
            words = {found[0].rstrip(".,;)") for found in unquoted if found} if not quoted else set()
            for value in quoted | {word for word in words if _like_a_password(word) and self._likely(word, line)}:
                at = line.find(value)
                while at >= 0:
                    yield line_start + at, line_start + at + len(value)
                    at = line.find(value, at + len(value))


def _heuristics() -> Any:  # noqa: ANN401 -- a function
    """detect-secrets' own filters of what only looks like a secret."""
    filters = importlib.import_module("detect_secrets.filters.heuristic")

    def likely(value: str, line: str) -> bool:
        return len(value) >= _SHORTEST and not (
            filters.is_sequential_string(value)
            or filters.is_potential_uuid(value)
            or filters.is_templated_secret(value)
            or filters.is_prefixed_with_dollar_sign(value)
            or filters.is_not_alphanumeric_string(value)
            or filters.is_indirect_reference(line)
            or value.startswith("<")
        )

    return likely


def _value_in(match: re.Match[str]) -> tuple[int, int]:
    """The secret in what a detector's expression matched: the group that is most of it, or all of it."""
    groups = [match.span(number) for number in range(1, (match.re.groups or 0) + 1) if match.group(number)]
    start, end = max(groups, key=lambda span: span[1] - span[0], default=match.span())
    return (start, end) if (end - start) * 3 > match.end() - match.start() else match.span()


def _like_a_password(word: str) -> bool:
    """Whether it is more than a word of a sentence."""
    return len(word) > _SHORTEST + 1 and any(not c.isalpha() for c in word[:-1]) and any(c.isalnum() for c in word)


def _lines(stretch: str) -> Iterator[tuple[int, str]]:
    at = 0
    for line in stretch.split("\n"):
        yield at, line
        at += len(line) + 1


def _key_block(stretch: str) -> tuple[int, int]:
    """All of a key, as far as it is there."""
    block = _KEY_BLOCK.search(stretch)
    return block.span() if block else (0, len(stretch))


def names(label: str) -> bool:
    """Whether a value of that name may be a secret by its name alone."""
    lower = plain.folded(label)
    return any(word in lower for word in _NAMES)
