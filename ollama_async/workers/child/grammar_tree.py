"""JSON Schemas as trees: which schemas stand in one, and what a reference in it means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from ollama_async.core.errors import BadRequest

Schema = dict[str, Any]

MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
LISTS = ("prefixItems", "allOf", "anyOf", "oneOf")
SINGLE = (
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
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
"""All that say something about instances, or about where something stands."""

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
    """``root`` and all schemas in it, each once, and those elsewhere in it that they refer to;
    values (``enum``, ``default``) are none.
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
    """The schemas directly within ``schema``, by keyword."""
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
    """The schema that a JSON pointer within this document names; None also if there is no root."""
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
    """:raises BadRequest: a keyword of ``schema`` is followed by something of the wrong kind."""
    for keyword in schema.keys() & _SHAPES.keys():
        if not isinstance(schema[keyword], _SHAPES[keyword]):
            raise BadRequest(f'format: "{keyword}" cannot be {type(schema[keyword]).__name__}')
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise BadRequest('format: "required" is no list of names')
