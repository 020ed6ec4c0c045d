r"""Writes grammars in llguidance's variant of Lark: literals, rules, values of a schema.

Text matches whatever tokens it comes in. Control tokens within it are named by their ids.

The library's own grammar of a schema has properties in the schema's order only, and no character
escapes. That suits answers in a prescribed form. Models write tool calls as they were trained, so
:class:`ValueGrammar` writes arguments as JSON, as Python prints values, or in Gemma's braces:
properties come in any order, and ``\u00e9`` is a letter.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from itertools import chain
from typing import Any, Literal

import msgspec

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.grammar.json_schema import check_size, prepare
from ollama_async.workers.child.grammar.schema_analysis import KEYWORDS, Schema, resolve, schemas

PERMUTED_LIMIT = 6
"""Members that may come in any order exactly once; each more would double the number of rules."""

PATHS_LIMIT = 6000
"""Paths through all permutations in one grammar, counted by the members that may come next."""

GRAMMAR_LIMIT = 1 << 19
"""Characters. Writing and compiling this many takes about a second."""

MAX_CALLS = 16
"""Calls in an answer that must be calls; a model could otherwise go on forever."""

HEAD = '%llguidance {"no_forcing": true}\n'
ANYTHING = "ANYTHING: /(?s:.*)/\n"

SpecialTokens = Mapping[int, bytes]
"""The text of control tokens, by id."""

Member = tuple[str, bool]
"""A pattern, and whether it is required."""


def literal(text: str) -> str:
    """A pattern for ``text`` in ordinary tokens."""
    return json.dumps(text, ensure_ascii=False)


def text_pattern(text: str, special: SpecialTokens) -> str:
    """A pattern for ``text`` with the control tokens in it."""
    return " ".join(split_special(text, special))


def split_special(text: str, special: SpecialTokens) -> list[str]:
    """``text`` split into literals and control tokens."""
    ids = {each.decode(): token for token, each in special.items()}
    if not ids:
        return [literal(text)]
    longest_first = sorted(ids, key=len, reverse=True)
    parts = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
    return [f"<[{ids[part]}]>" if part in ids else literal(part) for part in parts if part]


def json_rule(form: object, *, lenient: bool = False) -> str:
    """A pattern for JSON of a ``form``: ``"json"`` (an object) or a JSON Schema.

    ``lenient``: leave out what cannot be enforced.

    :raises BadRequest: the form is neither, or cannot be enforced.
    """
    if form == "json":
        form = {"type": "object"}
    if not isinstance(form, (dict, bool)):
        raise BadRequest(
            f'invalid format: {json.dumps(form)}; expected "json" or a valid JSON Schema object'
        )
    return f"%json {prepare(form, lenient=lenient)}"


class RuleSet:
    """The rules of one grammar, by name. Equal texts share a rule.

    :raises BadRequest: from every method that adds rules, once they are too large.
    """

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._paths = 0
        self._size = 0

    def add(self, text: str, *, lazy: bool = False) -> str:
        """Add a rule and return its name. A ``lazy`` one matches as little as possible."""
        if text not in self._names:
            name = self._names[text] = f"lazy_{len(self._rules)}" if lazy else self.reserve()
            self.define(f"{name}[lazy]" if lazy else name, text)
        return self._names[text]

    def reserve(self) -> str:
        """A name that may be used before :meth:`define` gives it a rule."""
        name = f"rule_{len(self._rules)}"
        self._rules[name] = ""
        return name

    def define(self, name: str, text: str) -> None:
        self._size += len(text)
        if self._size > GRAMMAR_LIMIT:
            raise BadRequest(f"the tools need a grammar of more than {GRAMMAR_LIMIT} characters")
        self._rules[name] = text

    def text(self) -> str:
        return "".join(f"{name}: {rule}\n" for name, rule in self._rules.items())

    def in_any_order(
        self, members: Sequence[Member], separator: str, others: str | None = None
    ) -> str:
        """A pattern for ``members`` in any order, each at most once, and any number of ``others``.

        Models write arguments in any order, and one that could not go back would lose an argument.
        With too many members to follow every order, optional ones may repeat. With too many
        required ones, these come in the order given.
        """
        named = [(self.add(member), is_required) for member, is_required in members]
        if self._can_permute(len(named), others):
            return self._permuted(named, separator, others)
        required = [member for member in named if member[1]]
        optional = [name for name, is_required in named if not is_required]
        optional += [others] if others else []
        rest = self.add(" | ".join(optional)) if optional else None
        if self._can_permute(len(required), rest):
            return self._permuted(required, separator, rest)
        return _in_order([name for name, _ in required], separator, rest)

    def _can_permute(self, count: int, others: str | None) -> bool:
        paths = (count + 2 * bool(others)) << max(0, count - 1)
        if count > PERMUTED_LIMIT or self._paths + paths > PATHS_LIMIT:
            return False
        self._paths += paths
        return True

    def _permuted(self, members: Sequence[Member], separator: str, others: str | None) -> str:
        """One rule for each set of members that are still to come."""
        names = [name for name, _ in members]
        required = sum(1 << place for place, (_, is_required) in enumerate(members) if is_required)
        everything = (1 << len(members)) - 1
        rests = {left: self.reserve() for left in range(everything + 1)}
        for left, rest in rests.items():
            more = _continuations(names, rests, left, others)
            self.define(rest, _optional(more and f"{separator} ({more})", required & left))
        return _optional(_continuations(names, rests, everything, others), required)


def _continuations(
    names: Sequence[str], rests: dict[int, str], left: int, others: str | None
) -> str:
    """Each member of the set ``left``, with what may follow it."""
    patterns = [
        f"{name} {rests[left & ~(1 << place)]}"
        for place, name in enumerate(names)
        if left >> place & 1
    ]
    if others:
        patterns.append(f"{others} {rests[left]}")
    return " | ".join(patterns)


def _in_order(names: Sequence[str], separator: str, others: str | None) -> str:
    """All ``names`` in their order, with any of ``others`` around them."""
    before = f"({others} {separator})*" if others else ""
    after = f"({separator} {others})*" if others else ""
    return f" {separator} ".join(f"{before} {name}" for name in names) + f" {after}"


def _optional(text: str, is_required: int) -> str:
    if not text:
        return '""'
    return f"({text})" if is_required else f"({text})?"


Strictness = Literal["schemas", "structure", "names"]
"""How much of a schema is enforced at most; ``names``: arguments are any JSON object."""

_SEPARATOR = 'gap? "," gap?'
_DEPTH_LIMIT = 80
"""Nesting with references followed; a schema alone has at most 60 levels."""

_OBJECT = frozenset({"type", "properties", "required", "additionalProperties"})
_ARRAY = frozenset({"type", "items"})
_SHARED = ("$defs", "definitions")
_STRUCTURE = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "items", "prefixItems"),
        *("enum", "const", "anyOf", "allOf", "$ref", "$defs", "definitions"),
    }
)


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


def quoted(value: object) -> str:
    return literal(json.dumps(value, ensure_ascii=False))


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
        rule = self._combined(schema, schema.keys() & KEYWORDS - {*_SHARED}) or self._other(schema)
        self._depth -= 1
        return rule

    def _combined(self, schema: Schema, keywords: Set[str]) -> str | None:
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
        listed = {**properties, **{key: True for key in required if key not in properties}}
        members = [
            (self._member(self._notation.key(key), self.value(value)), key in required)
            for key, value in listed.items()
            if value is not False
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

    def _other(self, schema: Schema) -> str:
        """Any other schema, as far as it can be enforced."""
        notation = self._notation
        types = self.types(schema)
        is_alike = bool(types) and types <= {"integer", "number"}  # in all notations
        if not notation.has_schemas and not is_alike:
            patterns = self.choices(schema) or [notation.types[name] for name in sorted(types)]
            return self._rules.add(" | ".join(patterns)) if patterns else notation.any
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
            found = [self.choices(self._alternative(each)) for each in alternatives]
            return [*chain(*found)] if all(found) else []
        string = self._notation.string
        return [
            string(value) if isinstance(value, str) else quoted(value)
            for value in _listed_values(schema) or []
        ]

    def types(self, schema: Schema) -> set[str]:
        """The types that values may have; empty if unknown."""
        alternatives = _alternatives(schema)
        if alternatives:
            found = [self.types(self._alternative(each)) for each in alternatives]
            return set().union(*found) if all(found) else set()
        types = schema.get("type")
        names = types if isinstance(types, list) else [types]
        values = _listed_values(schema)
        if types is None and values is not None:
            return set(map(_type_name, values))
        return {str(name) for name in names} if all(name in _TYPES for name in names) else set()

    def _alternative(self, schema: Any) -> Schema:
        """As :meth:`resolve`; nested alternatives count as anything, and null as a value."""
        target = self.resolve(schema)
        if _alternatives(target):
            return {}
        return {"const": None} if target.get("type") == "null" else target

    def _forms(self, schema: Schema) -> list[Schema]:
        """``schema``, and without restrictions on single values; strictest first."""
        whole = dict(schema)
        if any("$ref" in each for each in schemas(schema)):
            whole.update((key, self.root[key]) for key in _SHARED if key in self.root)
        structure = copy.deepcopy(whole)
        for each in schemas(structure):
            for keyword in each.keys() - _STRUCTURE:
                del each[keyword]
        return [whole, structure] if self._strictness == "schemas" else [structure]


def required_of(schema: Schema) -> list[str]:
    """The distinct names of required properties; ignores values of a wrong type."""
    required = schema.get("required")
    names = required if isinstance(required, list) else []
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def _listed_values(schema: Schema) -> list[Any] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return values if isinstance(values, list) else None


def _alternatives(schema: Schema) -> list[Any]:
    options = schema.get("anyOf") or schema.get("oneOf")
    return options if isinstance(options, list) else []


def _type_name(value: Any) -> str:
    types = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return "null" if value is None else types.get(type(value), "object")


_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
