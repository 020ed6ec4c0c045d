"""Analysis of JSON Schemas: subschemas, references, types, and values where these are few.

References and unions multiply what a short document says. So the work of looking at schemas, and
what is written in their place, is limited for the whole document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from ollama_async.core.errors import BadRequest

Schema = dict[str, Any]

MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
LISTS = ("prefixItems", "allOf", "anyOf", "oneOf")
SINGLE = (
    *("additionalItems", "additionalProperties", "contains", "else", "if", "items", "not"),
    *("propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
)
COMBINING = ("allOf", "anyOf", "oneOf", "$ref")

KEYWORDS = frozenset(
    {
        *(*MAPS, *LISTS, *SINGLE, *COMBINING),
        *("$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef"),
        *("$schema", "const", "dependencies", "dependentRequired", "enum", "exclusiveMaximum"),
        *("exclusiveMinimum", "format", "id", "maxContains", "maxItems", "maxLength"),
        *("maxProperties", "maximum", "minContains", "minItems", "minLength", "minProperties"),
        *("minimum", "multipleOf", "pattern", "required", "type", "uniqueItems"),
    }
)
"""All keywords that affect which instances are valid, or what references mean."""

_INDEX = re.compile(r"\d{1,9}")

_SHAPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(MAPS, (dict,)),
    **dict.fromkeys(LISTS, (list,)),
    **dict.fromkeys(SINGLE, (dict, bool)),
    **dict.fromkeys(("$ref", "format", "pattern"), (str,)),
    "items": (dict, bool, list),
    "enum": (list,),
    "type": (str, list),
}


def schemas(root: Schema) -> Iterator[Schema]:
    """``root``, all its subschemas and what they refer to, each once.

    Values (of ``enum``, ``default``) are not schemas.
    """
    todo, seen = [root], set[int]()
    while todo:
        schema = todo.pop()
        if id(schema) in seen:
            continue
        seen.add(id(schema))
        yield schema
        todo += [part for _, inner in parts(schema) for part in inner]
        target = resolve(root, schema.get("$ref"))
        if target is not None:
            todo.append(target)


def parts(schema: Schema) -> Iterator[tuple[str, list[Schema]]]:
    """The direct subschemas of ``schema``, by keyword."""
    for keyword, value in schema.items():
        inner: list[Any] = []
        if keyword in MAPS and isinstance(value, dict):
            inner = list(value.values())
        elif (keyword in LISTS or keyword == "items") and isinstance(value, list):
            inner = value
        elif keyword in SINGLE:
            inner = [value]
        found = [part for part in inner if isinstance(part, dict)]
        if found:
            yield keyword, found


def resolve(root: Schema | None, reference: object) -> Schema | None:
    """The schema that a JSON pointer within this document names; None if there is none."""
    if root is None or not isinstance(reference, str) or not reference.startswith("#"):
        return None
    place: Any = root
    for step in reference[1:].split("/")[1:]:
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(place, list) and _INDEX.fullmatch(key) and int(key) < len(place):
            place = place[int(key)]
        elif isinstance(place, dict) and key in place:
            place = place[key]
        else:
            return None
    return place if isinstance(place, dict) and reference[1:2] in {"", "/"} else None


def check_shape(schema: Schema) -> None:
    """:raises BadRequest: a keyword of ``schema`` has a value of the wrong type."""
    for keyword in schema.keys() & _SHAPES.keys():
        if not isinstance(schema[keyword], _SHAPES[keyword]):
            raise BadRequest(f'format: "{keyword}" cannot be {type(schema[keyword]).__name__}')
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise BadRequest('format: "required" is no list of names')


VALUES_LIMIT = 500
"""Values of one schema that are enumerated."""

VISITS_LIMIT = 1 << 17
"""Visits of keywords, names and values in one document."""

ADDITIONS_LIMIT = 1 << 14
"""Names and items added to one document in place of keywords."""

_LEVELS = 20  # of references and unions
_ANNOTATIONS = frozenset(
    {
        *("$anchor", "$comment", "$defs", "$id", "$schema", "contentEncoding"),
        *("contentMediaType", "contentSchema", "default", "definitions", "deprecated"),
        *("description", "discriminator", "example", "examples", "readOnly", "title", "writeOnly"),
    }
)
Keyed = dict[str, Any]
"""Values by a key that equal values share."""

_FINITE_TYPES: dict[str, Keyed] = {
    "boolean": {"false": False, "true": True},
    "null": {"null": None},
}
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
    """A limit on work for one document."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def allows(self, cost: int) -> bool:
        """Whether ``cost`` is left; if so, it is spent."""
        if cost > self._left:
            return False
        self._left -= cost
        return True


