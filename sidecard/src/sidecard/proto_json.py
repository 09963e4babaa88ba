"""ProtoJSON, in and out: requests are read strictly, each fault named with its place; answers are written quickly.

The SDK's parser would say what is wrong in the interpreter's words, takes an unknown enum value for none, and decodes
what is not base64. Reading and writing follow one plan per message type, made once; protobuf's own way, which looks at
every field's description each time, takes about five times as long. Unknown fields are ignored (A2A 1.0 §5.7).
"""

import base64
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

from a2a.utils.errors import InvalidParamsError
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

MAX_VIOLATIONS = 10
INT32 = range(-(2**31), 2**31)
_INTEGER = re.compile(r"-?[0-9]{1,10}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*+={0,2}")

M = TypeVar("M", bound=Message)
Faults = list[tuple[str, str]]
"""Where something is wrong, and what must be there."""


def read(value: object, request: type[M]) -> M:
    """The request that parsed JSON is. Raises InvalidParamsError, naming the fields, when it is not such a request."""
    message, faults = request(), Faults()
    _read_message("", value, message, faults)
    _refuse(faults)
    return message


def check_query(query: Mapping[str, str], request: type[Message]) -> None:
    """Raises the same for a request in query parameters (§11.5)."""
    faults = Faults()
    message, fields = request(), _fields(cast("Descriptor", request.DESCRIPTOR))
    for name, value in query.items():
        field = fields.get(name)
        if field is None or field.json_name != name:
            continue
        if field.kind == FieldDescriptor.TYPE_BOOL:
            if value not in {"true", "false"}:
                faults.append((name, "must be true or false"))
        else:
            _read_member(name, value, field, message, faults)
    _refuse(faults)


def write(message: Message) -> dict[str, Any]:
    """The message in ProtoJSON, as `json_format.MessageToDict` gives it; for types without maps and 64-bit numbers.

    Raises ValueError for a number that JSON doesn't have.
    """
    fields = _written(cast("Descriptor", message.DESCRIPTOR))
    written = {}
    for field, value in message.ListFields():
        name, repeated, as_json = fields[field.number]
        if as_json is None:
            written[name] = value
        elif repeated:
            written[name] = [as_json(item) for item in value]
        else:
            written[name] = as_json(value)
    return written


# -- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a message type. `excludes` is the name that it shares with those that it can't stand beside."""

    name: str
    json_name: str
    kind: int
    excludes: str
    repeated: bool
    type_name: str
    numbers: Mapping[str, int]


@cache
def _fields(descriptor: Descriptor) -> dict[str, _Field]:
    """By both names that ProtoJSON takes."""
    fields: dict[str, _Field] = {}
    for described in descriptor.fields:
        choice, enum, message = described.containing_oneof, described.enum_type, described.message_type
        field = _Field(
            name=described.name,
            json_name=described.json_name,
            kind=described.type,
            excludes=choice.name if choice is not None else described.name,
            repeated=described.is_repeated,
            type_name=message.full_name if message is not None else "",
            numbers={} if enum is None else {value.name: value.number for value in enum.values},
        )
        fields |= {field.name: field, field.json_name: field}
    return fields


def _refuse(faults: Faults) -> None:
    if faults:
        violations = [{"field": field, "message": message} for field, message in faults[:MAX_VIOLATIONS]]
        raise InvalidParamsError("; ".join(f"{v['field']} {v['message']}" for v in violations), {"errors": violations})


def _read_message(path: str, value: object, into: Message, faults: Faults) -> None:
    """Read an object into a message whose type has fields."""
    if not isinstance(value, dict):
        faults.append((path or "params", "must be an object"))
        return
    fields = _fields(cast("Descriptor", into.DESCRIPTOR))
    given: set[str] = set()
    for name, item in value.items():
        field = fields.get(name)
        if field is None:
            continue
        here = f"{path}.{field.json_name}" if path else field.json_name
        excludes = field.name if item is None else field.excludes
        if excludes in given or field.name in given:
            faults.append((here, "is given twice, or beside another that excludes it"))
        given.add(excludes)
        given.add(field.name)
        if item is None:
            if field.type_name == "google.protobuf.Value":
                getattr(into, field.name).null_value = 0
        elif not field.repeated:
            _read_member(here, item, field, into, faults)
        elif not isinstance(item, list):
            faults.append((here, "must be a list"))
        else:
            _read_list(here, item, field, into, faults)


def _read_member(path: str, value: object, field: _Field, into: Message, faults: Faults) -> None:
    if field.type_name:
        within = getattr(into, field.name)
        within.SetInParent()
        _READERS.get(field.type_name, _read_message)(path, value, within, faults)
        return
    found = _scalar(path, value, field, faults)
    if found is not None:
        setattr(into, field.name, found)


def _read_list(path: str, items: Iterable[object], field: _Field, into: Message, faults: Faults) -> None:
    within = getattr(into, field.name)
    if field.type_name:
        reader = _READERS.get(field.type_name, _read_message)
        for number, item in enumerate(items):
            reader(f"{path}[{number}]", item, within.add(), faults)
        return
    for number, item in enumerate(items):
        found = _scalar(f"{path}[{number}]", item, field, faults)
        if found is not None:
            within.append(found)


