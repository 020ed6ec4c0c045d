"""Grammar of one tool call: the offered tools, written as the model's family writes calls.

It restricts a call that has begun to existing tools and their schemas. The client did not ask for
that, so nothing is refused. Keywords that cannot be enforced are left out; then everything that
restricts single values; in the end the arguments may be any JSON object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from ollama_async.prompts.output_format import CallSyntax
from ollama_async.workers.child.grammar.lark import (
    ANYTHING,
    HEAD,
    JSON,
    JSON_RULES,
    MAX_CALLS,
    Member,
    Notation,
    RuleSet,
    SpecialTokens,
    Strictness,
    ValueGrammar,
    literal,
    quoted,
    required_of,
    text_pattern,
)

MAX_TOOLS = 256
"""Tools whose schemas are enforced; a grammar for more takes longer than a prompt."""

_RULES = rf"""
{ANYTHING}gap: / |[ \t]?(\r?\n){{1,2}}[ \t]{{0,32}}/
short_string: /"[^"\\\x00-\x1f]{{0,64}}"/
"""

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
_LITERAL_RULES = r"""
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

Function = tuple[str, dict[str, Any]]
"""A tool's name and the schema of its parameters."""


def call_grammar(
    syntax: CallSyntax,
    tools: Sequence[dict[str, Any]],
    special: SpecialTokens,
    *,
    strictness: Strictness = "schemas",
) -> str:
    """The grammar of what follows the mark that opens a call, up to the end of the call.

    :raises BadRequest: it would be too large.
    """
    return HEAD + call_rules(syntax, tools, special, strictness=strictness)


def call_rules(
    syntax: CallSyntax,
    tools: Sequence[dict[str, Any]],
    special: SpecialTokens,
    *,
    strictness: Strictness,
    root: str = "start",
) -> str:
    """The rules of :func:`call_grammar`, of which ``root`` is the first. Among them is ``gap``, and
    the terminal ``ANYTHING``.
    """
    grammar = _CallGrammar(syntax, special, strictness)
    rules = grammar.write(root, _functions(tools))
    return rules + grammar.string_rules() + _RULES + JSON_RULES + _LITERAL_RULES


