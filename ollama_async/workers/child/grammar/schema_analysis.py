"""What is known about the values of a schema: all of them, if they are few, and their types.

References and unions multiply what a short document says, so that what is looked at, and what is
written in its place, is counted for the whole document.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ollama_async.workers.child.grammar_tree import Schema, resolve

VALUES_LIMIT = 500
"""Values that are looked at one by one."""

LOOKS_LIMIT = 1 << 17
"""Keywords, names and values that are looked at in one document, again and again or once."""

ADDITIONS_LIMIT = 1 << 14
"""Names and items that are written into one document in the place of keywords."""

_LEVELS = 20  # of references and unions
_SAYS_NOTHING = frozenset(
    {
        "$anchor",
        "$comment",
        "$defs",
        "$id",
        "$schema",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "default",
        "definitions",
        "deprecated",
        "description",
        "discriminator",
        "example",
        "examples",
        "readOnly",
        "title",
        "writeOnly",
    }
)
Keyed = dict[str, Any]
"""Values by the keys that equal ones have in common."""

_FEW: dict[str, Keyed] = {"boolean": {"false": False, "true": True}, "null": {"null": None}}
_TYPES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "array": (list,),
    "object": (dict,),
}


class Budget:
    """How much may still be done for one document."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def allows(self, cost: int) -> bool:
        """Whether so much may be done; it is counted as done then."""
        if cost > self._left:
            return False
        self._left -= cost
        return True


class Values:
    """Of the schemas in the document ``root``; None: references mean nothing.

    Schemas are known by their identity: all of them have to live as long as this does. One that is
    rewritten meanwhile, so that it allows no more than before, stays known as it was.
    """

    def __init__(self, root: Schema | None) -> None:
        self._root = root
        self._known: dict[int, Keyed | None] = {}
        self._known_types: dict[int, frozenset[str] | None] = {}
        self._targets: dict[int, Schema | None] = {}
        self._level = 0
        self.looks = Budget(LOOKS_LIMIT)
        self.additions = Budget(ADDITIONS_LIMIT)

    def target(self, schema: Schema) -> Schema | None:
        """What the ``$ref`` in ``schema`` means."""
        if id(schema) not in self._targets:
            self._targets[id(schema)] = resolve(self._root, schema["$ref"])
        return self._targets[id(schema)]

    def of(self, schema: object) -> list[Any] | None:
        """All values that are valid under ``schema``, each once; None: too many, or not known."""
        keyed = self.keyed(schema)
        return None if keyed is None else list(keyed.values())

    def keyed(self, schema: object) -> Keyed | None:
        """The same by their keys (:func:`same`)."""
        if not isinstance(schema, dict):
            return {} if schema is False else None
        if id(schema) not in self._known:
            self._known[id(schema)] = None  # of a schema that contains itself
            self._level += 1
            if self._level <= _LEVELS:
                self._known[id(schema)] = self._find(schema)
            self._level -= 1
        return self._known[id(schema)]

    def _find(self, schema: Schema) -> Keyed | None:
        says = asserting(schema)
        if says == {"$ref"}:
            return self.keyed(self.target(schema))
        for keyword in ("anyOf", "oneOf"):
            if says == {keyword}:
                return self._of_union(schema[keyword])
        if says == {"type"}:
            return _FEW.get(str(schema["type"]))
        return _listed(schema) if says <= {"type", "enum", "const"} else self._integers(schema)

    def _of_union(self, options: object) -> Keyed | None:
        found: Keyed = {}
        for option in options if isinstance(options, list) else []:
            values = self.keyed(option)
            if values is None or not self.looks.allows(1 + len(values)):
                return None
            found |= values
            if len(found) > VALUES_LIMIT:
                return None
        return found

    def _integers(self, schema: Schema) -> Keyed | None:
        """Those between two bounds."""
        low, high = schema.get("minimum"), schema.get("maximum")
        if asserting(schema) != {"type", "minimum", "maximum"} or schema["type"] != "integer":
            return None
        if not isinstance(low, int) or not isinstance(high, int) or high - low >= VALUES_LIMIT:
            return None
        numbers = range(low, high + 1)
        if not self.looks.allows(len(numbers)):
            return None
        return {str(number): number for number in numbers}

    def types(self, schema: Schema) -> frozenset[str] | None:
        """The types that values of ``schema`` may have, and some more; None: any."""
        if id(schema) not in self._known_types:
            self._known_types[id(schema)] = self._find_types(schema)
        return self._known_types[id(schema)]

    def _find_types(self, schema: Schema) -> frozenset[str] | None:
        place: Schema | None = schema
        for _ in range(_LEVELS):
            if place is None or "type" in place or "$ref" not in place:
                break
            place = self.target(place)
        return None if place is None else self._types(place)

    def _types(self, schema: Schema) -> frozenset[str] | None:
        said = schema.get("type")
        if isinstance(said, (str, list)):
            named = frozenset(map(str, said if isinstance(said, list) else [said]))
            return named.intersection(_TYPES) or None
        values = self.of(schema)
        return None if values is None else frozenset(map(_type_of, values))


def asserting(schema: Schema) -> set[str]:
    """The keywords of ``schema`` that are more than an annotation."""
    return {key for key in schema if key not in _SAYS_NOTHING and not key.startswith("x-")}


def same(value: object) -> str:
    """A key for ``value`` that is equal for values that are equal in JSON."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        return f"[{','.join(map(same, value))}]"
    if isinstance(value, dict):
        return (
            f"{{{','.join(sorted(json.dumps(key) + same(each) for key, each in value.items()))}}}"
        )
    return json.dumps(value)


def _listed(schema: Schema) -> Keyed | None:
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if not isinstance(values, list) or len(values) > VALUES_LIMIT:
        return None
    if "const" in schema:
        only = same(schema["const"])
        values = [value for value in values if same(value) == only]
    return _distinct([value for value in values if _has_type(value, schema.get("type"))])


def _distinct(values: Iterable[Any]) -> Keyed:
    return {same(value): value for value in values}


def _has_type(value: object, types: object) -> bool:
    if types is None:
        return True
    listed = types if isinstance(types, list) else [types]
    return any(_is(value, str(each)) for each in listed)


def _is(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(name, ()))


def _type_of(value: object) -> str:
    return next(name for name in _TYPES if _is(value, name))
