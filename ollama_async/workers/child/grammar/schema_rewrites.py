"""Rewrites JSON Schema keywords that llguidance lacks into those that it has.

A rewrite preserves what a schema means or allows less, so the output is valid under the client's
schema. A keyword that cannot be rewritten is left alone, and refused later.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

from ollama_async.workers.child.grammar import schema_scalars
from ollama_async.workers.child.grammar.schema_analysis import (
    COMBINING,
    KEYWORDS,
    Budget,
    Schema,
    SchemaAnalysis,
    asserting,
    check_shape,
    schemas,
)

ARRAYS_LIMIT = 1024
"""Arrays listed in place of one ``uniqueItems``."""

PATTERN_GROWTH = 25
"""How much longer a pattern gets, at most about, when it is translated."""

FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)

_NO_OPS = {"uniqueItems": False, "minContains": 0, "not": False}

_PLAIN_OBJECT = {"type", "properties", "required", "allOf", "$ref", "unevaluatedProperties"}
_PLAIN_ARRAY = {"type", "items", "minItems", "maxItems", "uniqueItems"}


def rewrite(root: Schema) -> None:
    """Rewrite ``root`` and all its subschemas in place.

    :raises BadRequest: a keyword has an invalid value, or a bound is too large.
    """
    found = list(schemas(root))
    for schema in found:
        check_shape(schema)
        _normalize(schema, is_root=schema is root)
        schema_scalars.fit_bounds(schema)
    # pointers within a subschema that has an $id do not start at the root
    is_one_resource = not any("$id" in schema or "id" in schema for schema in found[1:])
    analysis = SchemaAnalysis(root if is_one_resource else None)
    for schema in found:
        _close_items(schema)
        _close_properties(schema, analysis)
        _list_names(schema, analysis)
        _list_arrays(schema, analysis)
        _relax_one_of(schema, analysis)
    for schema in found:
        schema_scalars.translate_patterns(schema)


def _normalize(schema: Schema, *, is_root: bool) -> None:
    """Remove what has no effect, and write the rest as the library reads it."""
    if schema.get("format") not in FORMATS:
        schema.pop("format", None)
    for keyword, value in _NO_OPS.items():
        if schema.get(keyword) is value:
            del schema[keyword]
    if not is_root and schema.keys() & set(COMBINING):
        # next to a reference the library would follow them, and it cannot follow cycles
        for keyword in schema.keys() - KEYWORDS:
            del schema[keyword]
    if not is_root and "not" in schema and _allows_everything(schema["not"]):
        schema.clear()  # used to forbid optional properties
        schema["enum"] = []
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):  # as URI fragments must be
        schema["$ref"] = "#" + quote(unquote(reference[1:]), safe="/~!$&'()*+,;=:@?-._")


def _allows_everything(schema: object) -> bool:
    return schema is True or (isinstance(schema, dict) and not asserting(schema))


def _list_names(schema: Schema, analysis: SchemaAnalysis) -> None:
    """Turn ``propertyNames`` into a list of properties, or a pattern."""
    if "propertyNames" not in schema:
        return
    rule, others = schema["propertyNames"], schema.get("additionalProperties", True)
    listed = schema.get("properties", {})
    values, pattern = analysis.values(rule), _pattern_of_names(rule, analysis)
    names = [value for value in (values or {}).values() if isinstance(value, str)]
    is_listed = bool(names) or values == {}  # with other values only, no property would be valid
    if pattern == "":
        del schema["propertyNames"]
    elif is_listed and "patternProperties" not in schema and analysis.additions.allows(len(names)):
        kept = {name: value for name, value in listed.items() if name in names}
        added = {name: others for name in names if name not in kept}
        _close_with(schema, "properties", kept | added)
    elif pattern and not schema.keys() & {"properties", "patternProperties"}:
        _close_with(schema, "patternProperties", {pattern: others})
    elif not schema.keys() & {"properties", "additionalProperties"}:
        _limit_patterns(schema, rule)


def _close_with(schema: Schema, keyword: str, properties: Mapping[Any, Any]) -> None:
    schema[keyword] = properties
    schema["additionalProperties"] = False
    del schema["propertyNames"]


def _limit_patterns(schema: Schema, rule: object) -> None:
    """Put length limits on names into the patterns that names have anyway."""
    if not isinstance(rule, dict) or not asserting(rule) <= {"type", "minLength", "maxLength"}:
        return
    named = schema.get("patternProperties", {})
    lengths = {key: rule[key] for key in ("minLength", "maxLength") if key in rule}
    limited = {_from_lengths({**lengths, "pattern": each}): named[each] for each in named}
    if len(limited) == len(named) and None not in limited:
        _close_with(schema, "patternProperties", limited)


def _pattern_of_names(rule: object, analysis: SchemaAnalysis) -> str | None:
    """The pattern equivalent to ``rule``: "" if any name is valid; None if there is no pattern."""
    if isinstance(rule, dict) and asserting(rule) == {"$ref"}:
        rule = analysis.target(rule)
        if rule is None:
            return None
        cost = len(rule) + PATTERN_GROWTH * len(rule.get("pattern", ""))
        if not analysis.visits.allows(cost):
            return None
    if not isinstance(rule, dict):
        return "" if rule is True else None
    return _as_pattern(rule) if rule.get("type", "string") == "string" else None


def _as_pattern(rule: Schema) -> str | None:
    keywords = asserting(rule) - {"type"}
    if not keywords:
        return ""
    if keywords == {"format"}:
        return schema_scalars.OF_FORMATS.get(rule["format"])
    if keywords in ({"pattern"}, {"pattern", "format"}):  # the format counts as an annotation
        patterns = schema_scalars.split_look_aheads(rule["pattern"])
        return patterns[0] if len(patterns) == 1 else None
    return _from_lengths(rule) if keywords <= {"pattern", "minLength", "maxLength"} else None


def _from_lengths(rule: Schema) -> str | None:
    least, most = rule.get("minLength", 0), rule.get("maxLength")
    if not isinstance(least, int) or not isinstance(most, (int, type(None))):
        return None
    # without a pattern: any number of any characters
    return schema_scalars.with_lengths(rule.get("pattern", r"^[\s\S]*$"), least, most)


def _close_items(schema: Schema) -> None:
    """Rewrite ``unevaluatedItems`` where only its sibling keywords evaluate items."""
    rule = schema.get("unevaluatedItems")
    if rule is None or (schema.keys() & set(COMBINING) and not _allows_everything(rule)):
        return
    plain = "additionalItems" if isinstance(schema.get("items"), list) else "items"
    schema.setdefault(plain, rule)
    del schema["unevaluatedItems"]


def _close_properties(schema: Schema, analysis: SchemaAnalysis) -> None:
    """Rewrite ``unevaluatedProperties`` where the evaluated ones are known."""
    rule = schema.get("unevaluatedProperties")
    if rule is None:
        return
    if schema.keys() & set(COMBINING) and not _allows_everything(rule):
        listed = _evaluated(schema, analysis)
        if listed is None or not analysis.additions.allows(len(listed)):
            return
        schema["properties"] = {**schema.get("properties", {}), **dict.fromkeys(listed, True)}
    schema.setdefault("additionalProperties", rule)
    del schema["unevaluatedProperties"]


def _evaluated(schema: Schema, analysis: SchemaAnalysis) -> set[str] | None:
    """The properties listed by schemas combined in ``schema``, without its own; None if that
    depends on the instance.
    """
    names: set[str] = set()
    todo: list[Any] = [schema]
    seen: set[int] = set()
    while todo:
        each = todo.pop()
        if not isinstance(each, dict) or not analysis.visits.allows(1):
            return None
        if id(each) in seen:
            continue
        seen.add(id(each))
        parts = len(each) + len(each.get("properties", {})) + len(each.get("allOf", []))
        if not analysis.visits.allows(parts) or not asserting(each) <= _PLAIN_OBJECT:
            return None
        if each is not schema and "unevaluatedProperties" in each:
            return None
        names |= set(each.get("properties", {}))
        todo += each.get("allOf", [])
        todo += [analysis.target(each)] if "$ref" in each else []
    return names - set(schema.get("properties", {}))


def _list_arrays(schema: Schema, analysis: SchemaAnalysis) -> None:
    """Turn ``uniqueItems`` into a list of all arrays of distinct items, if there are few."""
    most = schema.get("maxItems")
    if schema.get("uniqueItems") is not True:
        return
    if isinstance(most, int) and most <= 1:
        del schema["uniqueItems"]
        return
    keywords, values = asserting(schema), analysis.values(schema.get("items", True))
    if schema.get("type") != "array" or not keywords <= _PLAIN_ARRAY or values is None:
        return
    items = list(values.values())
    least, most = schema.get("minItems", 0), len(items) if most is None else most
    if not isinstance(least, int) or not isinstance(most, int):
        return
    sizes = range(max(least, 0), min(most, len(items)) + 1)
    arrays = _distinct_arrays(items, sizes, analysis.additions)
    if arrays is not None:
        for keyword in keywords:
            del schema[keyword]
        schema["enum"] = arrays


def _distinct_arrays(items: list[Any], sizes: range, additions: Budget) -> list[list[Any]] | None:
    """All arrays of distinct ``items``: in any order or, if too many, in the order of ``items``;
    None if these are too many, too.
    """
    choices: tuple[tuple[Callable[..., int], Callable[..., Iterator[Any]]], ...] = (
        (math.perm, itertools.permutations),
        (math.comb, itertools.combinations),
    )
    for count, choose in choices:
        arrays = length = 0
        for size in sizes:
            found = count(len(items), size)
            arrays, length = arrays + found, length + found * size
            if arrays > ARRAYS_LIMIT:
                break
        else:
            if additions.allows(length):
                return [list(chosen) for size in sizes for chosen in choose(items, size)]
    return None


# oneOf → anyOf, where the options exclude one another. The library sees that itself for options in
# place. Here are those that are referenced, and those that differ in an optional property: it
# becomes required, so that no answer is valid under two.

OPTIONS_LIMIT = 100
"""Options of one ``oneOf``; all pairs are compared, as far as ``SchemaAnalysis.visits`` allows."""

_OBJECT = frozenset({"object"})

_Discriminators = list[tuple[Schema, str]]
"""Objects, each with the property that distinguishes it."""


def _relax_one_of(schema: Schema, analysis: SchemaAnalysis) -> None:
    """Turn ``oneOf`` into ``anyOf`` where both mean the same."""
    options = schema.get("oneOf")
    if not isinstance(options, list) or "anyOf" in schema:
        return
    found: list[list[Schema]] = []
    for option in options:
        found.append(_alternatives(option, analysis))
        if not found[-1] or sum(map(len, found)) > OPTIONS_LIMIT:
            return
    tags: _Discriminators = []
    for these, those in itertools.combinations(found, 2):
        for pair in itertools.product(these, those):
            distinguishing = _distinguish(*pair, analysis)
            if distinguishing is None:
                return
            tags += distinguishing
    for each, name in tags:
        each["required"] = [*dict.fromkeys([*each.get("required", []), name])]
    schema["anyOf"] = schema.pop("oneOf")


def _alternatives(option: object, analysis: SchemaAnalysis) -> list[Schema]:
    """``option``, or the schemas that it refers to or chooses from; empty: unknown, too many."""
    todo, found, seen = [option], [], set[int]()
    while todo:
        each = todo.pop()
        if not isinstance(each, dict) or len(seen) > OPTIONS_LIMIT or not analysis.visits.allows(1):
            return []
        if id(each) in seen:
            continue
        seen.add(id(each))
        union = each.get("oneOf", each.get("anyOf"))
        if "$ref" in each:
            todo.append(analysis.target(each))
        elif isinstance(union, list) and "type" not in each:
            if not analysis.visits.allows(len(union)):
                return []
            todo += union
        else:
            found.append(each)
    return found


def _distinguish(one: Schema, other: Schema, analysis: SchemaAnalysis) -> _Discriminators | None:
    """What to require so that nothing is valid under both; None if something may be."""
    if not analysis.visits.allows(1):
        return None
    these, those = analysis.types(one), analysis.types(other)
    if these and those and not _with_integers(these) & _with_integers(those):
        return []
    if _are_disjoint(one, other, analysis):
        return []
    return _find_discriminators(one, other, analysis) if these == those == _OBJECT else None


def _with_integers(types: frozenset[str]) -> frozenset[str]:
    return types | {"integer"} if "number" in types else types


def _are_disjoint(one: object, other: object, analysis: SchemaAnalysis) -> bool:
    these, those = analysis.values(one), analysis.values(other)
    if these is None or those is None:
        return False
    if these is those:
        return not these
    return analysis.visits.allows(min(len(these), len(those))) and these.keys().isdisjoint(those)


def _find_discriminators(
    one: Schema, other: Schema, analysis: SchemaAnalysis
) -> _Discriminators | None:
    if _forbids_required_of(one, other, analysis) or _forbids_required_of(other, one, analysis):
        return []
    required = [*one.get("required", []), *other.get("required", [])]
    if _disjoint_name(required, one, other, analysis) is not None:
        return []
    name = _disjoint_name(one.get("properties", {}), one, other, analysis)
    return None if name is None else [(one, name), (other, name)]


def _disjoint_name(
    names: Iterable[str], one: Schema, other: Schema, analysis: SchemaAnalysis
) -> str | None:
    """The first of ``names`` whose property has no value in common in ``one`` and ``other``."""
    these, those = one.get("properties", {}), other.get("properties", {})
    for name in names:
        if not analysis.visits.allows(1):
            return None
        if name in these and name in those and _are_disjoint(these[name], those[name], analysis):
            return name
    return None


def _forbids_required_of(one: Schema, other: Schema, analysis: SchemaAnalysis) -> bool:
    """Whether ``one`` forbids a property that ``other`` requires."""
    if one.get("additionalProperties") is not False or "patternProperties" in one:
        return False
    required, listed = other.get("required", []), one.get("properties", {})
    return analysis.visits.allows(len(required)) and any(name not in listed for name in required)
