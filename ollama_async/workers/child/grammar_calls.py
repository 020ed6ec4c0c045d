"""The grammar of one tool call: the tools that a client offers, as a model writes calls.

It holds a call that has begun to a tool that exists and to this tool's schema, arguments in the
schema's order. Nobody asked for that, so nothing is refused: what cannot be enforced in a schema is
left out, then all that restricts single values, and if that does not help, the arguments are any
JSON object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal

from ollama_async.errors import BadRequest
from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.workers.child.grammar_schema import structure_of
from ollama_async.workers.child.grammar_text import Special, json_rule, literal, sequence

CALLS_LIMIT = 16
"""Calls between one pair of marks; a model could otherwise go on for ever."""

TOOLS_LIMIT = 256
"""Tools whose schemas are enforced; a grammar for more takes longer than a prompt."""

Strictness = Literal["schemas", "structure", "names"]
"""What of the tools is enforced at most: with ``names`` arguments are any JSON object."""

_HEAD = '%llguidance {"no_forcing": true}\n'
_RULES = r"""
ANYTHING: /(?s:.*)/
gap: /[ \t\r\n]{1,20}/
short_string: /"[^"\\\x00-\x1f]{0,64}"/
double_quoted: /"([^"\\\n]|\\.)*"/
single_quoted: /'([^'\\\n]|\\.)*'/
identifier: /[A-Za-z0-9_.:-]{1,64}/
truth: /[Tt]rue|[Ff]alse/
"""
_STRINGS = {'"': "double_quoted", "'": "single_quoted"}
_PLACEHOLDER = re.compile(r"(\{(?:call|keyed|name|arguments|parameters|id|key|value|is_text)\}| +)")


def call_grammar(
    syntax: CallSyntax,
    tools: Sequence[dict[str, Any]],
    special: Special,
    *,
    strictness: Strictness = "schemas",
) -> str:
    """What may follow the mark that opens a call, to the end of the call."""
    return _Writer(syntax, special, strictness).write(_functions(tools))


def tool_names(tools: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The names of the tools that can be called."""
    return tuple(_functions(tools))


