"""Every string of an A2A object that somebody may read, and how to put another in its place."""

import codecs
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from a2a.types import Artifact, Message, Part
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from sidecard.extension import URI
from sidecard.screening.screen import Text

_OURS = frozenset({"skill", "question", "subject", "scope", "authority", "action", "signed", "proof"})
"""What our extension carries that is no free text: names, ids, rights and signatures, checked where they are used."""
_LONGEST_NAME = 32
_LEAST, _MOST = 1e6, 1e22
_DOUBLE = struct.Struct("<d")
_NUMBER = re.compile(rb"(?s)(?=\x11(.{6}(?:[\x2e-\xff][\x41\xc1]|.[\x42-\x44\xc2-\xc4])))")
"""In a packed value: its tag, and a double of such a size (by the bits of its exponent)."""
_BOMS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"}


@dataclass(frozen=True, slots=True)
class Spot:
    """A string and where it stands; `put` replaces it there."""

    text: Text
    put: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Opaque:
    """A file that is no text: where it stands, and of which media type it says it is."""

    place: str
    media_type: str


def strings_of(message: Message | Artifact) -> Iterator[Spot | Opaque]:
    """All strings of a message or an artifact, in order; files that can't be read as text are Opaque."""
    if isinstance(message, Artifact):
        yield from _field(message, "name")
        yield from _field(message, "description")
    for number, part in enumerate(message.parts):
        yield from _part(part, f"parts[{number}]")
    if message.HasField("metadata"):
        yield from _struct(message.metadata, "metadata")


def numbers_in(packed: bytes) -> str:
    """The digits of all whole numbers in data as it is packed that may be somebody's, each on a line of its own.

    There may be more: what only looks like a number is one too.
    """
    found = (_digits(_DOUBLE.unpack(match.group(1))[0]) for match in _NUMBER.finditer(packed))
    return "".join(f"\n{digits}" for digits in found if digits)


def _digits(number: float) -> str:
    """The digits of a whole number; "" for one that is nobody's: with a fraction, or of fewer than seven digits."""
    return str(abs(int(number))) if _LEAST <= abs(number) < _MOST and number == int(number) else ""


def only_names(metadata: Struct) -> bool:
    """Whether metadata hold nothing but what our extension carries that is no free text."""
    fields = metadata.fields
    return len(fields) == 1 and URI in fields and _OURS.issuperset(fields[URI].struct_value.fields)


def _part(part: Part, place: str) -> Iterator[Spot | Opaque]:
    match part.WhichOneof("content"):
        case "text":
            yield from _field(part, "text", place)
        case "url":
            yield from _field(part, "url", place)
        case "data":
            yield from _value(part.data, f"{place}.data", "", lambda new: setattr(part.data, "string_value", new))
        case "raw":
            yield _file(part, f"{place}.raw")
    yield from _field(part, "filename", place)
    yield from _field(part, "media_type", place)
    if part.HasField("metadata"):
        yield from _struct(part.metadata, f"{place}.metadata")


def _file(part: Part, place: str) -> Spot | Opaque:
    encoding = next((name for bom, name in _BOMS.items() if part.raw.startswith(bom)), "utf-8")
    try:
        text = part.raw.decode(encoding)
    except ValueError:
        if not part.media_type.startswith("text/"):
            return Opaque(place, part.media_type)
        encoding, text = "latin-1", part.raw.decode("latin-1")
    if "\0" in text:
        return Opaque(place, part.media_type)

    def put(new: str) -> None:
        part.raw = new.encode(encoding, "replace")

    return Spot(Text(place, text), put)


def _field(owner: Message | Artifact | Part, name: str, place: str = "") -> Iterator[Spot]:
    if text := getattr(owner, name):
        yield Spot(Text(f"{place}.{name}".lstrip("."), text), lambda new: setattr(owner, name, new))


def _struct(held: Struct, place: str) -> Iterator[Spot]:
    for key in sorted(held.fields):
        if key != URI:
            yield from _member(held, key, place)
            continue
        ours = held.fields[key].struct_value
        for inner in sorted(ours.fields):
            if inner not in _OURS:
                yield from _member(ours, inner, f"{place}.extension")


def _member(held: Struct, key: str, place: str) -> Iterator[Spot]:
    """The value before its name: a name that is replaced takes its value along."""

    def put(new: str) -> None:
        held.fields[key].string_value = new

    def rename(new: str) -> None:
        held.fields[new].CopyFrom(held.fields[key])
        del held.fields[key]

    yield from _value(held.fields[key], f"{place}.{_shown(key)}", key, put)
    yield Spot(Text(f"{place}.(name)", key), rename)


def _shown(key: str) -> str:
    """A name as places show it: they are recorded, and a name can be anything."""
    return key if len(key) <= _LONGEST_NAME and key.replace("_", "").isalpha() else "?"


def _value(value: Value, place: str, label: str, put: Callable[[str], None]) -> Iterator[Spot]:
    match value.WhichOneof("kind"):
        case "string_value":
            if value.string_value:
                yield Spot(Text(place, value.string_value, label), put)
        case "number_value":
            if digits := _digits(value.number_value):
                yield Spot(Text(place, digits, label), put)
        case "struct_value":
            yield from _struct(value.struct_value, place)
        case "list_value":
            yield from _list(value.list_value, place, label)


def _list(values: ListValue, place: str, label: str) -> Iterator[Spot]:
    for number, value in enumerate(values.values):

        def put(new: str, value: Value = value) -> None:
            value.string_value = new

        yield from _value(value, f"{place}[{number}]", label, put)
