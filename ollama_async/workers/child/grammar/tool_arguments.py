r"""Grammar of tool-call arguments: as JSON, as Python prints values, or in Gemma's braces.

The library's own grammar of a schema has properties in the schema's order only, and no character
escapes. That suits answers in a prescribed form. Models write tool calls as they were trained: here
properties come in any order, and ``\u00e9`` is a letter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Set
from contextlib import suppress
from typing import Any, Literal

import msgspec

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.grammar.json_schema import check_size, structure_of
from ollama_async.workers.child.grammar.lark import RuleSet, json_rule, literal
from ollama_async.workers.child.grammar.schema_analysis import KEYWORDS, Schema, resolve, schemas

Strictness = Literal["schemas", "structure", "names"]
"""How much of a schema is enforced at most; ``names``: arguments are any JSON object."""

_SEPARATOR = 'gap? "," gap?'
_DEPTH_LIMIT = 80
"""Nesting with references followed; a schema alone has at most 60 levels."""

_OBJECT = frozenset({"type", "properties", "required", "additionalProperties"})
_ARRAY = frozenset({"type", "items"})
_SHARED = ("$defs", "definitions")


class Notation(msgspec.Struct, frozen=True, kw_only=True):
    """How values are written.

    ``any`` and ``types`` are rules for any value and for JSON types. ``key`` and ``string`` make
    patterns for a property name and a string. ``has_schemas``: the library can enforce the rest of
    a schema.
    """

    any: str
    types: dict[str, str]
    key: Callable[[str], str]
    any_key: str
    string: Callable[[str], str]
    has_schemas: bool = False


def quoted(text: str) -> str:
    """A pattern for ``text`` as a JSON string."""
    return literal(json.dumps(text, ensure_ascii=False))


JSON = Notation(
    any="json_value",
    types={
        "string": "json_string",
        "integer": "integer",
        "array": "json_list",
        "object": "json_object",
    },
    key=quoted,
    any_key="json_string",
    string=quoted,
    has_schemas=True,
)
JSON_RULES = r"""
json_string: /"([^"\\\x00-\x1f]|\\(["\\\/bfnrt]|u[0-9a-fA-F]{4}))*"/
json_value: json_string | number | "true" | "false" | "null" | json_list | json_object
json_list: "[" gap? (json_value (gap? "," gap? json_value)* gap?)? "]"
json_object: "{" gap? (json_member (gap? "," gap? json_member)* gap?)? "}"
json_member: json_string gap? ":" gap? json_value
"""


class ValueGrammar:
    """Adds rules for the values that one tool's ``schema`` allows.

    ``root`` is the schema in use: one that is too large counts as empty.
    """

    def __init__(
        self, rules: RuleSet, schema: Schema, strictness: Strictness, notation: Notation = JSON
    ) -> None:
        self._rules = rules
        self._strictness = strictness
        self._notation = notation
        self._refs: dict[str, str] = {}
        self._depth = 0
        self.root = schema
        try:
            check_size(schema)
        except BadRequest:
            self.root, self._strictness = {}, "names"

    def arguments(self) -> str:
        """A pattern for all arguments together."""
        if self._strictness == "names" or self.root.get("type", "object") != "object":
            return self._notation.types["object"]
        return self.value({"type": "object", **self.root})

    def resolve(self, schema: Any) -> Schema:
        """``schema``, or what it refers to; {} for anything that is not a schema."""
        for _ in range(_DEPTH_LIMIT):
            if not isinstance(schema, dict) or schema.keys() & KEYWORDS != {"$ref"}:
                break
            schema = resolve(self.root, schema["$ref"])
        return schema if isinstance(schema, dict) else {}

    def value(self, schema: Any) -> str:
        """A pattern for a value of ``schema``, a subschema of the tool's."""
        is_open = not isinstance(schema, dict) or self._strictness == "names"
        if is_open or self._depth > _DEPTH_LIMIT:
            return self._notation.any
        self._depth += 1
        rule = self._composed(schema, schema.keys() & KEYWORDS - {*_SHARED}) or self._leaf(schema)
        self._depth -= 1
        return rule

    def _composed(self, schema: Schema, keywords: Set[str]) -> str | None:
        """A schema that combines others, or has only a type; None if it is neither."""
        if keywords == {"$ref"}:
            return self._reference(schema["$ref"])
        if keywords == {"anyOf"} and isinstance(schema["anyOf"], list) and schema["anyOf"]:
            return self._rules.add(" | ".join(map(self.value, schema["anyOf"])))
        if keywords <= _OBJECT and isinstance(schema.get("properties"), dict):
            return self._object(schema)
        if keywords == _ARRAY and schema["type"] == "array":
            item = self.value(schema["items"])
            return self._rules.add(f'"[" gap? ({item} ({_SEPARATOR} {item})*)? gap? "]"')
        if keywords <= {"type"}:
            return self._notation.types.get(str(schema.get("type")))
        return None

    def _reference(self, reference: object) -> str | None:
        """One rule for each target, so that schemas may contain themselves."""
        target = resolve(self.root, reference)
        if target is None or not isinstance(reference, str):
            return None
        if reference not in self._refs:
            self._refs[reference] = self._rules.reserve()
            self._rules.define(self._refs[reference], self.value(target))
        return self._refs[reference]

    def _object(self, schema: Schema) -> str:
        properties, required = schema["properties"], required_of(schema)
        members = [
            (self._member(self._notation.key(key), self.value(value)), key in required)
            for key, value in properties.items()
            if value is not False
        ]
        members += [
            (self._member(self._notation.key(key), self._notation.any), True)
            for key in required
            if key not in properties
        ]
        more = schema.get("additionalProperties", False)
        others = None
        if more is not False:
            others = self._rules.add(self._member(self._notation.any_key, self.value(more)))
        inside = self._rules.in_any_order(members, _SEPARATOR, others)
        return self._rules.add(f'"{{" gap? {inside} gap? "}}"')

    @staticmethod
    def _member(key: str, value: str) -> str:
        return f'{key} gap? ":" gap? {value}'

    def _leaf(self, schema: Schema) -> str:
        """Any other schema, as far as it can be enforced."""
        notation = self._notation
        kinds = self.kinds(schema)
        is_alike = bool(kinds) and kinds <= {"integer", "number"}  # in all notations
        if not notation.has_schemas and not is_alike:
            ways = self.choices(schema) or [notation.types[kind] for kind in sorted(kinds)]
            return self._rules.add(" | ".join(ways)) if ways else notation.any
        for form in self._forms(schema):
            with suppress(BadRequest):
                return self._rules.add(json_rule(form, lenient=True))
        return notation.any

    def choices(self, schema: Schema) -> list[str]:
        """All values, as they are written, if the schema lists them; else empty."""
        if self._strictness == "names":
            return []
        alternatives = _alternatives(schema)
        if alternatives:
            found = [self.choices(self._alternative(way)) for way in alternatives]
            return [each for ways in found for each in ways] if all(found) else []
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if not isinstance(values, list):
            return []
        return [
            self._notation.string(value)
            if isinstance(value, str)
            else literal(json.dumps(value, ensure_ascii=False))
            for value in values
        ]

    def kinds(self, schema: Schema) -> set[str]:
        """The types that values may have; empty if unknown."""
        alternatives = _alternatives(schema)
        if alternatives:
            found = [self.kinds(self._alternative(way)) for way in alternatives]
            return set().union(*found) if all(found) else set()
        types = schema.get("type")
        names = types if isinstance(types, list) else [types]
        if types is None and ("const" in schema or isinstance(schema.get("enum"), list)):
            values = [schema["const"]] if "const" in schema else schema["enum"]
            return {_kind(value) for value in values}
        return {str(name) for name in names} if all(name in _KINDS for name in names) else set()

    def _alternative(self, schema: Any) -> Schema:
        """As :meth:`resolve`; nested alternatives count as anything, and null as a value."""
        target = self.resolve(schema)
        if _alternatives(target):
            return {}
        return {"const": None} if target.get("type") == "null" else target

    def _forms(self, schema: Schema) -> list[Schema]:
        whole = dict(schema)
        if any("$ref" in each for each in schemas(schema)):
            whole.update((key, self.root[key]) for key in _SHARED if key in self.root)
        structure = structure_of(whole)
        return [whole, structure] if self._strictness == "schemas" else [structure]


def required_of(schema: Schema) -> list[str]:
    """The distinct names of required properties; ignores values of a wrong type."""
    required = schema.get("required")
    names = required if isinstance(required, list) else []
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def _alternatives(schema: Schema) -> list[Any]:
    """The options of a union."""
    ways = schema.get("anyOf") or schema.get("oneOf")
    return ways if isinstance(ways, list) else []


def _kind(value: Any) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return "null" if value is None else kinds.get(type(value), "object")


_KINDS = ("array", "boolean", "integer", "null", "number", "object", "string")