def _scalar(path: str, value: object, field: _Field, faults: Faults) -> object:
    """What a field is set to; None, with a fault noted, for what doesn't fit."""
    if field.numbers:
        found: object = field.numbers.get(value) if isinstance(value, str) else None
        demand = f"must be one of {', '.join(list(field.numbers)[1:])}"
    else:
        convert, demand = _SCALARS[field.kind]
        found = convert(value)
    if found is None:
        faults.append((path, demand))
    return found


def _bytes(value: object) -> bytes | None:
    """What base64 of either alphabet says, with padding or without."""
    if not isinstance(value, str) or not _BASE64.fullmatch(value):
        return None
    digits = value.rstrip("=")
    return None if len(digits) % 4 == 1 else base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4))


def _int32(value: object) -> int | None:
    if isinstance(value, str):
        value = int(value) if _INTEGER.fullmatch(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value in INT32 else None


_SCALARS: dict[int, tuple[Callable[[object], object], str]] = {
    FieldDescriptor.TYPE_STRING: (lambda value: value if isinstance(value, str) else None, "must be a string"),
    FieldDescriptor.TYPE_BOOL: (lambda value: value if isinstance(value, bool) else None, "must be true or false"),
    FieldDescriptor.TYPE_BYTES: (_bytes, "must be base64"),
    FieldDescriptor.TYPE_INT32: (_int32, "must be an integer of 32 bits"),
}
"""The scalar types that requests of A2A 1.0 have: what makes a field's value of JSON, None where it doesn't fit."""


def _read_timestamp(path: str, value: object, into: Message, faults: Faults) -> None:
    if isinstance(value, str):
        try:
            cast("Timestamp", into).FromJsonString(value)
        except (ValueError, OverflowError):
            pass
        else:
            return
    faults.append((path, "must be a time such as 2026-03-03T10:00:00Z"))


def _read_struct(path: str, value: object, into: Message, faults: Faults) -> None:
    if isinstance(value, dict):
        _fill_struct(value, cast("Struct", into))
    else:
        faults.append((path, "must be an object"))


def _read_value(_path: str, value: object, into: Message, _faults: Faults) -> None:
    _fill_value(value, cast("Value", into))


def _fill_struct(value: dict[str, object], into: Struct) -> None:
    fields = into.fields
    for name, item in value.items():
        _fill_value(item, fields[name])


def _fill_value(value: object, into: Value) -> None:
    match value:
        case str():
            into.string_value = value
        case bool():
            into.bool_value = value
        case int() | float():
            into.number_value = value
        case dict():
            into.struct_value.SetInParent()
            _fill_struct(value, into.struct_value)
        case list():
            into.list_value.SetInParent()
            for item in value:
                _fill_value(item, into.list_value.values.add())
        case _:
            into.null_value = 0  # type: ignore[assignment]


_READERS: dict[str, Callable[[str, object, Message, Faults], None]] = {
    "google.protobuf.Struct": _read_struct,
    "google.protobuf.Timestamp": _read_timestamp,
    "google.protobuf.Value": _read_value,
}
"""Of the types that ProtoJSON writes in a way of their own, those that requests have."""


# -- writing ----------------------------------------------------------------------------------------------------------


@cache
def _written(descriptor: Descriptor) -> dict[int, tuple[str, bool, Callable[[Any], object] | None]]:
    """By number: a field's name, whether it is repeated, and what makes JSON of its value where that isn't JSON yet."""
    return {field.number: (field.json_name, field.is_repeated, _writer(field)) for field in descriptor.fields}


def _writer(field: FieldDescriptor) -> Callable[[Any], object] | None:
    if field.message_type is not None:
        if field.message_type.GetOptions().map_entry:
            raise NotImplementedError(f"{field.full_name} is a map: use json_format.MessageToDict")
        writer: Callable[[Any], object] = _WRITERS.get(field.message_type.full_name, write)
        return writer
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda number: names.get(number, number)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda raw: base64.b64encode(raw).decode("ascii")
    if field.is_repeated:
        return lambda item: item
    return None


def _write_struct(struct: Struct) -> dict[str, object]:
    fields = struct.fields
    return {name: _write_value(fields[name]) for name in fields}


def _write_list(values: ListValue) -> list[object]:
    return [_write_value(value) for value in values.values]


def _write_value(value: Value) -> object:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "number_value":
            if not math.isfinite(value.number_value):
                raise ValueError("JSON has finite numbers only")
            return value.number_value
        case "struct_value":
            return _write_struct(value.struct_value)
        case "list_value":
            return _write_list(value.list_value)
        case _:
            return None


_WRITERS: dict[str, Callable[[Any], object]] = {
    "google.protobuf.Struct": _write_struct,
    "google.protobuf.Timestamp": Timestamp.ToJsonString,
    "google.protobuf.Value": _write_value,
}