def tool_names(tools: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The distinct names of well-formed tools."""
    return tuple(dict.fromkeys(name for name, _ in _functions(tools)))


def _functions(tools: Sequence[dict[str, Any]]) -> list[Function]:
    """Skips malformed tools. Two tools of one name are two ways to call it."""
    functions = []
    for tool in tools:
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(function, dict) and isinstance(name, str) and name.strip():
            parameters = function.get("parameters")
            functions.append((name.strip(), parameters if isinstance(parameters, dict) else {}))
    return functions


class _CallGrammar:
    """The grammar of one call; :class:`_ParameterGrammar` adds rules to it."""

    def __init__(self, syntax: CallSyntax, special: SpecialTokens, strictness: Strictness) -> None:
        self.syntax = syntax
        self.strictness = strictness
        self.rules = RuleSet()
        self._special = special

    def text_pattern(self, text: str) -> str:
        return text_pattern(text, self._special)

    def expand(self, form: str, parts: Mapping[str, str]) -> str:
        """A form of :class:`CallSyntax`, with ``parts`` in place of its placeholders."""
        known = {"space": '" "', **parts}
        pieces = []
        for piece in filter(None, _PLACEHOLDER.split(form)):
            if not piece.strip(" "):
                pieces.append("gap?")
            elif piece.strip("{}") in known:
                pieces.append(known[piece.strip("{}")])
            else:
                pieces.append(self.text_pattern(piece))
        return " ".join(pieces) or '""'

    def write(self, root: str, functions: Sequence[Function]) -> str:
        calls = [self._placeholders(name, parameters) for name, parameters in functions]
        rules = f"{root}: {self._span()}\ncall: {self._calls(self.syntax.forms, calls)}\n"
        if self.syntax.listed:
            rules += f"listed_call: {self._calls(self.syntax.listed, calls)}\n"
        return rules + self.rules.text()

    def _calls(self, forms: Sequence[str], calls: Sequence[dict[str, str]]) -> str:
        written = (self.expand(form, call) for call in calls for form in forms)
        return " | ".join(map(self.rules.add, written))

    def _span(self) -> str:
        """Everything between the marks."""
        syntax = self.syntax
        more = f"{{0,{MAX_CALLS - 1}}}"
        patterns = [f"call (gap? call){more}" if syntax.repeated else "call"]
        if syntax.listed:
            # some templates omit the commas between objects
            comma = '","' if "{parameters}" in syntax.listed[0] else '","?'
            patterns.append(f'"[" gap? listed_call (gap? {comma} gap? listed_call){more} gap? "]"')
        body = f"{self.text_pattern(syntax.prefix)} gap? ({' | '.join(patterns)})"
        if syntax.close:
            body += f" gap? ({' | '.join(map(self.text_pattern, syntax.close))})"
        head = syntax.forms[0].partition("{arguments}")[0].rstrip(" ") if syntax.texts else ""
        heads = (self.expand(head, {"name": self.text_pattern(text)}) for text in syntax.texts)
        return " | ".join([body, *heads])

    def _placeholders(self, name: str, schema: dict[str, Any]) -> dict[str, str]:
        """Patterns for the placeholders of the forms, in calls of one function."""
        parts = {"name": self.text_pattern(name), "id": "identifier"}
        forms = " ".join((*self.syntax.forms, *self.syntax.listed))
        if "{parameters}" in forms:
            parts["parameters"] = _ParameterGrammar(self, schema).rule()
        if any(part in forms for part in ("{call}", "{keyed}", "{arguments}")):
            arguments = ValueGrammar(self.rules, schema, self.strictness).arguments()
            parts["arguments"] = arguments
            parts["call"] = self._call_object(name, arguments)
            parts["keyed"] = f'"{{" gap? {quoted(name)} gap? ":" gap? {arguments} gap? "}}"'
        return parts

    def _call_object(self, name: str, arguments: str) -> str:
        syntax = self.syntax
        before = after = ""
        if syntax.extra_keys:
            keys = " | ".join(map(quoted, syntax.extra_keys))
            extra = self.rules.add(f'({keys}) gap? ":" gap? short_string')
            before = f'({extra} gap? "," gap?){{0,3}} '
            after = f' (gap? "," gap? {extra}){{0,3}}'
        head = f'({" | ".join(map(quoted, syntax.name_keys))}) gap? ":" gap? {quoted(name)}'
        keys = " | ".join(map(quoted, syntax.argument_keys))
        values = f'({keys}) gap? ":" gap? {arguments}'
        return f'"{{" gap? {before}{head} gap? "," gap? {values}{after} gap? "}}"'

    # Strings and keys outside JSON: in tags, as Python keywords, in Gemma's braces

    @property
    def quotes(self) -> tuple[str, ...]:
        """Those of the syntax, or Python's."""
        return self.syntax.quotes or tuple(_STRINGS)

    @property
    def any_key(self) -> str:
        """Families with string marks of their own put none around keys."""
        return "literal_string" if set(self.syntax.quotes) <= _STRINGS.keys() else "bare_key"

    def string_rules(self) -> str:
        rules, strings = "", []
        for number, quote in enumerate(self.quotes):
            if quote in _STRINGS:
                strings.append(_STRINGS[quote])
            else:
                mark = self.text_pattern(quote)
                lazy = "" if _has_control_token(mark) else "[lazy]"
                rules += f"marked_{number}{lazy}: {_text_until(mark)}\n"
                strings.append(f"{mark} marked_{number}")
        rules += f"literal_string: {' | '.join(strings)}\n"
        return rules + f'literal_member: {self.any_key} gap? ":" gap? literal_value\n'


def _text_until(end: str) -> str:
    """Text up to ``end``. If ``end`` has a control token, text stops there at the latest, so that
    what comes before the token counts as text.
    """
    return f"ANYTHING {end[end.find('<[') :] if _has_control_token(end) else end}"


def _has_control_token(text: str) -> bool:
    return text.startswith("<[") or " <[" in text


class _ParameterGrammar:
    """The arguments of one tool, written one by one as the syntax of ``grammar`` says."""

    def __init__(self, grammar: _CallGrammar, schema: dict[str, Any]) -> None:
        self._grammar = grammar
        self._rules = grammar.rules
        self._syntax = grammar.syntax
        notation = self._printed() if self._syntax.quotes else replace(JSON, string=literal)
        self._values = ValueGrammar(self._rules, schema, grammar.strictness, notation)
        self._schema = self._values.root
        self._before, _, end = self._syntax.parameter.partition("{value}")
        self._end = grammar.expand(end, {}) if end else ""

    def _printed(self) -> Notation:
        """Values as Python prints them, or with the syntax's own marks around strings."""
        any_key = self._grammar.any_key
        return Notation(
            any="literal_value",
            types=_LITERALS,
            key=literal if any_key == "bare_key" else self._quoted,
            any_key=any_key,
            string=self._quoted,
        )

    def rule(self) -> str:
        properties, required = self._schema.get("properties"), required_of(self._schema)
        listed = properties if isinstance(properties, dict) else {}
        listed = {**listed, **{key: {} for key in required if key not in listed}}
        members: list[Member] = [
            (self._parameter(self._grammar.text_pattern(key), value), key in required)
            for key, value in listed.items()
            if value is not False
        ]
        others = None
        if not isinstance(properties, dict) or self._schema.get("additionalProperties"):
            others = self._rules.add(self._parameter("identifier", {}))
        between = self._syntax.between
        separator = f"gap? {self._grammar.text_pattern(between)} gap?" if between else "gap?"
        return self._rules.add(f"{self._rules.in_any_order(members, separator, others)} gap?")

    def _parameter(self, key: str, schema: Any) -> str:
        begin = partial(self._grammar.expand, self._before)
        patterns = [
            f"{begin({'key': key, 'is_text': literal(is_text)})} {value}"
            for is_text, value in self._values_by_text(self._values.resolve(schema)).items()
        ]
        return self._rules.add(" | ".join(patterns)) if len(patterns) > 1 else patterns[0]

    def _values_by_text(self, schema: dict[str, Any]) -> dict[str, str]:
        """The values of ``schema`` with their ends, keyed by whether they are bare text."""
        if "{is_text}" not in self._before:
            return {"": self._value(schema)}
        types, choices = self._values.types(schema), self._values.choices(schema)
        patterns = {}
        if types == {"string"} and choices:
            patterns["true"] = self._on_own_line(choices)
        elif not types or "string" in types:
            patterns["true"] = self._text()
        if types != {"string"}:
            patterns["false"] = self._on_own_line([self._values.value(schema)])
        return patterns

    def _value(self, schema: dict[str, Any]) -> str:
        choices, types = self._values.choices(schema), self._values.types(schema)
        if self._syntax.quotes:
            return f"gap? ({' | '.join(choices or [self._values.value(schema)])}) gap? {self._end}"
        if choices:
            return self._on_own_line(choices)
        if not types or "string" in types:
            return self._text()
        return self._on_own_line([self._values.value(schema), *self._as_python_prints(schema)])

    def _text(self) -> str:
        text = _text_until(self._end)
        return self._rules.add(text, lazy=not _has_control_token(text))

    def _on_own_line(self, patterns: Sequence[str]) -> str:
        """One line break on each side is markup; anything else would be part of the value."""
        value = self._rules.add(" | ".join(patterns))
        return f'({value} | "\\n" {value} "\\n") {self._end}'

    def _quoted(self, text: str) -> str:
        patterns = []
        for quote in self._grammar.quotes:
            mark = self._grammar.text_pattern(quote)
            inside = text
            if quote in _STRINGS:
                inside = json.dumps(text, ensure_ascii=False)[1:-1]
                inside = inside.replace('\\"', '"').replace(quote, f"\\{quote}")
            patterns.append(f"{mark} {literal(inside)} {mark}" if inside else f"{mark} {mark}")
        return f"({' | '.join(patterns)})"

    def _as_python_prints(self, schema: dict[str, Any]) -> Iterator[str]:
        """Templates print values this way, and models learn it from them."""
        types = self._values.types(schema)
        yield from (_LITERALS[kind] for kind in sorted(types & {"boolean", "null"}))
        if types & {"array", "object"}:
            printed = self._printed()
            values = ValueGrammar(self._rules, self._schema, self._grammar.strictness, printed)
            yield values.value(schema)
