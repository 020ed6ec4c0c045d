"""The grammar of one tool call: the tools that a client offers, as a model writes calls.

It holds a call that has begun to a tool that exists and to this tool's schema. Nobody asked for
that, so nothing is refused: what cannot be enforced in a schema is left out, then all that
restricts single values, and if that does not help, the arguments are any JSON object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.workers.child.grammar.arguments import JSON_RULES, Strictness, Values, quoted
from ollama_async.workers.child.grammar.lark import Rules
from ollama_async.workers.child.grammar_parameters import (
    LITERAL_RULES,
    Parameters,
    expand,
    string_rules,
)
from ollama_async.workers.child.grammar_text import CALLS_LIMIT, Special, sequence

TOOLS_LIMIT = 256
"""Tools whose schemas are enforced; a grammar for more takes longer than a prompt."""

_HEAD = '%llguidance {"no_forcing": true}\n'
_RULES = r"""
ANYTHING: /(?s:.*)/
gap: / |[ \t]?(\r?\n){1,2}[ \t]{0,32}/
short_string: /"[^"\\\x00-\x1f]{0,64}"/
"""

Function = tuple[str, dict[str, Any]]
"""A tool's name and the schema of its parameters."""


def call_grammar(
    syntax: CallSyntax,
    tools: Sequence[dict[str, Any]],
    special: Special,
    *,
    strictness: Strictness = "schemas",
) -> str:
    """What may follow the mark that opens a call, to the end of the call.

    :raises BadRequest: it would be too large.
    """
    rules = _Writer(syntax, special, strictness).write(_functions(tools))
    strings = string_rules(syntax, special)
    return _HEAD + rules + strings + _RULES + JSON_RULES + LITERAL_RULES


def tool_names(tools: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The names of the tools that can be called."""
    return tuple(dict.fromkeys(name for name, _ in _functions(tools)))


def _functions(tools: Sequence[dict[str, Any]]) -> list[Function]:
    """Whatever is not of the right shape is not there. Two of one name are two ways to call it."""
    functions = []
    for tool in tools:
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(function, dict) and isinstance(name, str) and name.strip():
            parameters = function.get("parameters")
            functions.append((name.strip(), parameters if isinstance(parameters, dict) else {}))
    return functions


class _Writer:
    def __init__(self, syntax: CallSyntax, special: Special, strictness: Strictness) -> None:
        self._syntax = syntax
        self._special = special
        self._strictness = strictness
        self._rules = Rules()

    def write(self, functions: Sequence[Function]) -> str:
        ways = [self._ways(name, parameters) for name, parameters in functions]
        rules = f"start: {self._span()}\ncall: {self._calls(self._syntax.forms, ways)}\n"
        if self._syntax.listed:
            rules += f"listed_call: {self._calls(self._syntax.listed, ways)}\n"
        return rules + self._rules.text()

    def _calls(self, forms: Sequence[str], ways: Sequence[dict[str, str]]) -> str:
        """Any of the calls in any of ``forms``; ``ways`` are the parts of each call."""
        written = (self._expand(form, each) for each in ways for form in forms)
        return " | ".join(map(self._rules.add, written))

    def _span(self) -> str:
        """All that is between the marks."""
        syntax = self._syntax
        more = f"{{0,{CALLS_LIMIT - 1}}}"
        ways = [f"call (gap? call){more}" if syntax.repeated else "call"]
        if syntax.listed:
            # some templates leave the commas between objects out
            comma = '","' if "{parameters}" in syntax.listed[0] else '","?'
            ways.append(f'"[" gap? listed_call (gap? {comma} gap? listed_call){more} gap? "]"')
        body = f"{sequence(syntax.prefix, self._special)} gap? ({' | '.join(ways)})"
        if syntax.close:
            ends = (sequence(mark, self._special) for mark in syntax.close)
            body += f" gap? ({' | '.join(ends)})"
        return " | ".join([body, *map(self._text_head, syntax.texts)])

    def _text_head(self, text: str) -> str:
        """The first form with ``text`` in the place of a name, up to what follows it."""
        head = self._syntax.forms[0].partition("{arguments}")[0].rstrip(" ")
        return self._expand(head, {"name": sequence(text, self._special)})

    def _ways(self, name: str, schema: dict[str, Any]) -> dict[str, str]:
        """What the placeholders in the forms stand for in calls of one function."""
        parts = {"name": sequence(name, self._special), "id": "identifier"}
        forms = " ".join((*self._syntax.forms, *self._syntax.listed))
        if "{parameters}" in forms:
            parameters = Parameters(
                self._rules, schema, self._syntax, self._special, self._strictness
            )
            parts["parameters"] = parameters.rule()
        if any(part in forms for part in ("{call}", "{keyed}", "{arguments}")):
            arguments = Values(self._rules, schema, self._strictness).arguments()
            parts["arguments"] = arguments
            parts["call"] = self._call_object(name, arguments)
            parts["keyed"] = f'"{{" gap? {quoted(name)} gap? ":" gap? {arguments} gap? "}}"'
        return parts

    def _call_object(self, name: str, arguments: str) -> str:
        syntax = self._syntax
        before = after = ""
        if syntax.extra_keys:
            keys = " | ".join(map(quoted, syntax.extra_keys))
            extra = self._rules.add(f'({keys}) gap? ":" gap? short_string')
            before = f'({extra} gap? "," gap?){{0,3}} '
            after = f' (gap? "," gap? {extra}){{0,3}}'
        head = f'({" | ".join(map(quoted, syntax.name_keys))}) gap? ":" gap? {quoted(name)}'
        keys = " | ".join(map(quoted, syntax.argument_keys))
        values = f'({keys}) gap? ":" gap? {arguments}'
        return f'"{{" gap? {before}{head} gap? "," gap? {values}{after} gap? "}}"'

    def _expand(self, form: str, parts: dict[str, str]) -> str:
        return expand(form, parts, self._special)
