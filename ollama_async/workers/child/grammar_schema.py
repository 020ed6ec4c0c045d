"""JSON Schemas made fit for enforcement.

Three things happen to a client's schema before the library compiles it:

- **Bounds.** A schema comes from anybody. Compiling costs milliseconds, but not for all: what is
  large, deep, or a multiple of a large number is refused.
- **Objects are closed.** By the standard ``{"properties": {"a": …}}`` allows any other property,
  and a small model is glad to invent some. Whoever lists properties means these, as in Ollama; what
  is generated is still valid. An object is left open where it says so (``additionalProperties``),
  and where it may have to agree with another schema (``allOf``, or next to ``$ref`` or ``anyOf``).
- **Annotations are dropped**: a ``format`` that the library does not know means nothing by the
  standard.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from ollama_async.errors import BadRequest

SIZE_LIMIT = 1 << 16
"""Characters. Compiling takes up to 0.4 s for so many, most of them names of properties."""

DEPTH_LIMIT = 60
"""Levels of JSON; the library's own reader takes 128."""

PROPERTIES_LIMIT = 500
"""Of one object; each step would look at all those that may come next."""

MULTIPLE_LIMIT = 10_000
"""Of all numbers after ``multipleOf`` together, decimals counted as integers: the library makes as
many states of it."""

WHITE_SPACE = r" |\n{1,2}[ \t]{0,20}"
"""Wherever JSON allows it: enough for any usual layout, and no model is lost in it."""

FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)

