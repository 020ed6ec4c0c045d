"""What is known about the values of a schema: all of them, if they are few, and their types."""

from __future__ import annotations

import json
from typing import Any

from ollama_async.workers.child.grammar_tree import Schema, resolve

VALUES_LIMIT = 500
"""Values that are looked at one by one."""

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
_FEW: dict[str, list[Any]] = {"boolean": [False, True], "null": [None]}
_TYPES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "array": (list,),
    "object": (dict,),
}


class Values:
    """Of the schemas in the document ``root``; None: references mean nothing."""

    def __init__(self, root: Schema | None) -> None:
        self._root = root
        self._known: dict[int, list[Any] | None] = {}
        self._level = 0

    def of(self, schema: object) -> list[Any] | None:
        """All values that are valid under ``schema``, each once; None: too many, or not known."""
        if not isinstance(schema, dict):
            return [] if schema is False else None
        if id(schema) not in self._known:
            self._known[id(schema)] = None  # of a schema that contains itself
            self._level += 1
            if self._level <= _LEVELS:
                self._known[id(schema)] = self._find(schema)
            self._level -= 1
        return self._known[id(schema)]

    def _find(self, schema: Schema) -> list[Any] | None:
        says = asserting(schema)
        if says == {"$ref"}:
            return self.of(resolve(self._root, schema["$ref"]))
        for keyword in ("anyOf", "oneOf"):
            if says == {keyword}:
                return self._of_union(schema[keyword])
        if says == {"type"}:
            return _FEW.get(str(schema["type"]))
        return _listed(schema) if says <= {"type", "enum", "const"} else _numbers(schema)

    def _of_union(self, options: object) -> list[Any] | None:
        found: list[Any] = []
        for option in options if isinstance(options, list) else []:
            values = self.of(option)
            if values is None or len(found) + len(values) > VALUES_LIMIT:
                return None
            found += values
        return _distinct(found)

    def types(self, schema: object) -> set[str] | None:
        """The types that values of ``schema`` may have, and some more; None: any."""
        for _ in range(_LEVELS):
            if not isinstance(schema, dict):
                return None
            if "type" in schema or "$ref" not in schema:
                break
            schema = resolve(self._root, schema["$ref"])
        return self._types(schema) if isinstance(schema, dict) else None

    def _types(self, schema: Schema) -> set[str] | None:
        said = schema.get("type")
        if isinstance(said, str):
            return {said}
        if isinstance(said, list):
            return set(map(str, said))
        values = self.of(schema)
        return None if values is None else {_type_of(value) for value in values}


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


def _listed(schema: Schema) -> list[Any] | None:
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if not isinstance(values, list) or len(values) > VALUES_LIMIT:
        return None
    if "const" in schema:
        values = [value for value in values if same(value) == same(schema["const"])]
    return _distinct([value for value in values if _has_type(value, schema.get("type"))])


def _numbers(schema: Schema) -> list[Any] | None:
    """The integers between two bounds."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if asserting(schema) != {"type", "minimum", "maximum"} or schema["type"] != "integer":
        return None
    if not isinstance(low, int) or not isinstance(high, int) or high - low >= VALUES_LIMIT:
        return None
    return list(range(low, high + 1))


def _distinct(values: list[Any]) -> list[Any]:
    return list({same(value): value for value in values}.values())


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
