"""Arguments of tool calls one by one: in tags, as Python's keywords, in Gemma's braces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.workers.child.grammar_arguments import JsonArguments, Strictness
from ollama_async.workers.child.grammar_rules import Member, Rules
from ollama_async.workers.child.grammar_text import Special, literal, sequence

_PLACEHOLDER = re.compile(r"(\{[a-z_]+\}| +)")
_STRINGS = {'"': "double_quoted", "'": "single_quoted"}
_LITERALS = {
    "integer": "number",
    "number": "number",
    "boolean": "truth",
    "null": "nothing",
    "array": "literal_list",
    "object": "literal_map",
}


def expand(form: str, parts: Mapping[str, str], special: Special) -> str:
    """What matches a form of :class:`CallSyntax`, with ``parts`` in place of its placeholders."""
    pieces = []
    for piece in filter(None, _PLACEHOLDER.split(form)):
        if not piece.strip(" "):
            pieces.append("gap?")
        elif piece.strip("{}") in parts:
            pieces.append(parts[piece.strip("{}")])
        else:
            pieces.append(sequence(piece, special))
    return " ".join(pieces) or '""'


def literal_rules(syntax: CallSyntax, special: Special) -> str:
    """The rules of values with strings in quotes, as :class:`Parameters` names them; Python's where
    ``syntax`` has no quotes.
    """
    rules = ""
    quotes = syntax.quotes or tuple(_STRINGS)
    marks = [sequence(quote, special) for quote in quotes if quote not in _STRINGS]
    strings = [_STRINGS[quote] for quote in quotes if quote in _STRINGS]
    # who has marks of its own around strings has none around keys
    key = "bare_key" if marks else "literal_string"
    for number, mark in enumerate(marks):
        lazy = "" if "<[" in mark else "[lazy]"
        strings.append(f"{mark} marked_{number}")
        rules += f"marked_{number}{lazy}: {_text_until(mark)}\n"
    return f"""{rules}literal_string: {" | ".join(strings)}
literal_value: literal_string | number | truth | nothing | literal_list | literal_map
literal_list: "[" gap? (literal_value (gap? "," gap? literal_value)* gap?)? "]"
literal_map: "{{" gap? (literal_member (gap? "," gap? literal_member)* gap?)? "}}"
literal_member: {key} gap? ":" gap? literal_value
"""


def _text_until(end: str) -> str:
    """Text and the ``end`` of it; that may begin with text if there is a token in it."""
    place = end.find("<[")
    return f"ANYTHING {end if place < 0 else end[place:]}"


class Parameters:
    """Those of one tool as ``syntax`` writes them, added to ``rules``."""

    def __init__(
        self,
        rules: Rules,
        schema: dict[str, Any],
        syntax: CallSyntax,
        special: Special,
        strictness: Strictness,
    ) -> None:
        self._rules = rules
        self._schema = schema
        self._syntax = syntax
        self._special = special
        self._strictness = strictness
        self._json = JsonArguments(rules, schema, strictness)
        self._before, _, end = syntax.parameter.partition("{value}")
        self._end = expand(end, {}, special) if end else ""

    def rule(self) -> str:
        """What matches all of them."""
        properties = self._schema.get("properties")
        required = self._schema.get("required")
        required = required if isinstance(required, list) else []
        members: list[Member] = [
            (self._parameter(sequence(key, self._special), value), key in required)
            for key, value in (properties if isinstance(properties, dict) else {}).items()
        ]
        others = None
        if not isinstance(properties, dict) or self._schema.get("additionalProperties"):
            others = self._rules.add(self._parameter("identifier", {}))
        between = self._syntax.between
        separator = f"gap? {sequence(between, self._special)} gap?" if between else "gap?"
        return self._rules.add(f"{self._rules.in_any_order(members, separator, others)} gap?")

    def _parameter(self, key: str, schema: Any) -> str:
        schema = schema if isinstance(schema, dict) else {}
        parts = {"key": key, "is_text": literal(json.dumps(_may_be_text(schema)))}
        return f"{expand(self._before, parts, self._special)} {self._value(schema)}"

    def _value(self, schema: dict[str, Any]) -> str:
        """A value and what ends it."""
        ways = self._choices(schema)
        if not ways and self._syntax.quotes:
            ways = [
                "literal_string" if kind == "string" else _LITERALS[kind] for kind in _kinds(schema)
            ]
            ways = ways or ["literal_value"]
        elif not ways and _may_be_text(schema):
            return self._rules.add_lazy(_text_until(self._end))
        elif not ways:
            ways = [self._json.value(schema), *self._as_python_prints(schema)]
        return f"gap? ({' | '.join(ways)}) gap? {self._end}"

    def _choices(self, schema: dict[str, Any]) -> list[str]:
        """The only values that there are; empty: there are others."""
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if self._strictness == "names" or not isinstance(values, list):
            return []
        return [way for value in values for way in self._choice(value)]

    def _choice(self, value: Any) -> Iterator[str]:
        if not isinstance(value, str):
            yield literal(json.dumps(value, ensure_ascii=False))
        elif not self._syntax.quotes:
            yield literal(value)
        for quote in self._syntax.quotes if isinstance(value, str) else ():
            mark = sequence(quote, self._special)
            yield f"{mark} {literal(value)} {mark}"

    @staticmethod
    def _as_python_prints(schema: dict[str, Any]) -> Iterator[str]:
        """Templates print values so, and models learn it from them."""
        kinds = _kinds(schema)
        printed = kinds & {"boolean", "null", "array", "object"}
        yield from (_LITERALS[kind] for kind in sorted(printed))


def _may_be_text(schema: dict[str, Any]) -> bool:
    """Whether a value may be a string, as far as that can be seen."""
    kinds = _kinds(schema)
    return not kinds or "string" in kinds


def _kinds(schema: dict[str, Any]) -> set[str]:
    """The types that values may have; empty: nobody knows."""
    ways = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(ways, list):
        found = [_kinds(way) if isinstance(way, dict) else set() for way in ways]
        return set().union(*found) if all(found) else set()
    types = schema.get("type")
    names = types if isinstance(types, list) else [types]
    if not all(isinstance(name, str) and name in {*_LITERALS, "string"} for name in names):
        return set()
    return set(names)
