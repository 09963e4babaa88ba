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

    `hint` matches within everything that the recogniser can match (but for Italian codes whose digits were replaced),
    and `shape` is in the shape of everything that `hint` matches: in the `_tight` one if its parts may stand `apart`.
    """

    name: str
    module: str
    entity: str
    hint: str
    shape: bytes
    apart: bool = False
    weak: bool = False

    def may_match(self, whole: bytes, tight: bytes) -> bool:
        """Whether its hint can match anything in a text of these shapes: False is a proof that it does not."""
        return self.shape in (tight if self.apart else whole) or not whole


_SORTS = (
    _Sort(
        "CreditCardRecognizer",
        "generic.credit_card_recognizer",
        "CREDIT_CARD",
        r"\d{4}[- ]?\d{3,4}[- ]?\d{3,4}",
        b"0000000000",
        apart=True,
    ),
    _Sort(
        "IbanRecognizer",
        "generic.iban_recognizer",
        "IBAN_CODE",
        r"[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{4}){2}",
        b"AA00",
    ),
    _Sort(
        "IpRecognizer",
        "generic.ip_recognizer",
        "IP_ADDRESS",
        r"\d\.\d{1,3}\.\d{1,3}\.\d|[0-9A-Fa-f]::|::[0-9A-Fa-f]|(?:[0-9A-Fa-f]{1,4}:){6}",
        b"",
    ),
    _Sort(
        "MacAddressRecognizer",
        "generic.mac_recognizer",
        "MAC_ADDRESS",
        r"(?:[0-9A-Fa-f]{2}[:-]){5}|\.[0-9A-Fa-f]{4}\.",
        b"",
    ),
    _Sort("CryptoRecognizer", "generic.crypto_recognizer", "CRYPTO", r"[13][a-zA-Z0-9]{25}", b"0"),
    _Sort(
        "UsSsnRecognizer",
        "country_specific.us.us_ssn_recognizer",
        "US_SSN",
        r"[0-9]{3}[- .][0-9]{2}[- .][0-9]{4}",
        b"000000000",
        apart=True,
    ),
    _Sort(
        "UkNinoRecognizer",
        "country_specific.uk.uk_nino_recognizer",
        "UK_NINO",
        r"[A-Za-z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-Da-d]",
        b"aa000000a",
        apart=True,
    ),
    _Sort(
        "NhsRecognizer",
        "country_specific.uk.uk_nhs_recognizer",
        "UK_NHS",
        r"[0-9]{3}[- ]?[0-9]{3}[- ]?[0-9]{4}",
        b"0000000000",
        apart=True,
        weak=True,
    ),
    _Sort(
        "EsNifRecognizer",
        "country_specific.spain.es_nif_recognizer",
        "ES_NIF",
        r"[0-9]{7}-?[A-Za-z]",
        b"0000000",
    ),
    _Sort(
        "EsNieRecognizer",
        "country_specific.spain.es_nie_recognizer",
        "ES_NIE",
        r"[X-Zx-z][0-9]{7}-?[A-Za-z]",
        b"a0000000",
    ),
    _Sort(
        "ItFiscalCodeRecognizer",
        "country_specific.italy.it_fiscal_code_recognizer",
        "IT_FISCAL_CODE",
        r"[A-Za-z]{6}[0-9]{2}[A-Za-z][0-9]{2}[A-Za-z]",
        b"aaaaaa00a00a",
    ),
    _Sort(
        "PlPeselRecognizer",
        "country_specific.poland.pl_pesel_recognizer",
        "PL_PESEL",
        r"[0-9]{11}",
        b"00000000000",
        weak=True,
    ),
    _Sort(
        "InAadhaarRecognizer",
        "country_specific.india.in_aadhaar_recognizer",
        "IN_AADHAAR",
        r"[0-9]{4}[- :]?[0-9]{4}[- :]?[0-9]{4}",
        b"000000000000",
        apart=True,
        weak=True,
    ),
    _Sort(
        "DeTaxIdRecognizer",
        "country_specific.germany.de_tax_id_recognizer",
        "DE_TAX_ID",
        r"[1-9]\d{10}",
        b"00000000000",
        weak=True,
    ),
)
_OTHERS = {"EmailRecognizer": "generic.email_recognizer", "PhoneRecognizer": "generic.phone_recognizer"}

_ADDRESS = re.compile(r"[\w!#$%&'*+\-/=?^`{|}~]@\w")
_REST = r"[\s().\-/]{0,2}\d(?:[\s().\-/]{0,3}\d){5,16}"
_DIALLED = re.compile(rf"(?:\+|(?<!\d)00|\(\+?\d{{1,5}}\)){_REST}")
_PHONE_WORDS = ("phone", "mobile", "cell", "tel", "fax", "call", "whatsapp", "sms", "t\u00e9l")
_CALLED = re.compile(rf"(?i:phone|mobile|cell|call|whatsapp|sms|\bfax|\bt[e\u00e9]l)[^\d\n]{{0,24}}\d{_REST}")
_BEGUN = ((b"+000000", r"\+"), (b"00000000", "00"), (b"0000000", r"\(\+?\d{1,5}\)"))
_MAY_BE_DIALLED = [(shape, re.compile(begun + _REST)) for shape, begun in _BEGUN]
"""Each begins with a sign or two, which is faster to search for than one of several; with the shape of all of that."""
_BETWEEN = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f .()/-"
"""What may stand between the digits of a phone number."""
_SIGNS = re.compile("|".join(sort.hint for sort in _SORTS if not sort.shape))
_DOTTED = re.compile(r"\.[0-9A-Fa-f]{4}\.")
_MANY_SIGNS = 5
_HINTS = re.compile("|".join(sort.hint for sort in _SORTS if sort.shape))


def _fewest(*, apart: bool) -> tuple[bytes, ...]:
    """Shapes of which one is in everything that has the shape of a sort, but for coins' addresses."""
    shapes = {sort.shape for sort in _SORTS if sort.apart is apart} - {b"", b"0"}
    return tuple(sorted(one for one in shapes if not any(other != one and other in one for other in shapes)))