class SchemaAnalysis:
    """Values and types of the schemas in the document ``root``; None: references are unknown.

    Results are cached by identity, so all schemas must live as long as this object. A schema that
    is rewritten meanwhile, so that it allows no more than before, keeps its first result.
    """

    def __init__(self, root: Schema | None) -> None:
        self._root = root
        self._known: dict[int, Keyed | None] = {}
        self._known_types: dict[int, frozenset[str] | None] = {}
        self._targets: dict[int, Schema | None] = {}
        self._level = 0
        self.visits = Budget(VISITS_LIMIT)
        self.additions = Budget(ADDITIONS_LIMIT)

    def target(self, schema: Schema) -> Schema | None:
        if id(schema) not in self._targets:
            self._targets[id(schema)] = resolve(self._root, schema["$ref"])
        return self._targets[id(schema)]

    def values(self, schema: object) -> Keyed | None:
        """All distinct values that are valid under ``schema``, by :func:`canonical_key`; None if
        they are too many or unknown.
        """
        if not isinstance(schema, dict):
            return {} if schema is False else None
        if id(schema) not in self._known:
            self._known[id(schema)] = None  # for a schema that contains itself
            self._level += 1
            if self._level <= _LEVELS:
                self._known[id(schema)] = self._find(schema)
            self._level -= 1
        return self._known[id(schema)]

    def _find(self, schema: Schema) -> Keyed | None:
        keywords = asserting(schema)
        if keywords == {"$ref"}:
            return self.values(self.target(schema))
        if keywords in ({"anyOf"}, {"oneOf"}):
            return self._values_of_union(schema[keywords.pop()])
        if keywords == {"type"}:
            return _FINITE_TYPES.get(str(schema["type"]))
        return (
            _values_of_list(schema)
            if keywords <= {"type", "enum", "const"}
            else self._values_of_range(schema)
        )

    def _values_of_union(self, options: object) -> Keyed | None:
        found: Keyed = {}
        for option in options if isinstance(options, list) else []:
            values = self.values(option)
            if values is None or not self.visits.allows(1 + len(values)):
                return None
            found |= values
            if len(found) > VALUES_LIMIT:
                return None
        return found

    def _values_of_range(self, schema: Schema) -> Keyed | None:
        low, high = schema.get("minimum"), schema.get("maximum")
        if asserting(schema) != {"type", "minimum", "maximum"} or schema["type"] != "integer":
            return None
        if not isinstance(low, int) or not isinstance(high, int) or high - low >= VALUES_LIMIT:
            return None
        numbers = range(low, high + 1)
        if not self.visits.allows(len(numbers)):
            return None
        return {str(number): number for number in numbers}

    def types(self, schema: Schema) -> frozenset[str] | None:
        """A superset of the types that values of ``schema`` may have; None: any."""
        if id(schema) not in self._known_types:
            self._known_types[id(schema)] = self._find_types(schema)
        return self._known_types[id(schema)]

    def _find_types(self, schema: Schema) -> frozenset[str] | None:
        for _ in range(_LEVELS):
            if "type" in schema or "$ref" not in schema:
                break
            if (target := self.target(schema)) is None:
                return None
            schema = target
        types = schema.get("type")
        if isinstance(types, (str, list)):
            named = frozenset(map(str, types if isinstance(types, list) else [types]))
            return named.intersection(_TYPES) or None
        values = self.values(schema)
        if values is None:
            return None
        return frozenset(
            next(name for name in _TYPES if _is(value, name)) for value in values.values()
        )


def asserting(schema: Schema) -> set[str]:
    """The keywords of ``schema`` that are not annotations."""
    return {key for key in schema if key not in _ANNOTATIONS and not key.startswith("x-")}


def canonical_key(value: object) -> str:
    """A key that is the same for values that are equal in JSON."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        return f"[{','.join(map(canonical_key, value))}]"
    if isinstance(value, dict):
        members = sorted(json.dumps(key) + canonical_key(each) for key, each in value.items())
        return f"{{{','.join(members)}}}"
    return json.dumps(value)


def _values_of_list(schema: Schema) -> Keyed | None:
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if not isinstance(values, list) or len(values) > VALUES_LIMIT:
        return None
    if "const" in schema:
        only = canonical_key(schema["const"])
        values = [value for value in values if canonical_key(value) == only]
    types = schema.get("type")
    names = types if isinstance(types, list) else [types]
    return {
        canonical_key(value): value
        for value in values
        if types is None or any(_is(value, str(name)) for name in names)
    }


def _is(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(name, ()))
