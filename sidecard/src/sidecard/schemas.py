"""Whether one JSON Schema takes all that another lets through, and if not, where and why not.

Of the schemas that pydantic writes: references into `$defs`, types, enumerations, bounds, objects, lists, alternatives.
Whatever else a schema demands has to be demanded in the same words by the other one. When in doubt, it says no.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

Schema = dict[str, Any]

WORDS: Final = frozenset({"title", "description", "examples"})
"""What is only for readers."""
_NAMED = frozenset({"properties", "$defs", "patternProperties"})
"""Members of a schema whose own members are named by its author."""
_SAID = WORDS | {"default", "deprecated", "readOnly", "writeOnly", "discriminator", "$defs", "$ref", "$comment"}
_ALTERNATIVES = ("anyOf", "oneOf")
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_UNDERSTOOD = frozenset({"type", "enum", "const", "properties", "required", "additionalProperties", "items", "allOf",
                         *_ALTERNATIVES, *_LOWER, *_UPPER})  # fmt: skip
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "boolean": (bool,), "null": (type(None),), "object": (dict,), "array": (list,),
    "integer": (int,), "number": (int, float),
}  # fmt: skip
_NOT_AN_OBJECT: Schema = {"enum": []}
_DEEPEST = 64


def wordless(schema: Any) -> Any:  # noqa: ANN401 -- any JSON
    """A JSON Schema without what is only for readers."""
    if isinstance(schema, list):
        return [wordless(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: {key: wordless(one) for key, one in value.items()}
        if name in _NAMED and isinstance(value, dict)
        else wordless(value)
        for name, value in schema.items()
        if name not in WORDS
    }


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that one schema lets through and the other does not take. `path` is where, "" for the whole."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}" if self.path else self.why


def gaps(given: Schema, taken: Schema, *, guaranteed: bool = False) -> list[Gap]:
    """What is valid by `given` and not by `taken`; empty when all of it is taken.

    With `guaranteed` they are what a result is now, and what it was promised to be: each property that was named has to
    be there still, also one that was never required, and the words are those for a result.
    """
    return list(dict.fromkeys(_Comparison(given, taken, guaranteed=guaranteed).run()))


class _Comparison:
    """Compares two schemas, each with its own `$defs`."""

    def __init__(self, given: Schema, taken: Schema, *, guaranteed: bool) -> None:
        self._given, self._taken, self._guaranteed = given, taken, guaranteed
        self._open: set[tuple[str, str]] = set()
        self._lost = "may come now" if guaranteed else "is taken no longer"

    def run(self) -> Iterator[Gap]:
        """Every gap."""
        yield from self._compare(self._given, self._taken, "")

    def _compare(self, given: Schema | bool, taken: Schema | bool, path: str) -> Iterator[Gap]:
        one, other = _resolve(given, self._given), _resolve(taken, self._taken)
        pair = (json.dumps(one, sort_keys=True), json.dumps(other, sort_keys=True))
        if pair in self._open:  # a recursive model: what is being shown may be assumed
            return
        self._open.add(pair)
        yield from self._alternatives(one, other, path)
        self._open.discard(pair)

    def _alternatives(self, given: Schema, taken: Schema, path: str) -> Iterator[Gap]:
        given_any, taken_any = _split(given), _split(taken)
        if given_any is not None:
            for one in given_any:
                yield from self._compare(one, taken, path)
        elif taken_any is not None:
            yield from self._one_of(given, taken_any, path)
        else:
            yield from self._plain(given, taken, path)

    def _one_of(self, given: Schema, taken: list[Schema], path: str) -> Iterator[Gap]:
        tried = [list(self._compare(given, one, path)) for one in taken]
        if not all(tried):
            return
        kinds = [set(_kinds(_resolve(one, self._taken))) & set(_kinds(given)) for one in taken]
        alike = [found for found, common in zip(tried, kinds, strict=True) if common]
        if len(alike) == 1:
            yield from alike[0]
        else:
            yield Gap(path, f"{_shown(given)} {self._lost}")

    def _plain(self, given: Schema, taken: Schema, path: str) -> Iterator[Gap]:
        for part in taken.get("allOf", ()):
            yield from self._compare(given, part, path)
        if len(given.get("allOf", ())) == 1 and not _demands(given) - {"allOf"}:
            yield from self._compare(given["allOf"][0], {k: v for k, v in taken.items() if k != "allOf"}, path)
            return
        values = _values(given)
        if values is not None:
            yield from (Gap(path, f"{value!r} {self._lost}") for value in values if not _takes(taken, value))
            return
        if _values(taken) is not None:
            named = ", ".join(map(repr, _values(taken) or []))
            yield Gap(path, f"others than {named} may come now" if self._guaranteed else f"only {named} is taken now")
            return
        kinds, allowed = _kinds(given), _kinds(taken)
        if lost := [kind for kind in kinds if not _kind_fits(kind, allowed)]:
            yield Gap(
                path,
                f"{' and '.join(lost)} {self._lost}, {'not' if self._guaranteed else 'but'} {' or '.join(allowed)}",
            )
            return
        yield from self._bounds(given, taken, path)
        if "object" in kinds:
            yield from self._object(given, taken, path)
        if "array" in kinds and ("items" in taken):
            yield from self._compare(given.get("items", {}), taken["items"], f"{path}[]")
        for word in sorted(_demands(taken) - _UNDERSTOOD):
            if given.get(word) != taken[word]:
                yield self._differs(path, word, given.get(word), taken[word])

    def _bounds(self, given: Schema, taken: Schema, path: str) -> Iterator[Gap]:
        for names, tighter in ((_LOWER, max), (_UPPER, min)):
            for name in names:
                if name not in taken:
                    continue
                held = given.get(name)
                if held is None or tighter(held, taken[name]) != held:
                    yield self._differs(path, name, held, taken[name])

    def _differs(self, path: str, word: str, given: object, taken: object) -> Gap:
        now, before = (given, taken) if self._guaranteed else (taken, given)
        shown = ["not there" if value is None else repr(value) for value in (now, before)]
        return Gap(path, f"{word} is {shown[0]}, was {shown[1]}")

    def _object(self, given: Schema, taken: Schema, path: str) -> Iterator[Gap]:
        had, has = given.get("properties", {}), taken.get("properties", {})
        required, others = set(given.get("required", ())), taken.get("additionalProperties", True)
        gone = [name for name in has if name not in had] if self._guaranteed else []
        yield from (Gap(_join(path, name), "is gone") for name in gone)
        for name in sorted(set(taken.get("required", ())) - required - set(gone)):
            yield Gap(_join(path, name), "is no longer always there" if self._guaranteed else "is required now")
        for name, schema in had.items():
            if name in has:
                yield from self._compare(schema, has[name], _join(path, name))
            elif others is False:
                yield Gap(_join(path, name), "was not to be expected" if self._guaranteed else "is refused now")
            else:
                yield from self._compare(schema, others, _join(path, name))
        rest = given.get("additionalProperties", True)
        if isinstance(rest, dict):  # what may have had any name before is of this name now; true is no promise of that
            for name in has.keys() - had.keys():
                yield from self._compare(rest, has[name], _join(path, name))
        if rest is not False and others is not True and not (self._guaranteed and rest is True):
            if others is False:
                yield Gap(path, "fields that it does not know are refused now")
            else:
                yield from self._compare(rest, others, _join(path, "*"))


def _resolve(schema: Schema | bool, root: Schema) -> Schema:
    """The schema that a reference names, with what stands beside the reference."""
    if isinstance(schema, bool):
        return {} if schema else _NOT_AN_OBJECT
    for _ in range(_DEEPEST):
        reference = schema.get("$ref")
        if reference is None:
            return schema
        found = root.get("$defs", {}).get(str(reference).removeprefix("#/$defs/"))
        if found is None:
            return {"$ref": reference}
        beside = {name: value for name, value in schema.items() if name not in _SAID}
        schema = _both(beside, found)
    return schema


def _split(schema: Schema) -> list[Schema] | None:
    """The alternatives that a schema lets through, each with what stands beside them; None for a plain one."""
    for name in _ALTERNATIVES:
        if name in schema:
            beside = {key: value for key, value in schema.items() if key != name and key not in _SAID}
            return [_both(beside, one) for one in schema[name]]
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": kind} for kind in schema["type"]]
    return None


def _both(beside: Schema, schema: Schema) -> Schema:
    """What satisfies both. As one schema where that is the same: not where both demand something of one thing."""
    if not beside:
        return schema
    apart = not beside.keys() & schema.keys() and "additionalProperties" not in beside.keys() | schema.keys()
    return {**beside, **schema} if apart else {"allOf": [beside, schema]}


def _demands(schema: Schema) -> set[str]:
    return set(schema) - _SAID


def _values(schema: Schema) -> list[Any] | None:
    """The values that a schema enumerates, if it does."""
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def _takes(schema: Schema, value: object) -> bool:
    """Whether a schema takes a value of an enumeration; not, when that can't be told."""
    values = _values(schema)
    if values is not None:
        return any(type(one) is type(value) and one == value for one in values)
    simple = _demands(schema) <= {"type"}
    return simple and any(_is_of(value, kind) for kind in _kinds(schema))


def _is_of(value: object, kind: str) -> bool:
    return isinstance(value, _TYPES.get(kind, ())) and (kind == "boolean" or not isinstance(value, bool))


def _kinds(schema: Schema) -> list[str]:
    kind = schema.get("type")
    return [str(kind)] if isinstance(kind, str) else list(_TYPES)


def _kind_fits(kind: str, allowed: list[str]) -> bool:
    return kind in allowed or (kind == "integer" and "number" in allowed)


def _shown(schema: Schema) -> str:
    values = _values(schema)
    return " and ".join(_kinds(schema)) if values is None else ", ".join(map(repr, values))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
