"""JSON Schema → grammar: prepares a client's schema for llguidance.

- **Limits.** Schemas are untrusted. Most compile in milliseconds, but large or deep ones, and
  multiples of large numbers, do not: these are refused.
- **Rewrites.** Keywords that the library lacks are expressed with others
  (:mod:`.schema_rewrites`). Keywords that remain unsupported are refused by name.
- **Objects are closed.** By the standard, ``{"properties": {"a": …}}`` allows any other property,
  and small models invent some. A schema that lists properties, or patterns of their names, means
  only these, as in Ollama; the output is still valid. An object stays open if the schema says so
  (``additionalProperties``), or if another schema applies to it as well (``allOf``, or next to
  ``$ref`` or ``anyOf``).
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.grammar.schema_analysis import (
    COMBINING,
    MAPS,
    SINGLE,
    Schema,
    parts,
    resolve,
    schemas,
)
from ollama_async.workers.child.grammar.schema_rewrites import rewrite
from ollama_async.workers.child.grammar.schema_scalars import is_exact

SIZE_LIMIT = 1 << 16
"""Characters. Compiling this many takes up to 0.4 s, if most are property names."""

REWRITTEN_LIMIT = 2 * SIZE_LIMIT
"""Characters of the rewritten schema."""

DEPTH_LIMIT = 60
"""Levels of JSON; the library's own reader takes 128."""

PROPERTIES_LIMIT = 500
"""Properties of one object; each step looks at all that may come next."""

MULTIPLE_LIMIT = 10_000
"""The least common multiple of all ``multipleOf`` numerators: the library makes as many states."""

WHITE_SPACE = r" |\n{1,2}[ \t]{0,20}"
"""Allowed wherever JSON allows it: enough for any usual layout, yet no model gets stuck in it."""

_OPTIONS = {
    "whitespace_pattern": WHITE_SPACE,
    "lenient": False,
    "coerce_one_of": False,
    # with \u a property could be written twice, and lone surrogates appear
    "json_allowed_escapes": 'nrbtf\\"',
}
_NEEDING_ESCAPE = frozenset(map(chr, range(32))) - set("\n\r\b\t\f")
_UNENFORCED = (
    *("contains", "dependentRequired", "dependentSchemas", "dependencies", "else", "if"),
    *("maxContains", "minContains", "not", "propertyNames", "then", "unevaluatedItems"),
    *("unevaluatedProperties", "uniqueItems", "$dynamicRef", "$recursiveRef"),
)


def prepare(schema: Schema | bool, *, lenient: bool = False) -> str:
    """``schema`` as JSON for the library, with our options.

    ``lenient``: drop keywords that cannot be enforced.

    :raises BadRequest: it is too large, or has a keyword that cannot be enforced.
    """
    check_size(schema)
    if schema is False:
        raise BadRequest("format: no answer can have this form")
    root: Schema = {} if schema is True else copy.deepcopy(schema)
    rewrite(root)
    if lenient:
        for each in schemas(root):
            for keyword in _UNENFORCED:
                each.pop(keyword, None)
            if "oneOf" in each and "anyOf" not in each:
                each["anyOf"] = each.pop("oneOf")
    check_size(root, REWRITTEN_LIMIT, 2 * DEPTH_LIMIT)
    for each in schemas(root):
        _check(each)
    _check_multiples(root)
    _check_references(root)
    _close(root)
    return json.dumps({**root, "x-guidance": _OPTIONS}, ensure_ascii=False)


def check_size(schema: object, characters: int = SIZE_LIMIT, levels: int = DEPTH_LIMIT) -> None:
    """:raises BadRequest: the schema has too many characters or levels."""
    level, length = [schema], 0
    for _ in range(levels):
        for value in level:
            length += _own_length(value)
            if length > characters:
                break
        if not level or length > characters:
            break
        level = [child for value in level for child in _children(value)]
    else:
        raise BadRequest(f"format: the schema has more than {levels} levels")
    # serializing holds the interpreter lock, so much larger schemas are refused before
    if length > characters or len(json.dumps(schema)) > characters:
        raise BadRequest(f"format: the schema has more than {characters} characters")


def _own_length(value: object) -> int:
    """A lower bound of the characters of ``value`` without its children."""
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
    for keyword, value in {**values, "properties": names}.items():  # subschemas come later
        found = list(_walk(value))
        if any(isinstance(each, str) and not _NEEDING_ESCAPE.isdisjoint(each) for each in found):
            raise BadRequest(f'format: a control character in "{keyword}" cannot be written')
        if not all(map(is_exact, found)):
            raise BadRequest(f'format: a number in "{keyword}" has too many digits')


def _walk(value: object) -> Iterator[object]:
    """``value`` and all names and values in it."""
    todo = [value]
    while todo:
        each = todo.pop()
        yield each
        todo += [*(each if isinstance(each, dict) else ()), *_children(each)]


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


def _check_references(root: Schema) -> None:
    """:raises BadRequest: a schema requires itself of the same value, so nothing can satisfy it."""
    below: dict[int, list[Schema]] = {}  # what a schema requires, of schemas that were visited
    active: set[int] = set()
    for start in schemas(root):
        todo = [start]
        while todo:
            schema = todo[-1]
            key = id(schema)
            if key not in below:
                below[key] = list(_required_of_the_same(root, schema))
                active.add(key)
            if not below[key]:
                active.discard(key)
                todo.pop()
                continue
            following = below[key].pop()
            if id(following) in active:
                raise BadRequest('format: a "$ref" leads back to itself')
            if id(following) not in below:
                todo.append(following)


def _required_of_the_same(root: Schema, schema: Schema) -> Iterator[Schema]:
    if isinstance(schema.get("$ref"), str):
        target = resolve(root, schema["$ref"])
        if target is not None:
            yield target
    every = schema.get("allOf")
    if isinstance(every, list):
        yield from (each for each in every if isinstance(each, dict))


def _close(root: Schema) -> None:
    """Forbid unlisted properties in objects to which no other schema applies."""
    for schema in _independent(root):
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


def _independent(root: Schema) -> list[Schema]:
    """The schemas that never apply together with another one to the same value."""
    found: dict[int, tuple[Schema, bool]] = {}
    todo = [(root, True)]
    while todo:
        schema, is_independent = todo.pop()
        known = found.get(id(schema))
        if known is not None and known[1] <= is_independent:
            continue
        found[id(schema)] = (schema, is_independent)
        for keyword, inner in parts(schema):
            if keyword in {"$defs", "definitions"}:
                continue
            alone = is_independent and (keyword not in COMBINING or _is_only(keyword, schema))
            todo += [(part, alone) for part in inner]
        if "$ref" in schema:
            target = resolve(root, schema["$ref"])
            if target is None:
                return []  # the target may be any of these
            todo.append((target, is_independent and _is_only("$ref", schema)))
    return [schema for schema, is_independent in found.values() if is_independent]


def _is_only(keyword: str, schema: Schema) -> bool:
    """Whether ``schema`` is just one subschema under ``keyword``."""
    structural = {*COMBINING, *MAPS[:2], *SINGLE, "required", "prefixItems"} & schema.keys()
    return structural == {keyword} and not (keyword == "allOf" and len(schema["allOf"]) > 1)
