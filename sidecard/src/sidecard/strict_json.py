"""JSON as A2A requests may have it: what parsers disagree on, or protobuf can't keep, is refused in plain words."""

import json
import re
from typing import Any, NoReturn

from a2a.utils.errors import JSONParseError

MAX_DEPTH = 32
"""JSON nesting that a request may have. Protobuf can't read back more than 100 levels, and needs three for each."""
MAX_VALUES = 20_000
"""Values, however deep, that a request may hold. Each costs some ten microseconds to read, check and give out again,
during which nobody else is served: four megabytes of zeros took half a minute."""
MAX_DIGITS = 300
"""Digits of an integer; a double ends at 308."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(body: bytes) -> object:
    """The body, parsed. Raises JSONParseError for what is no JSON, and for JSON that parsers disagree on."""
    try:
        value: object = _DECODER.decode(body.decode("utf-8"))
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError:
        raise JSONParseError("The body is not valid UTF-8") from None
    except UnicodeEncodeError:
        raise JSONParseError("The JSON has half of a surrogate pair in a string") from None
    except json.JSONDecodeError as error:
        raise JSONParseError(f"The body is not valid JSON (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise _TOO_DEEP from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper(value, MAX_DEPTH):
        raise _TOO_DEEP
    if sum(map(body.count, (b",", b"[", b"{"))) >= MAX_VALUES and _values(value, MAX_VALUES) > MAX_VALUES:
        raise JSONParseError(f"The JSON has more than {MAX_VALUES} values; put large data into a file part")
    return value


_TOO_DEEP = JSONParseError(f"The JSON is nested more than {MAX_DEPTH} deep")


def _no_constant(name: str) -> NoReturn:
    raise JSONParseError(f"The body is not valid JSON: it has no {name}")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise JSONParseError(f"The JSON has an integer of more than {MAX_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise JSONParseError("The JSON has a number that is too large")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise JSONParseError("The JSON has an object in which a key comes twice")
    return value


def _deeper(value: object, depth: int) -> bool:
    if isinstance(value, dict):
        return depth == 0 or any(_deeper(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth == 0 or any(_deeper(item, depth - 1) for item in value)
    return False


def _values(value: object, most: int) -> int:
    """How many values there are; counting stops soon after `most`."""
    found, within = 0, [value]
    while within and found <= most:
        one = within.pop()
        found += 1
        if isinstance(one, dict):
            within.extend(one.values())
        elif isinstance(one, list):
            within.extend(one)
    return found


_DECODER = json.JSONDecoder(
    parse_constant=_no_constant, parse_int=_integer, parse_float=_float, object_pairs_hook=_object
)
