"""``oneOf`` whose options exclude one another, which is then the same as ``anyOf``.

The library finds out by itself where the options stand in place; here are those that are only
referred to, and those that a property tells apart without being required: it is required then, so
that no answer is valid under two.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from ollama_async.workers.child.grammar.schema_analysis import Values
from ollama_async.workers.child.grammar_tree import Schema

OPTIONS_LIMIT = 100
"""Each is compared with each, as long as ``Values.looks`` allows."""

_OBJECT = frozenset({"object"})

_Tags = list[tuple[Schema, str]]
"""Objects, and the property that they are told apart by."""


def choose_one(schema: Schema, values: Values) -> None:
    """Turn the ``oneOf`` of ``schema`` into ``anyOf`` where that is no less."""
    options = schema.get("oneOf")
    if not isinstance(options, list) or "anyOf" in schema:
        return
    found = _all_alternatives(options, values)
    if found is None:
        return
    tags: _Tags = []
    for these, those in itertools.combinations(found, 2):
        for pair in itertools.product(these, those):
            told_apart = _tell_apart(*pair, values)
            if told_apart is None:
                return
            tags += told_apart
    for each, name in tags:
        each["required"] = [*dict.fromkeys([*each.get("required", []), name])]
    schema["anyOf"] = schema.pop("oneOf")


def _all_alternatives(options: list[object], values: Values) -> list[list[Schema]] | None:
    """Of each option; None: they are unknown, or too many."""
    found: list[list[Schema]] = []
    count = 0
    for option in options:
        found.append(_alternatives(option, values))
        count += len(found[-1])
        if not found[-1] or count > OPTIONS_LIMIT:
            return None
    return found


def _alternatives(option: object, values: Values) -> list[Schema]:
    """``option``, or the schemas that it refers to or chooses from; empty: unknown, or too many."""
    todo, found, seen = [option], [], set[int]()
    while todo:
        each = todo.pop()
        if not isinstance(each, dict) or len(seen) > OPTIONS_LIMIT or not values.looks.allows(1):
            return []
        if id(each) in seen:
            continue
        seen.add(id(each))
        union = each.get("oneOf", each.get("anyOf"))
        if "$ref" in each:
            todo.append(values.target(each))
        elif isinstance(union, list) and "type" not in each:
            if not values.looks.allows(len(union)):
                return []
            todo += union
        else:
            found.append(each)
    return found


def _tell_apart(one: Schema, other: Schema, values: Values) -> _Tags | None:
    """What has to be required so that nothing is valid under both; None: something may be."""
    if not values.looks.allows(1):
        return None
    types = [_with_integers(values.types(each)) for each in (one, other)]
    if types[0] and types[1] and not types[0] & types[1]:
        return []
    if _are_disjoint(one, other, values):
        return []
    return _tags(one, other, values) if types == [_OBJECT, _OBJECT] else None


def _with_integers(types: frozenset[str] | None) -> frozenset[str] | None:
    return types | {"integer"} if types and "number" in types else types


def _are_disjoint(one: object, other: object, values: Values) -> bool:
    these, those = values.keyed(one), values.keyed(other)
    if these is None or those is None:
        return False
    if these is those:
        return not these
    return values.looks.allows(min(len(these), len(those))) and these.keys().isdisjoint(those)


def _tags(one: Schema, other: Schema, values: Values) -> _Tags | None:
    if _misses(one, other, values) or _misses(other, one, values):
        return []
    required = [*one.get("required", []), *other.get("required", [])]
    if _disjoint_name(required, one, other, values) is not None:
        return []
    name = _disjoint_name(one.get("properties", {}), one, other, values)
    return None if name is None else [(one, name), (other, name)]


def _disjoint_name(names: Iterable[str], one: Schema, other: Schema, values: Values) -> str | None:
    """The first of ``names`` of properties whose values in ``one`` are others than in ``other``."""
    these, those = one.get("properties", {}), other.get("properties", {})
    for name in names:
        if not values.looks.allows(1):
            return None
        if name in these and name in those and _are_disjoint(these[name], those[name], values):
            return name
    return None


def _misses(one: Schema, other: Schema, values: Values) -> bool:
    """Whether ``one`` forbids a property that ``other`` requires."""
    if one.get("additionalProperties") is not False or "patternProperties" in one:
        return False
    required, listed = other.get("required", []), one.get("properties", {})
    return values.looks.allows(len(required)) and any(name not in listed for name in required)
