"""The grammar of one tool call: the tools that a client offers, as a model writes calls.

It holds a call that has begun to a tool that exists and to this tool's schema, arguments in the
schema's order. Nobody asked for that, so nothing is refused: what cannot be enforced in a schema is
left out, then all that restricts single values, and if that does not help, the arguments are any
JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.workers.child.grammar_arguments import JsonArguments, Strictness
from ollama_async.workers.child.grammar_parameters import Parameters, expand, literal_rules
from ollama_async.workers.child.grammar_rules import Rules
from ollama_async.workers.child.grammar_text import CALLS_LIMIT, Special, literal, sequence

TOOLS_LIMIT = 256
"""Tools whose schemas are enforced; a grammar for more takes longer than a prompt."""

_HEAD = '%llguidance {"no_forcing": true}\n'
_RULES = r"""
ANYTHING: /(?s:.*)/
gap: / |[ \t]?(\r?\n){1,3}[ \t]{0,80}/
json_string: /"([^"\\\x00-\x1f]|\\(["\\\/bfnrt]|u[0-9a-fA-F]{4}))*"/
short_string: /"[^"\\\x00-\x1f]{0,64}"/
double_quoted: /"([^"\\]|\\(?s:.))*"/
single_quoted: /'([^'\\]|\\(?s:.))*'/
bare_key: /[^\s:{}\[\],"']{1,64}/
identifier: /[A-Za-z0-9_.:-]{1,64}/
json_value: json_string | number | "true" | "false" | "null" | json_list | json_object
json_list: "[" gap? (json_value (gap? "," gap? json_value)* gap?)? "]"
json_object: "{" gap? (json_member (gap? "," gap? json_member)* gap?)? "}"
json_member: json_string gap? ":" gap? json_value
number: /-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?/
truth: /[Tt]rue|[Ff]alse/
nothing: /[Nn]one|[Nn]ull/
"""


def call_grammar(
    syntax: CallSyntax,
    tools: Sequence[dict[str, Any]],
    special: Special,
    *,
    strictness: Strictness = "schemas",
) -> str:
    """What may follow the mark that opens a call, to the end of the call."""
    writer = _Writer(syntax, special, strictness)
    return _HEAD + writer.write(_functions(tools)) + literal_rules(syntax, special) + _RULES


def tool_names(tools: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The names of the tools that can be called."""
    return tuple(_functions(tools))


def _functions(tools: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Their parameters by name; whatever is not of the right shape is not there."""
    functions = {}
    for tool in tools:
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(function, dict) and isinstance(name, str) and name.strip():
            parameters = function.get("parameters")
            functions[name.strip()] = parameters if isinstance(parameters, dict) else {}
    return functions


class _Writer:
    def __init__(self, syntax: CallSyntax, special: Special, strictness: Strictness) -> None:
        self._syntax = syntax
        self._special = special
        self._strictness = strictness
        self._rules = Rules()

    def write(self, functions: dict[str, dict[str, Any]]) -> str:
        calls = [self._call(name, parameters) for name, parameters in functions.items()]
        start = f"start: {self._span()}\ncall: {' | '.join(calls)}\n"
        return start + self._rules.text()

    def _span(self) -> str:
        """All that is between the marks."""
        syntax = self._syntax
        more = f"{{0,{CALLS_LIMIT - 1}}}"
        ways = [f"call (gap? call){more}" if syntax.repeated else "call"]
        if syntax.listed:
            # some templates leave the commas out
            ways.append(f'"[" gap? call (gap? ("," gap?)? call){more} gap? "]"')
        body = f"{sequence(syntax.prefix, self._special)} gap? ({' | '.join(ways)})"
        if syntax.close:
            ends = (sequence(mark, self._special) for mark in syntax.close)
            body += f" gap? ({' | '.join(ends)})"
        return " | ".join([body, *map(self._text_head, syntax.texts)])

    def _text_head(self, text: str) -> str:
        """The first form with ``text`` in the place of a name, up to what follows it."""
        head = self._syntax.forms[0].partition("{arguments}")[0].rstrip(" ")
        return self._expand(head, {"name": sequence(text, self._special)})

    def _call(self, name: str, schema: dict[str, Any]) -> str:
        parts = {"name": sequence(name, self._special), "id": "identifier"}
        forms = " ".join(self._syntax.forms)
        if "{parameters}" in forms:
            parameters = Parameters(
                self._rules, schema, self._syntax, self._special, self._strictness
            )
            parts["parameters"] = parameters.rule()
        if any(part in forms for part in ("{call}", "{keyed}", "{arguments}")):
            arguments = JsonArguments(self._rules, schema, self._strictness).rule()
            parts["arguments"] = arguments
            parts["call"] = self._call_object(name, arguments)
            parts["keyed"] = f'"{{" gap? {_quoted(name)} gap? ":" gap? {arguments} gap? "}}"'
        ways = [self._expand(form, parts) for form in self._syntax.forms]
        return self._rules.add(" | ".join(ways))

    def _call_object(self, name: str, arguments: str) -> str:
        syntax = self._syntax
        before = after = ""
        if syntax.extra_keys:
            keys = " | ".join(map(_quoted, syntax.extra_keys))
            extra = self._rules.add(f'({keys}) gap? ":" gap? short_string')
            before = f'({extra} gap? "," gap?){{0,3}} '
            after = f' (gap? "," gap? {extra}){{0,3}}'
        head = f'({" | ".join(map(_quoted, syntax.name_keys))}) gap? ":" gap? {_quoted(name)}'
        keys = " | ".join(map(_quoted, syntax.argument_keys))
        values = f'({keys}) gap? ":" gap? {arguments}'
        return f'"{{" gap? {before}{head} gap? "," gap? {values}{after} gap? "}}"'

    def _expand(self, form: str, parts: dict[str, str]) -> str:
        return expand(form, parts, self._special)


def _quoted(text: str) -> str:
    """A literal that is a JSON string."""
    return literal(json.dumps(text, ensure_ascii=False))