_OPTIONS = {
    "whitespace_pattern": WHITE_SPACE,
    "lenient": False,
    "coerce_one_of": False,
    # \u could write a property's name a second time, and half characters
    "json_allowed_escapes": 'nrbtf\\"',
}
_CODED = frozenset(map(chr, range(32))) - set("\n\r\b\t\f")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("prefixItems", "allOf", "anyOf", "oneOf")
_SINGLE = (
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
_COMBINING = ("allOf", "anyOf", "oneOf", "$ref")
_MEANINGLESS = {"uniqueItems": False, "minContains": 0}  # where they say what is so anyway
_UNENFORCED = (
    "contains",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "else",
    "if",
    "maxContains",
    "minContains",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
    "$dynamicRef",
    "$recursiveRef",
)

Schema = dict[str, Any]


def prepare(schema: Schema | bool) -> str:
    """``schema`` as JSON for the library, with our options.

    :raises BadRequest: it is too large, or has a keyword that cannot be enforced.
    """
    _check_size(schema)
    if schema is False:
        raise BadRequest("format: no answer can have this form")
    root: Schema = {} if schema is True else copy.deepcopy(schema)
    for each in _schemas(root):
        _clean(each)
        _check(each)
    _check_multiples(root)
    _close(root)
    return json.dumps({**root, "x-guidance": _OPTIONS}, ensure_ascii=False)


def loosen(schema: Schema) -> Schema:
    """A copy of ``schema`` without what cannot be enforced; whatever is valid stays valid.

    :raises BadRequest: it is too large.
    """
    _check_size(schema)
    root = copy.deepcopy(schema)
    for each in _schemas(root):
        for keyword in _UNENFORCED:
            each.pop(keyword, None)
        if "oneOf" in each and "anyOf" not in each:
            each["anyOf"] = each.pop("oneOf")
    return root


def _check_size(schema: object) -> None:
    level, values = [schema], 1
    for _ in range(DEPTH_LIMIT):
        level = [child for value in level for child in _children(value)]
        values += len(level)
        if not level or values > SIZE_LIMIT:
            break
    else:
        raise BadRequest(f"format: the schema has more than {DEPTH_LIMIT} levels")
    # writing it out holds up all threads: not if there are millions of values
    if values > SIZE_LIMIT or len(json.dumps(schema)) > SIZE_LIMIT:
        raise BadRequest(f"format: the schema has more than {SIZE_LIMIT} characters")


def _children(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _schemas(root: Schema) -> Iterator[Schema]:
    """``root`` and all schemas in it; values (``enum``, ``default``) are none."""
    todo = [root]
    while todo:
        schema = todo.pop()
        yield schema
        todo += [part for _, parts in _parts(schema) for part in parts]


def _parts(schema: Schema) -> Iterator[tuple[str, list[Schema]]]:
    """The schemas directly within ``schema``, by keyword."""
    for keyword, value in schema.items():
        inner: list[Any] = []
        if keyword in _MAPS and isinstance(value, dict):
            inner = list(value.values())
        elif (keyword in _LISTS or keyword == "items") and isinstance(value, list):
            inner = value
        elif keyword in _SINGLE:
            inner = [value]
        parts = [part for part in inner if isinstance(part, dict)]
        if parts:
            yield keyword, parts


def _clean(schema: Schema) -> None:
    if schema.get("format") not in FORMATS:
        schema.pop("format", None)
    for keyword, value in _MEANINGLESS.items():
        if schema.get(keyword) is value:
            del schema[keyword]


def _check(schema: Schema) -> None:
    for keyword in _UNENFORCED:
        if keyword in schema:
            raise BadRequest(f'format: the keyword "{keyword}" cannot be enforced')
    properties = schema.get("properties")
    if isinstance(properties, dict) and len(properties) > PROPERTIES_LIMIT:
        raise BadRequest(f'format: more than {PROPERTIES_LIMIT} "properties"')
    names = list(properties) if isinstance(properties, dict) else []
    values = {key: schema.get(key) for key in ("const", "enum", "required")}
    for keyword, value in {**values, "properties": names}.items():  # what is in them comes later
        if _needs_code(value):
            raise BadRequest(f'format: a control character in "{keyword}" cannot be written')


def _needs_code(value: object) -> bool:
    """Whether a string in ``value`` has a character that JSON can only write by its number."""
    if isinstance(value, str):
        return not _CODED.isdisjoint(value)
    names = list(value) if isinstance(value, dict) else []
    return any(map(_needs_code, [*names, *_children(value)]))


def _check_multiples(root: Schema) -> None:
    together = 1
    for schema in _schemas(root):
        multiple = schema.get("multipleOf")
        if isinstance(multiple, (int, float)) and 0 < multiple < math.inf:
            together = math.lcm(together, Fraction(str(multiple)).numerator)
        if together > MULTIPLE_LIMIT:
            raise BadRequest('format: "multipleOf" cannot be enforced for such a number')


# Closing


def _close(root: Schema) -> None:
    """Forbid what the objects that stand for themselves do not list."""
    for schema in _lone(root):
        if _lists_all(schema):
            schema.setdefault("type", "object")
            schema["additionalProperties"] = False


def _lists_all(schema: Schema) -> bool:
    properties, required = schema.get("properties"), schema.get("required", [])
    least = schema.get("minProperties", 0)
    return (
        isinstance(properties, dict)
        and isinstance(required, list)
        and set(map(str, required)) <= properties.keys()
        and isinstance(least, int)
        and least <= len(properties)
        and not {"additionalProperties", "patternProperties", *_COMBINING} & schema.keys()
    )


def _lone(root: Schema) -> list[Schema]:
    """The schemas that never have to hold together with another one."""
    found: dict[int, tuple[Schema, bool]] = {}
    todo = [(root, True)]
    while todo:
        schema, is_lone = todo.pop()
        known = found.get(id(schema))
        if known is not None and known[1] <= is_lone:
            continue
        found[id(schema)] = (schema, is_lone)
        for keyword, parts in _parts(schema):
            if keyword in {"$defs", "definitions"}:
                continue
            alone = is_lone and (keyword not in _COMBINING or _is_only(keyword, schema))
            todo += [(part, alone) for part in parts]
        if "$ref" in schema:
            target = _resolve(root, schema["$ref"])
            if target is None:
                return []  # it may be anywhere in here
            todo.append((target, is_lone and _is_only("$ref", schema)))
    return [schema for schema, is_lone in found.values() if is_lone]


def _is_only(keyword: str, schema: Schema) -> bool:
    """Whether nothing but ``keyword``, and not more than one of it, decides about ``schema``."""
    structural = {*_COMBINING, *_MAPS[:2], *_SINGLE, "required", "prefixItems"} & schema.keys()
    return structural == {keyword} and not (keyword == "allOf" and len(schema["allOf"]) > 1)


def _resolve(root: Schema, reference: object) -> Schema | None:
    """The schema that a JSON pointer within this document names."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    place: Any = root
    for step in reference[1:].split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, list) and key.isdecimal() and int(key) < len(place):
            place = place[int(key)]
        elif isinstance(place, dict) and key in place:
            place = place[key]
        else:
            return None
    return place if isinstance(place, dict) and reference[1:2] in {"", "/"} else None
