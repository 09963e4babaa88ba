"""How steps are recorded: what tells them apart, and what they returned."""

import functools
import hashlib
import inspect
import json
from collections.abc import Callable
from typing import Any, get_type_hints

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from sidecard.errors import SidecardError


class StepFailed(SidecardError):
    """What `Task.step` and `Task.once` raise when their function did: recorded, so the same whenever the skill runs."""


def fingerprint_of(name: str, arguments: tuple[object, ...]) -> str:
    """What tells a step from another one at the same place."""
    plain = to_jsonable_python(arguments, fallback=repr)
    return f"{name[:40]}#{hashlib.sha256(json.dumps([name, plain], sort_keys=True).encode()).hexdigest()[:12]}"


def nameless(fingerprint: str) -> str:
    """A fingerprint without the beginning of the name that it shows: a question may say what must not be stored."""
    return fingerprint[fingerprint.rfind("#") :]


def same(one: str, other: str) -> bool:
    """Whether two fingerprints are of the same step; the name that each shows is part of its digest."""
    return one == other or nameless(one) == nameless(other)


def codec_of(function: Callable[..., Any]) -> TypeAdapter[Any]:
    """How the result of a function is recorded and read back: by its return annotation, so that both are one type."""
    try:
        returns = get_type_hints(inspect.unwrap(function)).get("return", Any)
    except (TypeError, NameError):
        return _adapter(Any)
    return _adapter(returns)


@functools.lru_cache(maxsize=512)
def _adapter(returns: Any) -> TypeAdapter[Any]:  # noqa: ANN401 -- an annotation
    """Raises, before anything is done, for a type that can't be recorded: return a model instead."""
    return TypeAdapter(returns)
