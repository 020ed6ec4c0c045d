"""Arguments of tool calls one by one: in tags, as Python's keywords, in Gemma's braces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.workers.child.grammar.arguments import (
    JSON,
    Notation,
    Strictness,
    Values,
    required_of,
)
from ollama_async.workers.child.grammar.lark import Member, Rules
from ollama_async.workers.child.grammar_text import Special, literal, sequence

_PLACEHOLDER = re.compile(r"(\{[a-z_]+\}| +)")
_STRINGS = {'"': "double_quoted", "'": "single_quoted"}
_LITERALS = {
    "string": "literal_string",
    "integer": "integer",
    "number": "number",
    "boolean": "truth",
    "null": "nothing",
    "array": "literal_list",
    "object": "literal_map",
}
LITERAL_RULES = r"""
double_quoted: /"([^"\\]|\\(?s:.))*"/
single_quoted: /'([^'\\]|\\(?s:.))*'/
bare_key: /[^\s:{}\[\],"']{1,64}/
identifier: /[A-Za-z0-9_.:-]{1,64}/
integer: whole
number: whole fraction? exponent?
whole: /-?(0|[1-9][0-9]{0,17}|[1-8][0-9]{18}|9[01][0-9]{17}|922337203685477580[0-7])/
fraction: /\.[0-9]{1,20}/
exponent: /[eE][+-]?[0-9]{1,2}/
truth: "True" | "False" | "true" | "false"
nothing: "None" | "null"
literal_value: literal_string | number | truth | nothing | literal_list | literal_map
literal_list: "[" gap? (literal_value (gap? "," gap? literal_value)* gap?)? "]"
literal_map: "{" gap? (literal_member (gap? "," gap? literal_member)* gap?)? "}"
"""


def expand(form: str, parts: Mapping[str, str], special: Special) -> str:
    """What matches a form of :class:`CallSyntax`, with ``parts`` in place of its placeholders."""
    known = {"space": '" "', **parts}
    pieces = []
    for piece in filter(None, _PLACEHOLDER.split(form)):
        if not piece.strip(" "):
            pieces.append("gap?")
        elif piece.strip("{}") in known:
            pieces.append(known[piece.strip("{}")])
        else:
            pieces.append(sequence(piece, special))
    return " ".join(pieces) or '""'


def string_rules(syntax: CallSyntax, special: Special) -> str:
    """The rules of strings and keys in values that are no JSON; Python's where ``syntax`` has no
    quotes.
    """
    rules, strings = "", []
    for number, quote in enumerate(syntax.quotes or tuple(_STRINGS)):
        if quote in _STRINGS:
            strings.append(_STRINGS[quote])
        else:
            mark = sequence(quote, special)
            lazy = "" if _has_token(mark) else "[lazy]"
            rules += f"marked_{number}{lazy}: {_text_until(mark)}\n"
            strings.append(f"{mark} marked_{number}")
    rules += f"literal_string: {' | '.join(strings)}\n"
    return rules + f'literal_member: {_any_key(syntax)} gap? ":" gap? literal_value\n'


def _any_key(syntax: CallSyntax) -> str:
    """Who has marks of its own around strings has none around keys."""
    return "literal_string" if set(syntax.quotes) <= _STRINGS.keys() else "bare_key"


def _text_until(end: str) -> str:
    """Text and the ``end`` of it, which may begin with text if there is a token in it: that is
    where text cannot go on.
    """
    return f"ANYTHING {end[end.find('<[') :] if _has_token(end) else end}"


def _has_token(text: str) -> bool:
    return text.startswith("<[") or " <[" in text


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
        self._syntax = syntax
        self._special = special
        self._strictness = strictness
        self._values = Values(rules, schema, strictness, self._notation())
        self._schema = self._values.root
        self._before, _, end = syntax.parameter.partition("{value}")
        self._end = expand(end, {}, special) if end else ""

    def _notation(self) -> Notation:
        return self._printed() if self._syntax.quotes else replace(JSON, string=literal)

    def _printed(self) -> Notation:
        """Values as Python prints them, or with the marks around strings that the syntax has."""
        any_key = _any_key(self._syntax)
        return Notation(
            any="literal_value",
            types=_LITERALS,
            key=literal if any_key == "bare_key" else self._quoted,
            any_key=any_key,
            string=self._quoted,
        )

    def rule(self) -> str:
        """What matches all of them."""
        properties, required = self._schema.get("properties"), required_of(self._schema)
        listed = properties if isinstance(properties, dict) else {}
        listed = {**listed, **{key: {} for key in required if key not in listed}}
        members: list[Member] = [
            (self._parameter(sequence(key, self._special), value), key in required)
            for key, value in listed.items()
            if value is not False
        ]
        others = None
        if not isinstance(properties, dict) or self._schema.get("additionalProperties"):
            others = self._rules.add(self._parameter("identifier", {}))
        between = self._syntax.between
        separator = f"gap? {sequence(between, self._special)} gap?" if between else "gap?"
        return self._rules.add(f"{self._rules.in_any_order(members, separator, others)} gap?")

    def _parameter(self, key: str, schema: Any) -> str:
        meant = self._values.meant(schema)
        ways = self._kinds_of_value(meant)
        written = [
            f"{expand(self._before, {'key': key, 'is_text': literal(kind)}, self._special)} {value}"
            for kind, value in ways.items()
        ]
        return self._rules.add(" | ".join(written)) if len(written) > 1 else written[0]

    def _kinds_of_value(self, schema: dict[str, Any]) -> dict[str, str]:
        """The values of ``schema``, each with what ends it, by whether they are bare text."""
        if "{is_text}" not in self._before:
            return {"": self._value(schema)}
        kinds, choices = self._values.kinds(schema), self._values.choices(schema)
        ways = {}
        if not kinds or "string" in kinds:
            ways["true"] = self._lined(choices) if kinds == {"string"} and choices else self._text()
        if kinds != {"string"}:
            ways["false"] = self._lined([self._values.value(schema)])
        return ways

    def _value(self, schema: dict[str, Any]) -> str:
        """A value and what ends it."""
        ways = self._values.choices(schema)
        if self._syntax.quotes:
            return f"gap? ({' | '.join(ways or [self._values.value(schema)])}) gap? {self._end}"
        kinds = self._values.kinds(schema)
        if not ways and (not kinds or "string" in kinds):
            return self._text()
        return self._lined(ways or [self._values.value(schema), *self._as_python_prints(schema)])

    def _text(self) -> str:
        text = _text_until(self._end)
        return self._rules.add(text) if _has_token(text) else self._rules.add_lazy(text)

    def _lined(self, ways: Sequence[str]) -> str:
        """One line break on each side is markup, anything else would be a part of the value."""
        value = self._rules.add(" | ".join(ways))
        return f'({value} | "\\n" {value} "\\n") {self._end}'

    def _quoted(self, text: str) -> str:
        ways = []
        for quote in self._syntax.quotes or tuple(_STRINGS):
            mark = sequence(quote, self._special)
            inside = text
            if quote in _STRINGS:
                inside = json.dumps(text, ensure_ascii=False)[1:-1]
                inside = inside.replace('\\"', '"').replace(quote, f"\\{quote}")
            ways.append(f"{mark} {literal(inside)} {mark}" if inside else f"{mark} {mark}")
        return f"({' | '.join(ways)})"

    def _as_python_prints(self, schema: dict[str, Any]) -> Iterator[str]:
        """Templates print values so, and models learn it from them."""
        kinds = self._values.kinds(schema)
        yield from (_LITERALS[kind] for kind in sorted(kinds & {"boolean", "null"}))
        if kinds & {"array", "object"}:
            yield Values(self._rules, self._schema, self._strictness, self._printed()).value(schema)
