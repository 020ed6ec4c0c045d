"""Call syntaxes in JSON: an object of name and arguments, or a name with JSON near it."""

from __future__ import annotations

import re
from typing import Any

from msgspec.structs import replace

from ollama_async.core.conversation import ToolCall
from ollama_async.core.json_depth import TOOL_DEPTH
from ollama_async.prompts.output_format import CallSyntax
from ollama_async.prompts.parsers.delimiter_search import JSON_STRINGS, Quote
from ollama_async.prompts.parsers.tool_schemas import (
    CallParser,
    ParsedCalls,
    Tools,
    arguments,
    call_of,
    decoded,
    parses,
)

_STRUCTURE = re.compile(r'[{}"]')
_STRING_END = re.compile(r'[\\"]')


class JsonCalls:
    """``{"name": …, "arguments": {…}}``: one of them, several, or a list of them.

    ``names`` and ``values`` are the keys that may hold a call's name and arguments; the first one
    present counts. ``ids`` is the key of the call's id.
    """

    def __init__(
        self,
        names: tuple[str, ...] = ("name",),
        values: tuple[str, ...] = ("arguments", "parameters"),
        ids: str = "id",
    ) -> None:
        self.names = names
        self.values = values
        self.ids = ids

    def __call__(self, text: str, tools: Tools) -> ParsedCalls | None:
        del tools
        found = decoded(text)
        values = found if isinstance(found, list) else [found]
        calls = [self.one(value) for value in values]
        if calls and None not in calls:
            return [call for call in calls if call]
        return self._salvaged(text)

    @property
    def syntax(self) -> CallSyntax:
        return CallSyntax(
            forms=("{call}",),
            name_keys=self.names,
            argument_keys=self.values,
            extra_keys=("type", self.ids),
            listed=("{call}",),
            repeated=True,
        )

    def strings(self, *_around: str) -> tuple[Quote, ...]:
        return JSON_STRINGS

    def one(self, value: Any) -> ToolCall | None:
        """The call in a decoded value."""
        if not isinstance(value, dict):
            return None
        if isinstance(value.get("function"), dict):
            value = {**value, **value["function"]}
        name = next((value[key] for key in self.names if key in value), None)
        given = arguments(next((value[key] for key in self.values if key in value), None))
        if not isinstance(name, str) or not name or given is None:
            return None
        call_id = value.get(self.ids)
        return call_of(name, given, call_id if isinstance(call_id, str) else "")

    def member(self, text: str) -> ToolCall | None:
        """The call in one member of a list."""
        return self.one(decoded(text))

    def _salvaged(self, text: str) -> ParsedCalls | None:
        """The good calls of a list in which one is broken."""
        pieces: ParsedCalls = []
        end = 0
        for start, stop in objects(text):
            call = self.one(decoded(text[start:stop]))
            if call:
                pieces += _between(text[end:start])
                pieces.append(call)
                end = stop
        pieces += _between(text[end:])
        return pieces if any(isinstance(piece, ToolCall) for piece in pieces) else None


class BareCalls(JsonCalls):
    """Calls without delimiters. To be distinguished from other JSON, a call is an object of a name
    and arguments and nothing else, with all required arguments.
    """

    def __call__(self, text: str, tools: Tools) -> ParsedCalls | None:
        pieces = super().__call__(text, tools) or []
        calls = [piece for piece in pieces if isinstance(piece, ToolCall)]
        return pieces if calls and all(map(tools.accepts, calls)) else None

    def one(self, value: Any) -> ToolCall | None:
        known = {*self.names, *self.values, self.ids, "type", "function"}
        if not isinstance(value, dict) or not value.keys() <= known:
            return None
        inner = value.get("function", value)
        if not isinstance(inner, dict) or not inner.keys() & {*self.values}:
            return None
        return super().one(value)


class KeyedCalls(JsonCalls):
    """``{"add": {"a": 1}}``: the name is the key of the arguments."""

    @property
    def syntax(self) -> CallSyntax:
        return CallSyntax(forms=("{keyed}",), listed=("{keyed}",))

    def one(self, value: Any) -> ToolCall | None:
        if not isinstance(value, dict) or len(value) != 1:
            return None
        ((name, given),) = value.items()
        return call_of(name, given) if name and isinstance(given, dict) else None


