"""Keywords that the library does not have, said with those that it has.

Each rewriting leaves what a schema means as it is, or allows less: what is generated is valid under
the client's schema. A keyword that cannot be rewritten is left alone, and refused later.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator
from typing import Any
from urllib.parse import quote, unquote

from ollama_async.workers.child import grammar_numbers
from ollama_async.workers.child.grammar import schema_scalars
from ollama_async.workers.child.grammar.schema_analysis import Budget, Values, asserting
from ollama_async.workers.child.grammar_tree import (
    COMBINING,
    KEYWORDS,
    Schema,
    check_shape,
    schemas,
)
from ollama_async.workers.child.grammar_unions import choose_one

ARRAYS_LIMIT = 1024
"""Arrays that stand for one array without repetition."""

PATTERN_GROWTH = 25
"""How many times as long a pattern is, at most about, that the library reads."""

FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)

_MEANINGLESS = {"uniqueItems": False, "minContains": 0, "not": False}
"""Where they say what is so anyway."""

_PLAIN_OBJECT = {"type", "properties", "required", "allOf", "$ref", "unevaluatedProperties"}
_PLAIN_ARRAY = {"type", "items", "minItems", "maxItems", "uniqueItems"}


def rewrite(root: Schema) -> None:
    """Change ``root`` and all schemas in it.

    :raises BadRequest: a keyword in it makes no sense, or a bound is too large.
    """
    found = list(schemas(root))
    for schema in found:
        check_shape(schema)
        _drop_meaningless(schema)
        if schema is not root:
            _drop_unknown(schema)
            _forbid(schema)
        _encode_reference(schema)
        grammar_numbers.fit_bounds(schema)
    # pointers within a schema that has an address of its own do not begin at the root
    is_one_resource = not any("$id" in schema or "id" in schema for schema in found[1:])
    values = Values(root if is_one_resource else None)
    for schema in found:
        _close_items(schema)
        _close_properties(schema, values)
        _list_names(schema, values)
        _list_arrays(schema, values)
        choose_one(schema, values)
    for schema in found:
        schema_scalars.simplify(schema)


def _drop_meaningless(schema: Schema) -> None:
    if schema.get("format") not in FORMATS:
        schema.pop("format", None)
    for keyword, value in _MEANINGLESS.items():
        if schema.get(keyword) is value:
            del schema[keyword]


def _drop_unknown(schema: Schema) -> None:
    """Beside a reference the library would look at them, and into circles of references it cannot
    look.
    """
    if not schema.keys() & set(COMBINING):
        return
    for keyword in [key for key in schema if key not in KEYWORDS]:
        del schema[keyword]


def _forbid(schema: Schema) -> None:
    """``not`` of everything, with which optional properties are forbidden."""
    if "not" in schema and _says_nothing(schema["not"]):
        schema.clear()
        schema["enum"] = []


def _says_nothing(schema: object) -> bool:
    return schema is True or (isinstance(schema, dict) and not asserting(schema))


def _encode_reference(schema: Schema) -> None:
    """A pointer to any name becomes a URI, as it should be."""
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        schema["$ref"] = "#" + quote(unquote(reference[1:]), safe="/~!$&'()*+,;=:@?-._")


# The names of properties


def _list_names(schema: Schema, values: Values) -> None:
    """``propertyNames`` become the properties that there can be, or a pattern."""
    if "propertyNames" not in schema:
        return
    rule, others = schema["propertyNames"], schema.get("additionalProperties", True)
    listed = schema.get("properties", {})
    names, pattern = _names(values.of(rule)), _pattern_of_names(rule, values)
    if pattern == "":
        del schema["propertyNames"]
    elif names is not None and _can_be_listed(names, schema, values):
        kept = {name: value for name, value in listed.items() if name in names}
        added = {name: others for name in names if name not in kept}
        schema["properties"] = kept | added
        schema["additionalProperties"] = False
        del schema["propertyNames"]
    elif pattern and not schema.keys() & {"properties", "patternProperties"}:
        schema["patternProperties"] = {pattern: others}
        schema["additionalProperties"] = False
        del schema["propertyNames"]
    elif not schema.keys() & {"properties", "additionalProperties"}:
        _limit_patterns(schema, rule)


def _names(values: list[Any] | None) -> dict[str, None] | None:
    """None too where someone takes numbers for names: only an empty object would be valid."""
    names = dict.fromkeys(value for value in values or [] if isinstance(value, str))
    return names if names or values == [] else None


def _can_be_listed(names: Collection[str], schema: Schema, values: Values) -> bool:
    return "patternProperties" not in schema and values.additions.allows(len(names))


def _limit_patterns(schema: Schema, rule: object) -> None:
    """The lengths that names must have, as a part of the patterns that they have anyway."""
    if not isinstance(rule, dict) or not asserting(rule) <= {"type", "minLength", "maxLength"}:
        return
    named = schema.get("patternProperties", {})
    lengths = {key: rule[key] for key in ("minLength", "maxLength") if key in rule}
    limited = {_from_lengths({**lengths, "pattern": each}): named[each] for each in named}
    if len(limited) == len(named) and None not in limited:
        schema["patternProperties"] = limited
        schema["additionalProperties"] = False
        del schema["propertyNames"]


def _pattern_of_names(rule: object, values: Values) -> str | None:
    """The pattern that says the same as ``rule``, "" if that is nothing; None: there is none."""
    if isinstance(rule, dict) and asserting(rule) == {"$ref"}:
        rule = values.target(rule)
        if rule is None or not values.looks.allows(_cost_of_reading(rule)):
            return None
    if not isinstance(rule, dict):
        return "" if rule is True else None
    if rule.get("type", "string") != "string":
        return None
    says = frozenset(asserting(rule) - {"type"})
    return _SAID_BY_PATTERN[says](rule) if says in _SAID_BY_PATTERN else None


def _cost_of_reading(rule: Schema) -> int:
    return len(rule) + PATTERN_GROWTH * len(rule.get("pattern", ""))


def _from_lengths(rule: Schema) -> str | None:
    least, most = rule.get("minLength", 0), rule.get("maxLength")
    if not isinstance(least, int) or not isinstance(most, (int, type(None))):
        return None
    # every string is a number of any characters
    return schema_scalars.with_lengths(rule.get("pattern", r"^[\s\S]*$"), least, most)


def _from_pattern(rule: Schema) -> str | None:
    """A format beside it is an annotation, as the standard has it anywhere."""
    patterns = schema_scalars.without_look_around(rule["pattern"])
    return patterns[0] if len(patterns) == 1 else None


_SAID_BY_PATTERN: dict[frozenset[str], Callable[[Schema], str | None]] = {
    frozenset(): lambda _: "",
    frozenset({"minLength"}): _from_lengths,
    frozenset({"maxLength"}): _from_lengths,
    frozenset({"minLength", "maxLength"}): _from_lengths,
    frozenset({"pattern", "minLength"}): _from_lengths,
    frozenset({"pattern", "maxLength"}): _from_lengths,
    frozenset({"pattern", "minLength", "maxLength"}): _from_lengths,
    frozenset({"pattern"}): _from_pattern,
    frozenset({"pattern", "format"}): _from_pattern,
    frozenset({"format"}): lambda rule: schema_scalars.OF_FORMATS.get(rule["format"]),
}


# What is left over


def _close_items(schema: Schema) -> None:
    """``unevaluatedItems`` where nothing but the keywords beside it decides about items."""
    rule = schema.get("unevaluatedItems")
    if rule is None or (schema.keys() & set(COMBINING) and not _says_nothing(rule)):
        return
    plain = "additionalItems" if isinstance(schema.get("items"), list) else "items"
    schema.setdefault(plain, rule)
    del schema["unevaluatedItems"]


def _close_properties(schema: Schema, values: Values) -> None:
    """``unevaluatedProperties`` where it is known which ones are evaluated."""
    rule = schema.get("unevaluatedProperties")
    if rule is None:
        return
    if schema.keys() & set(COMBINING) and not _says_nothing(rule):
        listed = _evaluated(schema, values)
        if listed is None or not values.additions.allows(len(listed)):
            return
        schema["properties"] = {**schema.get("properties", {}), **dict.fromkeys(listed, True)}
    schema.setdefault("additionalProperties", rule)
    del schema["unevaluatedProperties"]


def _evaluated(schema: Schema, values: Values) -> set[str] | None:
    """The properties that the schemas combined in ``schema`` list, without its own; None: it
    depends on the instance.
    """
    names: set[str] = set()
    todo: list[Any] = [schema]
    seen: set[int] = set()
    while todo:
        each = todo.pop()
        if not isinstance(each, dict) or not values.looks.allows(1):
            return None
        if id(each) in seen:
            continue
        seen.add(id(each))
        parts = len(each) + len(each.get("properties", {})) + len(each.get("allOf", []))
        if not values.looks.allows(parts) or not asserting(each) <= _PLAIN_OBJECT:
            return None
        if each is not schema and "unevaluatedProperties" in each:
            return None
        names |= set(each.get("properties", {}))
        todo += each.get("allOf", [])
        todo += [values.target(each)] if "$ref" in each else []
    return names - set(schema.get("properties", {}))


# Sets


def _list_arrays(schema: Schema, values: Values) -> None:
    """``uniqueItems`` becomes all arrays of different items, where there are few."""
    most = schema.get("maxItems")
    if schema.get("uniqueItems") is not True:
        return
    if isinstance(most, int) and most <= 1:
        del schema["uniqueItems"]
        return
    says, items = asserting(schema), values.of(schema.get("items", True))
    if schema.get("type") != "array" or not says <= _PLAIN_ARRAY or items is None:
        return
    sizes = _sizes(schema.get("minItems", 0), len(items) if most is None else most, len(items))
    arrays = None if sizes is None else _arrays(items, sizes, values.additions)
    if arrays is not None:
        for keyword in says:
            del schema[keyword]
        schema["enum"] = arrays


def _sizes(least: object, most: object, count: int) -> range | None:
    """Of arrays of different ones of ``count`` items; None: the bounds are no numbers."""
    if not isinstance(least, int) or not isinstance(most, int):
        return None
    return range(max(least, 0), min(most, count) + 1)


def _arrays(items: list[Any], sizes: range, additions: Budget) -> list[list[Any]] | None:
    """Those of different ``items``, in any order or, if these are too many, in that of ``items``;
    None: they are too many as well.
    """
    choices: tuple[tuple[Callable[..., int], Callable[..., Iterator[Any]]], ...] = (
        (math.perm, itertools.permutations),
        (math.comb, itertools.combinations),
    )
    for count, choose in choices:
        length = _length_of_all(count, len(items), sizes)
        if length is not None and additions.allows(length):
            return [list(chosen) for size in sizes for chosen in choose(items, size)]
    return None


def _length_of_all(count: Callable[..., int], items: int, sizes: range) -> int | None:
    """How many items there are in all arrays; None: there are too many arrays."""
    arrays = length = 0
    for size in sizes:
        found = count(items, size)
        arrays, length = arrays + found, length + found * size
        if arrays > ARRAYS_LIMIT:
            return None
    return length
