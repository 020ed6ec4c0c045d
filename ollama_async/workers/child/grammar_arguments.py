r"""Arguments of tool calls as one JSON text.

The library's own grammar for a schema has properties in the schema's order only, and characters
only as they are. That does for answers that were asked for in a form. A model that calls a tool
does so as it was taught: here properties come in any order, and ``\u00e9`` is a letter.
"""

from __future__ import annotations

import json
from collections.abc import Set
from contextlib import suppress
from typing import Any, Literal

from ollama_async.errors import BadRequest
from ollama_async.workers.child.grammar_rules import Rules
from ollama_async.workers.child.grammar_schema import check_size, structure_of
from ollama_async.workers.child.grammar_text import json_rule, literal
from ollama_async.workers.child.grammar_tree import KEYWORDS, Schema, resolve

Strictness = Literal["schemas", "structure", "names"]
"""What of schemas is enforced at most: with ``names`` arguments are any JSON object."""

_SEPARATOR = 'gap? "," gap?'
_SHARED = ("$defs", "definitions")
_PLAIN = {
    "None": "json_value",
    "string": "json_string",
    "array": "json_list",
    "object": "json_object",
}
"""The rules of types about which a schema says nothing else."""

_OBJECT = frozenset({"type", "properties", "required", "additionalProperties"})
_ARRAY = frozenset({"type", "items"})


class JsonArguments:
    """Adds to ``rules`` what one tool's ``schema`` allows."""

    def __init__(self, rules: Rules, schema: Schema, strictness: Strictness) -> None:
        self._rules = rules
        self._root = schema
        self._refs: dict[str, str] = {}
        self._strictness = strictness
        with suppress(BadRequest):
            check_size(schema)
            return
        self._root, self._strictness = {}, "names"

    def rule(self) -> str:
        """What matches all arguments together."""
        if self._strictness == "names" or self._root.get("type", "object") != "object":
            return "json_object"
        return self.value({"type": "object", **self._root})

    def value(self, schema: Any) -> str:
        """What matches a value of ``schema``, a schema within the tool's."""
        if not isinstance(schema, dict) or self._strictness == "names":
            return "json_value"
        keywords = schema.keys() & KEYWORDS - {"$defs", "definitions"}
        if keywords <= {"type"} and (plain := _PLAIN.get(str(schema.get("type")))):
            return plain
        if keywords == {"$ref"}:
            return self._reference(schema)
        if keywords == {"anyOf"} and isinstance(schema["anyOf"], list) and schema["anyOf"]:
            return self._rules.add(" | ".join(map(self.value, schema["anyOf"])))
        return self._container(schema, keywords) or self._leaf(schema)

    def _container(self, schema: Schema, keywords: Set[str]) -> str | None:
        """None: it is none, or has to be the library's."""
        if keywords <= _OBJECT and isinstance(schema.get("properties"), dict):
            return self._object(schema)
        if keywords == _ARRAY and schema["type"] == "array":
            item = self.value(schema["items"])
            return self._rules.add(f'"[" gap? ({item} ({_SEPARATOR} {item})*)? gap? "]"')
        return None

    def _reference(self, schema: Schema) -> str:
        """The same rule wherever the same is meant, also within itself."""
        reference = schema["$ref"]
        target = resolve(self._root, reference)
        if target is None:
            return self._leaf(schema)
        if reference not in self._refs:
            self._refs[reference] = self._rules.reserve()
            self._rules.define(self._refs[reference], self.value(target))
        return self._refs[reference]

    def _object(self, schema: Schema) -> str:
        required = schema.get("required")
        required = required if isinstance(required, list) else []
        members = [
            (self._member(_quoted(key), self.value(value)), key in required)
            for key, value in schema["properties"].items()
        ]
        more = schema.get("additionalProperties", False)
        others = None
        if more is not False:
            others = self._rules.add(self._member("json_string", self.value(more)))
        inside = self._rules.in_any_order(members, _SEPARATOR, others)
        return self._rules.add(f'"{{" gap? {inside} gap? "}}"')

    @staticmethod
    def _member(key: str, value: str) -> str:
        return f'{key} gap? ":" gap? {value}'

    def _leaf(self, schema: Schema) -> str:
        """A value as the library does it, as far as it can."""
        for form in self._forms(schema):
            with suppress(BadRequest):
                return self._rules.add(json_rule(form, loosely=True))
        return "json_value"

    def _forms(self, schema: Schema) -> list[Schema]:
        whole = dict(schema)
        whole.update((key, self._root[key]) for key in _SHARED if key in self._root)
        structure = structure_of(whole)
        return [whole, structure] if self._strictness == "schemas" else [structure]


def _quoted(text: str) -> str:
    """A literal that is a JSON string."""
    return literal(json.dumps(text, ensure_ascii=False))