def named_object(text: str, tools: Tools, name: str, call_id: str = "") -> ParsedCalls | None:
    """A call of which ``text`` is only the arguments; the name stood before them."""
    del tools
    given = arguments(text)
    return None if given is None or not name else [call_of(name, given, call_id)]


def fenced(text: str) -> str:
    """``text`` without the Markdown fence that may be around it."""
    text = text.strip()
    if not text.startswith("```"):
        return text
    return text.removeprefix("```").removeprefix("json").removesuffix("```").strip()


def objects(text: str) -> list[tuple[int, int]]:
    """The places of the outermost ``{…}`` in ``text``; braces in strings do not count."""
    found = []
    depth = start = at = 0
    in_string = False
    while match := (_STRING_END if in_string else _STRUCTURE).search(text, at):
        at = match.end()
        sign = match.group()
        if sign == "\\":
            at += 1
        elif sign == '"':
            in_string = not in_string
        elif sign == "{":
            start = start if depth else match.start()
            depth += 1
        elif depth:
            depth -= 1
            if not depth:
                found.append((start, at))
    return found


def _between(text: str) -> ParsedCalls:
    """Text between the calls of a list, unless it is only the list's punctuation."""
    return [text] if text.strip("[], \t\r\n;") else []


# ----------------------------------------------------------------- a tool name with JSON near it

_NAMED = JsonCalls()


@parses(
    CallSyntax(
        forms=("{call}", "{name} {arguments}"), listed=("{call}",), repeated=True, waits=True
    )
)
def loose_call(text: str, tools: Tools) -> ParsedCalls | None:
    """A call whose name is in the JSON or before it."""
    start = min((place for place in (text.find("{"), text.find("[")) if place >= 0), default=-1)
    if start < 0:
        return None
    before, value = text[:start], decoded(text[start:])
    values = value if isinstance(value, list) else [value]
    named = [_named(one, tools, 0) for one in values]
    if named and all(named):
        return [*_text(before), *(call for call in named if call)]
    return _after_name(before, value, tools) if isinstance(value, dict) else None


def _after_name(before: str, value: dict[str, Any], tools: Tools) -> ParsedCalls | None:
    """A call whose arguments are ``value``, or the member of it with the tool's name."""
    name = max((name for name in tools if name in before), key=len, default="")
    if name:
        return [*_text(before.replace(name, "", 1)), call_of(name, value)]
    name = next((name for name in tools if name in value), "")
    given = arguments(value[name]) if name else None
    return None if given is None else [*_text(before), call_of(name, given)]


def _text(before: str) -> ParsedCalls:
    """Text before a call, unless it is only punctuation."""
    return [before] if any(map(str.isalnum, before)) else []


def _named(value: Any, tools: Tools, depth: int) -> ToolCall | None:
    """The call in ``value`` or nested inside it."""
    if depth > TOOL_DEPTH:
        return None
    call = _NAMED.one(value)
    if call and call.function.name in tools:
        return call
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((call for one in inner if (call := _named(one, tools, depth + 1))), None)


# ----------------------------------------------------------------- combinations


class Either:
    """The first of several call parsers that understands a text; the first one's syntax."""

    def __init__(self, *parsers: CallParser) -> None:
        self._parsers = parsers

    @property
    def syntax(self) -> CallSyntax | None:
        first = self._parsers[0].syntax
        return first and replace(first, waits=True)

    def strings(self, *around: str) -> tuple[Quote, ...]:
        return self._parsers[0].strings(*around)

    def __call__(self, text: str, tools: Tools) -> ParsedCalls | None:
        return next((calls for parse in self._parsers if (calls := parse(text, tools))), None)


class Between:
    """A call parser for texts that begin with an extra ``less``, and have lost ``after`` to the
    delimiter at their end.
    """

    def __init__(self, parse: CallParser, *, less: str = "", after: str = "") -> None:
        self._parse = parse
        self._less = less
        self._after = after

    @property
    def syntax(self) -> CallSyntax | None:
        inner = self._parse.syntax
        return inner and replace(inner, prefix=self._less)

    def strings(self, *around: str) -> tuple[Quote, ...]:
        return self._parse.strings(*around)

    def __call__(self, text: str, tools: Tools) -> ParsedCalls | None:
        return self._parse(text.removeprefix(self._less) + self._after, tools)
