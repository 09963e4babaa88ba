"""Whether JSON, or a query string, has the shape of an A2A request; and if not, where.

The SDK's parser would say it in the interpreter's words, takes an unknown enum value for none, and decodes what is not
base64. Unknown fields are ignored, as A2A 1.0 §5.7 wants.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, cast

from a2a.utils.errors import InvalidParamsError
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

MAX_VIOLATIONS = 10
INT32 = range(-(2**31), 2**31)
_INTEGER = re.compile(r"-?[0-9]{1,10}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*+={0,2}")
Found = Iterator[tuple[str, str]]


def check(value: object, request: type[Message]) -> None:
    """Raises InvalidParamsError, naming the fields, when parsed JSON is not such a request in ProtoJSON."""
    _refuse(_message("", value, cast("Descriptor", request.DESCRIPTOR)))


def check_query(query: Mapping[str, str], request: type[Message]) -> None:
    """The same for a request in query parameters (§11.5)."""
    _refuse(_query(query, cast("Descriptor", request.DESCRIPTOR)))


def _refuse(found: Found) -> None:
    violations = [{"field": field, "message": message} for field, message in islice(found, MAX_VIOLATIONS)]
    if violations:
        raise InvalidParamsError("; ".join(f"{v['field']} {v['message']}" for v in violations), {"errors": violations})


def _query(query: Mapping[str, str], descriptor: Descriptor) -> Found:
    fields = _fields(descriptor)
    for name, value in query.items():
        field = fields.get(name)
        if field is None or field.json_name != name:
            continue
        if field.type == FieldDescriptor.TYPE_BOOL:
            if value not in {"true", "false"}:
                yield name, "must be true or false"
        else:
            yield from _single(name, value, field)


def _message(path: str, value: object, descriptor: Descriptor) -> Found:
    match descriptor.full_name:
        case "google.protobuf.Value":
            return
        case "google.protobuf.Timestamp":
            if not _is_timestamp(value):
                yield path, "must be a time such as 2026-03-03T10:00:00Z"
            return
    if not isinstance(value, dict):
        yield path or "params", "must be an object"
    elif descriptor.full_name != "google.protobuf.Struct":
        yield from _members(path, value, descriptor)


def _members(path: str, value: dict[str, Any], descriptor: Descriptor) -> Found:
    fields = _fields(descriptor)
    given: set[str] = set()
    for name, item in value.items():
        field = fields.get(name)
        if field is None:
            continue
        here = f"{path}.{field.json_name}" if path else field.json_name
        choice = field.containing_oneof.name if field.containing_oneof is not None and item is not None else field.name
        if {choice, field.name} & given:
            yield here, "is given twice, or beside another that excludes it"
        given |= {choice, field.name}
        if item is None:
            continue
        if not field.is_repeated:
            yield from _single(here, item, field)
        elif not isinstance(item, list):
            yield here, "must be a list"
        else:
            for number, element in enumerate(item):
                yield from _single(f"{here}[{number}]", element, field)


def _single(path: str, value: object, field: FieldDescriptor) -> Found:
    if field.message_type is not None:
        yield from _message(path, value, field.message_type)
    elif field.enum_type is not None:
        names = list(field.enum_type.values_by_name)
        if value not in names:
            yield path, f"must be one of {', '.join(names[1:])}"
    else:
        fits, demand = _SCALARS[field.type]
        if not fits(value):
            yield path, demand


@cache
def _fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """By both names that ProtoJSON takes."""
    return {name: field for field in descriptor.fields for name in (field.name, field.json_name)}


def _is_int32(value: object) -> bool:
    if isinstance(value, str):
        return bool(_INTEGER.fullmatch(value)) and int(value) in INT32
    return isinstance(value, int) and not isinstance(value, bool) and value in INT32


def _is_base64(value: object) -> bool:
    """With or without padding, of either alphabet."""
    return isinstance(value, str) and bool(_BASE64.fullmatch(value)) and len(value.rstrip("=")) % 4 != 1


def _is_timestamp(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        Timestamp().FromJsonString(value)
    except (ValueError, OverflowError):
        return False
    return True


_SCALARS: dict[int, tuple[Callable[[object], bool], str]] = {
    FieldDescriptor.TYPE_STRING: (lambda value: isinstance(value, str), "must be a string"),
    FieldDescriptor.TYPE_BOOL: (lambda value: isinstance(value, bool), "must be true or false"),
    FieldDescriptor.TYPE_BYTES: (_is_base64, "must be base64"),
    FieldDescriptor.TYPE_INT32: (_is_int32, "must be an integer of 32 bits"),
}
"""The scalar types that requests of A2A 1.0 have."""
