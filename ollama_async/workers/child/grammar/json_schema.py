"""JSON Schemas made fit for enforcement.

Three things happen to a client's schema before the library compiles it:

- **Bounds.** A schema comes from anybody. Compiling costs milliseconds, but not for all: what is
  large, deep, or a multiple of a large number is refused.
- **Objects are closed.** By the standard ``{"properties": {"a": …}}`` allows any other property,
  and a small model is glad to invent some. Whoever lists properties, or patterns of their names,
  means these, as in Ollama; what is generated is still valid. An object is left open where it says
  so (``additionalProperties``), and where it may have to agree with another schema (``allOf``, or
  next to ``$ref`` or ``anyOf``).
- **What the library does not have is said with what it has** (:mod:`.grammar_rewrites`),
  annotations are dropped, and what is left over is refused by name.
"""

from __future__ import annotations

import copy
import json
import math
from fractions import Fraction
from typing import Any

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.grammar.schema_rewrites import rewrite
from ollama_async.workers.child.grammar_numbers import is_exact
from ollama_async.workers.child.grammar_tree import (
    COMBINING,
    MAPS,
    SINGLE,
    Schema,
    parts,
    resolve,
    schemas,
)

SIZE_LIMIT = 1 << 16
"""Characters. Compiling takes up to 0.4 s for so many, most of them names of properties."""

REWRITTEN_LIMIT = 2 * SIZE_LIMIT
"""Characters of what the library gets."""

DEPTH_LIMIT = 60
"""Levels of JSON; the library's own reader takes 128."""

PROPERTIES_LIMIT = 500
"""Of one object; each step would look at all those that may come next."""

MULTIPLE_LIMIT = 10_000
"""Of all numbers after ``multipleOf`` together, decimals counted as integers: the library makes as
many states of it."""

WHITE_SPACE = r" |\n{1,2}[ \t]{0,20}"
"""Wherever JSON allows it: enough for any usual layout, and no model is lost in it."""

_OPTIONS = {
    "whitespace_pattern": WHITE_SPACE,
    "lenient": False,
    "coerce_one_of": False,
    # \u could write a property's name a second time, and half characters
    "json_allowed_escapes": 'nrbtf\\"',
}
_CODED = frozenset(map(chr, range(32))) - set("\n\r\b\t\f")
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


_STRUCTURE = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "items", "prefixItems"),
        *("enum", "const", "anyOf", "allOf", "$ref", "$defs", "definitions"),
    }
)


def prepare(schema: Schema | bool, *, loosely: bool = False) -> str:
    """``schema`` as JSON for the library, with our options. ``loosely``: without the keywords that
    cannot be enforced.

    :raises BadRequest: it is too large, or has a keyword that cannot be enforced.
    """
    check_size(schema)
    if schema is False:
        raise BadRequest("format: no answer can have this form")
    root: Schema = {} if schema is True else copy.deepcopy(schema)
    rewrite(root)
    if loosely:
        _loosen(root)
    _check_size(root, REWRITTEN_LIMIT, 2 * DEPTH_LIMIT)
    for each in schemas(root):
        _check(each)
    _check_multiples(root)
    _close(root)
    return json.dumps({**root, "x-guidance": _OPTIONS}, ensure_ascii=False)


def check_size(schema: object) -> None:
    """:raises BadRequest: it has more characters or levels than one may have."""
    _check_size(schema, SIZE_LIMIT, DEPTH_LIMIT)


def structure_of(schema: Schema) -> Schema:
    """``schema`` without all that restricts single values; what is valid stays valid."""
    root = copy.deepcopy(schema)
    for each in schemas(root):
        for keyword in each.keys() - _STRUCTURE:
            del each[keyword]
    return root


def _loosen(root: Schema) -> None:
    for each in schemas(root):
        for keyword in _UNENFORCED:
            each.pop(keyword, None)
        if "oneOf" in each and "anyOf" not in each:
            each["anyOf"] = each.pop("oneOf")


def _check_size(schema: object, characters: int, levels: int) -> None:
    """:raises BadRequest:"""
    too_large = BadRequest(f"format: the schema has more than {characters} characters")
    level, length = [schema], 0
    for _ in range(levels):
        length += _length(level, characters - length)
        if not level or length > characters:
            break
        level = [child for value in level for child in _children(value)]
    else:
        raise BadRequest(f"format: the schema has more than {levels} levels")
    # writing it out holds up all threads: not if it is many times as long
    if length > characters or len(json.dumps(schema)) > characters:
        raise too_large


def _length(values: list[Any], most: int) -> int:
    """How many characters ``values`` have at least, without what is in them; or some more than
    ``most``.
    """
    length = 0
    for value in values:
        length += _own_length(value)
        if length > most:
            break
    return length


def _own_length(value: object) -> int:
    if isinstance(value, str):
        return 2 + len(value)
    if isinstance(value, dict):
        return max(2, sum(6 + len(name) for name in value if isinstance(name, str)))
    if isinstance(value, list):
        return max(2, 2 * len(value))
    if isinstance(value, int):
        return 1 + value.bit_length() // 4
    return 1


def _children(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


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
        if not is_exact(value):
            raise BadRequest(f'format: a number in "{keyword}" has too many digits')


def _needs_code(value: object) -> bool:
    """Whether a string in ``value`` has a character that JSON can only write by its number."""
    if isinstance(value, str):
        return not _CODED.isdisjoint(value)
    names = list(value) if isinstance(value, dict) else []
    return any(map(_needs_code, [*names, *_children(value)]))


def _check_multiples(root: Schema) -> None:
    together = 1
    for schema in schemas(root):
        multiple = schema.get("multipleOf")
        if isinstance(multiple, bool):
            raise BadRequest('format: "multipleOf" must be a number')
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
    listed = schema.keys() & {"properties", "patternProperties"}
    properties, least = schema.get("properties", {}), schema.get("minProperties", 0)
    return (
        bool(listed)
        and set(schema.get("required", [])) <= properties.keys()
        and isinstance(least, int)
        and ("patternProperties" in listed or least <= len(properties))
        and not {"additionalProperties", *COMBINING} & schema.keys()
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
        for keyword, inner in parts(schema):
            if keyword in {"$defs", "definitions"}:
                continue
            alone = is_lone and (keyword not in COMBINING or _is_only(keyword, schema))
            todo += [(part, alone) for part in inner]
        if "$ref" in schema:
            target = resolve(root, schema["$ref"])
            if target is None:
                return []  # it may be anywhere in here
            todo.append((target, is_lone and _is_only("$ref", schema)))
    return [schema for schema, is_lone in found.values() if is_lone]


def _is_only(keyword: str, schema: Schema) -> bool:
    """Whether nothing but ``keyword``, and not more than one of it, decides about ``schema``."""
    structural = {*COMBINING, *MAPS[:2], *SINGLE, "required", "prefixItems"} & schema.keys()
    return structural == {keyword} and not (keyword == "allOf" and len(schema["allOf"]) > 1)
