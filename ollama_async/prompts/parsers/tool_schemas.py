"""The client's tools and their schemas, and how a call's text becomes typed arguments."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from ollama_async.core.conversation import ToolCall, ToolFunction
from ollama_async.core.json_depth import TOOL_DEPTH, is_deep
from ollama_async.prompts.output_format import CallSyntax
from ollama_async.prompts.parsers.delimiter_search import JSON_STRINGS, Quote
from ollama_async.prompts.parsers.literals import literal, number, whole_number

_PLAIN = re.compile(r"[\w.$-]{1,128}")
_DECODER = msgspec.json.Decoder()

ParsedCalls = list[ToolCall | str]
"""Calls in their order, with the text between them that belongs to none."""


class Tools(dict[str, dict[str, Any]]):
    """The tools of a request: the JSON schema of the parameters for each name.

    ``described`` comes from a client: parts of a wrong shape are ignored.
    """

    def __init__(self, described: list[dict[str, Any]]) -> None:
        super().__init__()
        self._types: dict[tuple[str, str], set[str]] = {}
        for tool in described:
            function = _mapping(_mapping(tool).get("function"))
            name = function.get("name")
            if isinstance(name, str) and name.strip():
                self[name.strip()] = _mapping(function.get("parameters"))

    def accepts(self, call: ToolCall) -> bool:
        """Whether it is a call of one of these tools with all required arguments."""
        parameters = self.get(call.function.name)
        if parameters is None:
            return False
        required = parameters.get("required")
        return not isinstance(required, list) or all(
            name in call.function.arguments for name in required if isinstance(name, str)
        )

    def value(self, tool: str, parameter: str, text: str) -> Any:
        """The value of a parameter written as ``text``, by the types in the tool's schema."""
        types = self._types.get((tool, parameter))
        if types is None:
            types = self.schema(tool).part(parameter).types()
            self._types[tool, parameter] = types
        return value_of(text, types)

    def schema(self, tool: str) -> Schema:
        """The schema of a tool's arguments."""
        parameters = self.get(tool, {})
        return Schema(parameters, parameters)


ParseCall = Callable[[str, Tools], ParsedCalls | None]
"""Parses the text between the delimiters of a call; None: the text is not in this syntax."""


class CallParser(Protocol):
    """A :data:`ParseCall` of one call syntax."""

    @property
    def syntax(self) -> CallSyntax | None:
        """How the model should write such calls, for grammars; None: no grammar describes them.
        Of many ways that are understood, it holds only those that a model should be held to.
        """

    def strings(self, *around: str) -> tuple[Quote, ...]:
        """The strings of calls that have the opening tags ``around`` them."""

    def __call__(self, text: str, tools: Tools) -> ParsedCalls | None: ...


class FunctionParser(msgspec.Struct, frozen=True):
    """A function as a :class:`CallParser`."""

    parse: ParseCall
    syntax: CallSyntax | None
    quotes: tuple[Quote, ...]

    def strings(self, *_around: str) -> tuple[Quote, ...]:
        return self.quotes

    def __call__(self, text: str, tools: Tools) -> ParsedCalls | None:
        return self.parse(text, tools)


def parses(
    syntax: CallSyntax | None, strings: tuple[Quote, ...] = JSON_STRINGS
) -> Callable[[ParseCall], FunctionParser]:
    """A decorator: the function parses calls of ``syntax``, which hold ``strings``."""
    return lambda parse: FunctionParser(parse, syntax, strings)


class Schema(msgspec.Struct, frozen=True):
    """A JSON schema, as far as types go; ``root`` is the document that its references refer to."""

    here: dict[str, Any]
    root: dict[str, Any]

    def part(self, name: str | None) -> Schema:
        """The schema of an object's member, or (None) of a list's."""
        here = self._resolved()
        if name is None:
            return Schema(_mapping(here.get("items")), self.root)
        return Schema(_mapping(_mapping(here.get("properties")).get(name)), self.root)

    def types(self, depth: int = 0) -> set[str]:
        """The JSON types that it allows; empty: it does not restrict them."""
        here = self._resolved()
        for key in ("anyOf", "oneOf", "allOf"):
            if isinstance(here.get(key), list) and here[key]:
                inner = here[key] if depth < TOOL_DEPTH else []
                parts = (Schema(_mapping(one), self.root) for one in inner)
                return set().union(*(part.types(depth + 1) for part in parts))
        types = here.get("type")
        if types is None and isinstance(here.get("enum"), list):
            return {_type_of(value) for value in here["enum"]}
        names = types if isinstance(types, list) else [types]
        return {name for name in names if isinstance(name, str)}

    def _resolved(self) -> dict[str, Any]:
        """The schema with references within the document resolved."""
        here = self.here
        for _ in range(TOOL_DEPTH):
            reference = here.get("$ref")
            if not isinstance(reference, str) or not reference.startswith("#/"):
                break
            here = self.root
            for key in reference[2:].split("/"):
                here = _mapping(here.get(key))
        return here


def is_plain(name: str) -> bool:
    """Whether a tool's name looks like the names in programs and is no longer than they are; only
    such names may become part of a tag.
    """
    return _PLAIN.fullmatch(name) is not None


def call_of(name: str, arguments: dict[str, Any], call_id: str = "") -> ToolCall:
    return ToolCall(ToolFunction(name, arguments), id=call_id)


def value_of(text: str, types: set[str]) -> Any:
    """``text`` as the most specific of the JSON ``types`` that it can be, else as text.

    Values as Python prints them are understood, too.
    """
    if types == {"string"}:
        return text
    word = text.strip()
    if word.lower() == "null" or (word == "None" and types and "string" not in types):
        return None
    if types == {"boolean"}:
        return word.lower() == "true"
    for type_, value in _VALUES:
        if type_ in types and (found := value(word)) is not None:
            return found
    return text


def decoded(text: str) -> Any:
    """The value of a JSON text; None also if it is invalid or too deep."""
    try:
        value = _DECODER.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return None if is_deep(text.encode(), TOOL_DEPTH) else value


def arguments(value: Any) -> dict[str, Any] | None:
    """A call's arguments: an object or its JSON as text. Nothing at all is an empty object."""
    if value is None:
        return {}
    if isinstance(value, str):
        value = decoded(value) if value.strip() else {}
    return value if isinstance(value, dict) else None


def _structure(text: str, opening: str, kind: type) -> Any:
    """The list or the object that ``text`` is, as JSON or as Python prints it."""
    found = decoded(text)
    if found is None and text.lstrip().startswith(opening):
        found = literal(text)
    return found if isinstance(found, kind) else None


_VALUES: tuple[tuple[str, Callable[[str], Any]], ...] = (
    ("boolean", lambda text: {"true": True, "false": False}.get(text.lower())),
    ("integer", whole_number),
    ("number", number),
    ("array", lambda text: _structure(text, "[", list)),
    ("object", lambda text: _structure(text, "{", dict)),
)
"""The most specific type first."""


def _type_of(value: Any) -> str:
    """The most specific type of ``value``."""
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}
    return "null" if value is None else kinds.get(type(value), "object")


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
