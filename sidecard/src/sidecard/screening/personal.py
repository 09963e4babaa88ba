"""Personal data that has a form: addresses, numbers of accounts, cards and persons. By Presidio's recognisers.

Names are not found: that takes a language model. What a recogniser alone would find too often (ten digits may be a
number of anything) counts only beside one of the words that the recogniser itself lists for its context.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import tldextract

from sidecard.screening import plain
from sidecard.screening.finding import Finding, Kind
from sidecard.screening.presidio import recogniser_classes

CONTEXT_CHARACTERS = 60
SURE = 0.5
_LOCAL, _DOMAIN = 128, 256


@dataclass(frozen=True, slots=True)
class _Sort:
    """A recogniser: where it lies, which texts are worth its while, and whether it takes a word beside to believe it.

    `hint` matches within everything that the recogniser can match (but for Italian codes whose digits were replaced).
    """

    name: str
    module: str
    entity: str
    hint: str
    weak: bool = False


_SORTS = (
    _Sort("CreditCardRecognizer", "generic.credit_card_recognizer", "CREDIT_CARD", r"\d{4}[- ]?\d{3,4}[- ]?\d{3,4}"),
    _Sort("IbanRecognizer", "generic.iban_recognizer", "IBAN_CODE", r"[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{4}){2}"),
    _Sort(
        "IpRecognizer",
        "generic.ip_recognizer",
        "IP_ADDRESS",
        r"\d\.\d{1,3}\.\d{1,3}\.\d|[0-9A-Fa-f]::|::[0-9A-Fa-f]|(?:[0-9A-Fa-f]{1,4}:){6}",
    ),
    _Sort(
        "MacAddressRecognizer",
        "generic.mac_recognizer",
        "MAC_ADDRESS",
        r"(?:[0-9A-Fa-f]{2}[:-]){5}|\.[0-9A-Fa-f]{4}\.",
    ),
    _Sort("CryptoRecognizer", "generic.crypto_recognizer", "CRYPTO", r"[13][a-zA-Z0-9]{25}"),
    _Sort(
        "UsSsnRecognizer",
        "country_specific.us.us_ssn_recognizer",
        "US_SSN",
        r"[0-9]{3}[- .][0-9]{2}[- .][0-9]{4}",
    ),
    _Sort(
        "UkNinoRecognizer",
        "country_specific.uk.uk_nino_recognizer",
        "UK_NINO",
        r"[A-Za-z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-Da-d]",
    ),
    _Sort(
        "NhsRecognizer", "country_specific.uk.uk_nhs_recognizer", "UK_NHS", r"[0-9]{3}[- ]?[0-9]{3}[- ]?[0-9]{4}", True
    ),
    _Sort("EsNifRecognizer", "country_specific.spain.es_nif_recognizer", "ES_NIF", r"[0-9]{7}-?[A-Za-z]"),
    _Sort("EsNieRecognizer", "country_specific.spain.es_nie_recognizer", "ES_NIE", r"[X-Zx-z][0-9]{7}-?[A-Za-z]"),
    _Sort(
        "ItFiscalCodeRecognizer",
        "country_specific.italy.it_fiscal_code_recognizer",
        "IT_FISCAL_CODE",
        r"[A-Za-z]{6}[0-9]{2}[A-Za-z][0-9]{2}[A-Za-z]",
    ),
    _Sort("PlPeselRecognizer", "country_specific.poland.pl_pesel_recognizer", "PL_PESEL", r"[0-9]{11}", True),
    _Sort(
        "InAadhaarRecognizer",
        "country_specific.india.in_aadhaar_recognizer",
        "IN_AADHAAR",
        r"[0-9]{4}[- :]?[0-9]{4}[- :]?[0-9]{4}",
        True,
    ),
    _Sort("DeTaxIdRecognizer", "country_specific.germany.de_tax_id_recognizer", "DE_TAX_ID", r"[1-9]\d{10}", True),
)
_OTHERS = {"EmailRecognizer": "generic.email_recognizer", "PhoneRecognizer": "generic.phone_recognizer"}

_ADDRESS = re.compile(r"[\w!#$%&'*+\-/=?^`{|}~]@\w")
_REST = r"[\s().\-/]{0,2}\d(?:[\s().\-/]{0,3}\d){5,16}"
_DIALLED = re.compile(rf"(?:\+|(?<!\d)00|\(\+?\d{{1,5}}\)){_REST}")
_PHONE_WORDS = ("phone", "mobile", "cell", "tel", "fax", "call", "whatsapp", "sms", "t\u00e9l")
_CALLED = re.compile(rf"(?i:phone|mobile|cell|call|whatsapp|sms|\bfax|\bt[e\u00e9]l)[^\d\n]{{0,24}}\d{_REST}")
_SIGNED = frozenset({"IP_ADDRESS", "MAC_ADDRESS"})
_LETTERED = frozenset({"IBAN_CODE", "UK_NINO", "IT_FISCAL_CODE"})
_FEW = frozenset({"ES_NIF", "ES_NIE", "CRYPTO"})


def _hints(entities: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(sort.hint for sort in _SORTS if sort.entity in entities))


_SIGNS = _hints(_SIGNED)
_LETTERED_NUMBERS = _hints(_LETTERED)
_LETTERS = re.compile(r"[A-Za-z]{2} ?[0-9]{2}")
_FEW_NUMBERS = re.compile(r"[0-9]{7}-?[A-Za-z]|[13][a-zA-Z0-9]{25}")
_NUMBERS = _hints(frozenset(sort.entity for sort in _SORTS) - _SIGNED - _LETTERED - _FEW)
_MANY = 9
"""Digits of the shortest of those, with only signs and spaces between."""
_DIALLED_DIGITS = 6
_RUN = re.compile(r"\d[\d\s.:()/\-]{5,}")
_FEWEST_SIGNS = 5
_MAY_BE_DIALLED = re.compile(rf"(?:\+|00|\(\+?\d{{1,5}}\)){_REST}")
_SHAPE = bytes(48 if chr(code).isdigit() else 97 if chr(code).isalpha() else code for code in range(128)) + bytes(128)
"""Of ASCII text: 0 for each digit, a for each letter."""
_BETWEEN = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f .:()/-"
"""What may stand between the digits of a number."""
_COIN = b"a" * 26


def may_match(text: str, lower: str) -> bool:
    """Whether any recogniser can find anything: False is a proof that none does. `lower` is the text `plain.folded`."""
    if "@" in text and _ADDRESS.search(text):  # most numbers have one among the bytes that they are packed in
        return True
    signs = "::" in text or text.count(".") > 1 or text.count(":") >= _FEWEST_SIGNS or text.count("-") >= _FEWEST_SIGNS
    if signs and _SIGNS.search(text):
        return True
    if text.isascii():
        shape = text.encode().translate(_SHAPE)
        if b"0" not in shape:
            return False
        numbers = b"000000" in shape.translate(None, _BETWEEN)
        if not (numbers or b"aa00" in shape or _COIN in shape.replace(b"0", b"a")):
            return False
    return _may_be_numbers(text, lower)


def _may_be_numbers(text: str, lower: str) -> bool:
    if _FEW_NUMBERS.search(text) or (_LETTERS.search(text) and _LETTERED_NUMBERS.search(text)):
        return True
    digits = max((sum(map(str.isdigit, run)) for run in _RUN.findall(text)), default=0)
    if digits >= _MANY and _NUMBERS.search(text):
        return True
    return digits >= _DIALLED_DIGITS and _may_be_dialled(text, lower)


def _may_be_dialled(text: str, lower: str) -> bool:
    return any(word in lower for word in _PHONE_WORDS) or _MAY_BE_DIALLED.search(text) is not None


class PersonalData:
    """Presidio's recognisers, ready to use: building one loads them."""

    def __init__(self) -> None:
        names = {sort.name: sort.module for sort in _SORTS} | _OTHERS
        classes = recogniser_classes(names)
        self._sorts = [
            (sort, re.compile(sort.hint), classes[sort.name](), _context(classes[sort.name])) for sort in _SORTS
        ]
        # The list of domains that came with the package: by default it would be fetched at the first address.
        known = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
        known("example.org")
        self._address = _Offline(classes["EmailRecognizer"], known)
        self._dialled = classes["PhoneRecognizer"](supported_regions=("US", "GB", "DE"))
        self._called = classes["PhoneRecognizer"](supported_regions=("US", "GB", "DE", "FR", "ES", "IT", "IN", "BR"))

    def find(self, text: str, spend: Callable[[], None]) -> Iterator[Finding]:
        """What is found in a stretch of text; `spend` is called now and then, and raises when it takes too long."""
        if "@" in text:
            yield from self._addresses(text, spend)
        if _may_be_dialled(text, plain.folded(text)):
            yield from self._phones(text, spend)
        for sort, hint, recogniser, context in self._sorts:
            if not hint.search(text):
                continue
            spend()
            for result in recogniser.analyze(text, [sort.entity]):
                near = text[max(0, result.start - CONTEXT_CHARACTERS) : result.end + CONTEXT_CHARACTERS]
                if result.score < SURE or (sort.weak and not context.search(near)):
                    continue
                yield Finding(Kind.PERSONAL, sort.entity, sort.name, result.start, result.end)

    def _addresses(self, text: str, spend: Callable[[], None]) -> Iterator[Finding]:
        done = 0
        for match in _ADDRESS.finditer(text):
            spend()
            if match.end() <= done:
                continue
            begin = max(done, match.start() - _LOCAL)
            for start, end in self._address.find(text[begin : match.end() + _DOMAIN]):
                yield Finding(Kind.PERSONAL, "EMAIL_ADDRESS", "EmailRecognizer", begin + start, begin + end)
                done = max(done, begin + end)

    def _phones(self, text: str, spend: Callable[[], None]) -> Iterator[Finding]:
        for form, recogniser in ((_DIALLED, self._dialled), (_CALLED, self._called)):
            for match in form.finditer(text):
                spend()
                at = match.start()
                for result in recogniser.analyze(match.group(), ["PHONE_NUMBER"]):
                    yield Finding(Kind.PERSONAL, "PHONE_NUMBER", "PhoneRecognizer", at + result.start, at + result.end)


class _Offline:
    """Presidio's e-mail recogniser, which asks a list of domains that is here and not on the network."""

    def __init__(self, recogniser: Any, domains: tldextract.TLDExtract) -> None:  # noqa: ANN401 -- a class of Presidio
        self._domains = domains
        self._recogniser = type(recogniser.__name__, (recogniser,), {"validate_result": self._validate})()

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        for result in self._recogniser.analyze(text, ["EMAIL_ADDRESS"]):
            yield result.start, result.end

    def _validate(self, address: str) -> bool:
        return self._domains(address.rpartition("@")[2]).fqdn != ""


def _context(recogniser: Any) -> re.Pattern[str]:  # noqa: ANN401 -- a class of Presidio
    return re.compile("|".join(rf"\b{re.escape(word)}" for word in recogniser.CONTEXT), re.IGNORECASE)
