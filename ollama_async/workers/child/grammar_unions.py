"""``oneOf`` whose options exclude one another, which is then the same as ``anyOf``.

The library finds out by itself where the options stand in place; here are those that are only
referred to, and those that a property tells apart without being required: it is required then, so
that no answer is valid under two.
"""

from __future__ import annotations

import itertools

from ollama_async.workers.child.grammar_tree import Schema, resolve
from ollama_async.workers.child.grammar_values import Values, asserting, same

OPTIONS_LIMIT = 100
"""Each is compared with each."""

_Tags = list[tuple[Schema, str]]
"""Objects, and the property that they are told apart by."""


def choose_one(schema: Schema, root: Schema | None, values: Values) -> None:
    """Turn the ``oneOf`` of ``schema`` into ``anyOf`` where that is no less."""
    options = schema.get("oneOf")
    if not isinstance(options, list) or "anyOf" in schema:
        return
    found = [_alternatives(option, root) for option in options]
    if sum(map(len, found)) > OPTIONS_LIMIT or not all(found):
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


def _alternatives(option: object, root: Schema | None) -> list[Schema]:
    """``option``, or the schemas that it refers to or chooses from; empty: unknown, or too many."""
    todo, found, seen = [option], [], set[int]()
    while todo:
        each = todo.pop()
        if not isinstance(each, dict) or len(seen) > OPTIONS_LIMIT:
            return []
        if id(each) in seen:
            continue
        seen.add(id(each))
        union = each.get("oneOf", each.get("anyOf"))
        if "$ref" in each:
            todo.append(resolve(root, each["$ref"]))
        elif isinstance(union, list) and "type" not in asserting(each):
            todo += union
        else:
            found.append(each)
    return found


def _tell_apart(one: Schema, other: Schema, values: Values) -> _Tags | None:
    """What has to be required so that nothing is valid under both; None: something may be."""
    types = [_with_integers(values.types(each)) for each in (one, other)]
    if types[0] and types[1] and not types[0] & types[1]:
        return []
    if _are_disjoint(one, other, values):
        return []
    return _tags(one, other, values) if types == [{"object"}, {"object"}] else None


def _with_integers(types: set[str] | None) -> set[str] | None:
    return types | {"integer"} if types and "number" in types else types


def _are_disjoint(one: object, other: object, values: Values) -> bool:
    these, those = values.of(one), values.of(other)
    if these is None or those is None:
        return False
    return set(map(same, these)).isdisjoint(map(same, those))


def _tags(one: Schema, other: Schema, values: Values) -> _Tags | None:
    if _misses(one, other) or _misses(other, one):
        return []
    these, those = one.get("properties", {}), other.get("properties", {})
    required = {*one.get("required", []), *other.get("required", [])}
    names = [
        name for name in these if name in those and _are_disjoint(these[name], those[name], values)
    ]
    if not names:
        return None
    return [] if required.intersection(names) else [(one, names[0]), (other, names[0])]


def _misses(one: Schema, other: Schema) -> bool:
    """Whether ``one`` forbids a property that ``other`` requires."""
    if one.get("additionalProperties") is not False or "patternProperties" in one:
        return False
    return not set(other.get("required", [])) <= set(one.get("properties", {}))