_WHOLE, _APART = _fewest(apart=False), _fewest(apart=True)


def _whole(shape: bytes) -> bytes:
    """A text's shape, as it is and again in small letters."""
    return shape + b"\n" + shape.lower() if shape else b""


def _tight(whole: bytes) -> bytes:
    """That shape without what may stand within a number of any sort."""
    return whole.translate(None, b" -:.")


def may_match(look: plain.Look) -> bool:
    """Whether any recogniser can find anything: False is a proof that none does."""
    text, shape = look.text, look.shape
    if not shape or ("@" in text and _ADDRESS.search(text)):  # an @ is among the bytes of most numbers, packed
        return True
    if _may_be_signs(text, shape):
        return True
    if b"0" not in shape:
        return False
    return (_may_be_numbers(look) and _HINTS.search(text) is not None) or _may_be_dialled(look)


def _may_be_numbers(look: plain.Look) -> bool:
    whole = _whole(look.shape)
    tight = _tight(whole)
    for one in _APART:
        if one in tight:
            return True
    for one in _WHOLE:
        if one in whole:
            return True
    return look.long  # as a coin's address is


def _may_be_signs(text: str, shape: bytes) -> bool:
    many = text.count(":") >= _MANY_SIGNS or text.count("-") >= _MANY_SIGNS or "::" in text or b"0.0" in shape
    return _SIGNS.search(text) is not None if many else text.count(".") > 1 and _DOTTED.search(text) is not None


def _may_be_dialled(look: plain.Look) -> bool:
    dense = look.shape.translate(None, _BETWEEN)
    if dense and b"000000" not in dense:
        return False
    if any(map(look.lower.__contains__, _PHONE_WORDS)):
        return True
    return any((shape in dense or not dense) and form.search(look.text) for shape, form in _MAY_BE_DIALLED)


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

    def find(self, look: plain.Look, spend: Callable[[], None]) -> Iterator[Finding]:
        """What is found in a stretch of text; `spend` is called now and then, and raises when it takes too long."""
        text, whole = look.text, _whole(look.shape)
        tight = _tight(whole)
        if "@" in text:
            yield from self._addresses(text, spend)
        if _may_be_dialled(look):
            yield from self._phones(text, spend)
        for sort, hint, recogniser, context in self._sorts:
            if not sort.may_match(whole, tight) or not hint.search(text):
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