def _functions(tools: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By name; whatever is not of the right shape is not there."""
    functions = {}
    for tool in tools:
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(function, dict) and isinstance(name, str) and name.strip():
            functions[name.strip()] = function
    return functions


class _Writer:
    def __init__(self, syntax: CallSyntax, special: Special, strictness: Strictness) -> None:
        self._syntax = syntax
        self._special = special
        self._strictness = strictness
        self._rules: dict[str, str] = {}

    def write(self, functions: dict[str, dict[str, Any]]) -> str:
        calls = []
        for number, (name, function) in enumerate(functions.items()):
            calls.append(f"call_{number}")
            parameters = function.get("parameters")
            self._add_call(number, name, parameters if isinstance(parameters, dict) else {})
        self._rules["call"] = " | ".join(calls)
        self._rules["start"] = self._span()
        rules = "".join(f"{name}: {rule}\n" for name, rule in self._rules.items())
        return _HEAD + rules + _RULES

    def _span(self) -> str:
        """All that is between the marks."""
        syntax = self._syntax
        more = f"{{0,{CALLS_LIMIT - 1}}}"
        ways = [f"call (gap? call){more}" if syntax.repeated else "call"]
        if syntax.listed:
            ways.append(f'"[" gap? call (gap? "," gap? call){more} gap? "]"')
        body = f"{self._text(syntax.prefix)} gap? ({' | '.join(ways)})"
        if syntax.close:
            body += f" gap? ({' | '.join(self._text(mark) for mark in syntax.close)})"
        return " | ".join([body, *map(self._text_head, syntax.texts)])

    def _text_head(self, text: str) -> str:
        """The first form with ``text`` in the place of a name, up to what follows it."""
        before, _, rest = self._syntax.forms[0].partition("{name}")
        after = _PLACEHOLDER.split(rest)[0]
        return self._expand(before + text + after, {})

    def _add_call(self, number: int, name: str, parameters: dict[str, Any]) -> None:
        syntax = self._syntax
        forms = " ".join(syntax.forms)
        if "{parameters}" in forms:
            self._rules[f"parameters_{number}"] = self._parameters(number, parameters)
        if any(part in forms for part in ("{call}", "{keyed}", "{arguments}")):
            self._rules[f"arguments_{number}"] = self._json(parameters or {"type": "object"})
        parts = {
            "call": self._call_object(number, name),
            "keyed": f'"{{" gap? {_quoted(name)} gap? ":" gap? arguments_{number} gap? "}}"',
            "name": self._text(name),
            "arguments": f"arguments_{number}",
            "parameters": f"parameters_{number}",
            "id": "identifier",
        }
        ways = [self._expand(form, parts) for form in syntax.forms]
        self._rules[f"call_{number}"] = " | ".join(ways)

    def _call_object(self, number: int, name: str) -> str:
        syntax = self._syntax
        before = after = ""
        if syntax.extra_keys:
            keys = " | ".join(map(_quoted, syntax.extra_keys))
            self._rules["extra"] = f'({keys}) gap? ":" gap? short_string'
            before, after = '(extra gap? "," gap?){0,3} ', ' (gap? "," gap? extra){0,3}'
        head = f'({" | ".join(map(_quoted, syntax.name_keys))}) gap? ":" gap? {_quoted(name)}'
        keys = " | ".join(map(_quoted, syntax.argument_keys))
        values = f'({keys}) gap? ":" gap? arguments_{number}'
        return f'"{{" gap? {before}{head} gap? "," gap? {values}{after} gap? "}}"'

    def _expand(self, form: str, parts: dict[str, str]) -> str:
        return " ".join(self._pieces(form, parts)) or '""'

    def _pieces(self, form: str, parts: dict[str, str]) -> Iterator[str]:
        for piece in filter(None, _PLACEHOLDER.split(form)):
            if not piece.strip(" "):
                yield "gap?"
            elif _PLACEHOLDER.fullmatch(piece):
                yield parts[piece.strip("{}")]
            else:
                yield self._text(piece)

    def _text(self, text: str) -> str:
        return sequence(text, self._special)

    # JSON

    def _json(self, schema: dict[str, Any]) -> str:
        """What matches JSON of the ``schema``, as far as it can be enforced."""
        with suppress(BadRequest):
            if self._strictness == "schemas":
                return json_rule(schema, loosely=True)
        with suppress(BadRequest):
            if self._strictness != "names":
                return json_rule(structure_of(schema), loosely=True)
        return json_rule({"type": "object"} if schema.get("type") == "object" else True)

    # Arguments one by one

    def _parameters(self, number: int, schema: dict[str, Any]) -> str:
        """All of one tool, in the order of its ``schema``."""
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        required = required if isinstance(required, list) else []
        rules = []
        for place, (key, value) in enumerate(properties.items()):
            rule = f"parameter_{number}_{place}"
            self._rules[rule] = self._parameter(key, value if isinstance(value, dict) else {})
            rules.append((rule, key in required))
        if "properties" not in schema or schema.get("additionalProperties"):
            self._rules["other_parameter"] = self._parameter(None, {})
            rules += [("other_parameter", False)] * CALLS_LIMIT
        if self._syntax.between:
            return self._separated(number, rules)
        return " ".join(f"({rule} gap?){'' if needed else '?'}" for rule, needed in rules) or '""'

    def _separated(self, number: int, rules: Sequence[tuple[str, bool]]) -> str:
        """As many of ``rules`` as there are, in their order, with separators between them; each
        says whether it has to be there.
        """
        separator = f"gap? {self._text(self._syntax.between)} gap?"
        first = later = '""'
        for place, (rule, needed) in reversed(list(enumerate(rules))):
            rest = f"after_{number}_{place}"
            self._rules[rest] = later
            skips = ["", ""] if needed else [f" | {first}", f" | {rest}"]
            first = f"({rule} {rest}{skips[0]})"
            later = f"{separator} {rule} {rest}{skips[1]}"
        return f"{first} gap?"

    def _parameter(self, key: str | None, schema: dict[str, Any]) -> str:
        """One argument; any name if there is no ``key``."""
        before, _, end = self._syntax.parameter.partition("{value}")
        parts = {
            "key": "identifier" if key is None else self._text(key),
            "is_text": literal("true" if _may_be_text(schema) or _has_text(schema) else "false"),
        }
        return f"{self._expand(before, parts)} {self._value(schema, end)}"

    def _value(self, schema: dict[str, Any], end: str) -> str:
        """A value and the text that ends it."""
        choices = _choices(schema)
        closing = self._expand(end, {})
        if choices and self._strictness != "names":
            return f"gap? ({' | '.join(self._choice(choice) for choice in choices)}) gap? {closing}"
        if _may_be_text(schema):
            if self._syntax.quotes:
                return f"gap? ({' | '.join(self._quoted(schema))}) gap? {closing}"
            return self._text_until(end)
        if schema.get("type") == "boolean":
            return f"gap? truth gap? {closing}"
        return f"gap? {self._json(schema)} gap? {closing}"

    def _choice(self, value: Any) -> str:
        if not isinstance(value, str):
            return literal(json.dumps(value, ensure_ascii=False))
        quotes = [self._text(quote) for quote in self._syntax.quotes]
        return " | ".join(f"{quote} {literal(value)} {quote}" for quote in quotes) or literal(value)

    def _quoted(self, schema: dict[str, Any]) -> Iterator[str]:
        """The ways to write a value that may be a string, where strings have quotes."""
        for quote in self._syntax.quotes:
            yield _STRINGS.get(quote) or f"{self._text(quote)} {self._text_until(quote)}"
        if schema.get("type") != "string":
            yield self._json({"type": ["object", "array", "number", "boolean", "null"]})

    def _text_until(self, end: str) -> str:
        first, *rest = self._expand(end, {}).split(" ", 1)
        if first.startswith("<"):  # a token: text cannot be mistaken for it
            return " ".join(["ANYTHING", first, *rest])
        self._rules["text_value[lazy]"] = f"ANYTHING {self._expand(end, {})}"
        return "text_value"


def _quoted(text: str) -> str:
    """A literal that is a JSON string."""
    return literal(json.dumps(text, ensure_ascii=False))


def _choices(schema: dict[str, Any]) -> list[Any]:
    """The only values that there are; empty: there are others."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return values if isinstance(values, list) else []


def _has_text(schema: dict[str, Any]) -> bool:
    """Whether one of the only values is a string."""
    return any(isinstance(value, str) for value in _choices(schema))


def _may_be_text(schema: dict[str, Any]) -> bool:
    """Whether a value may be a string, as far as that can be seen."""
    ways = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(ways, list):
        return any(not isinstance(way, dict) or _may_be_text(way) for way in ways)
    types = schema.get("type")
    return types is None or "string" in types  # one type, or a list of them
