# ruff: noqa: RUF001 - full-width bars are part of these tags
"""Call syntaxes of a few model families: MiniMax M3, Kimi, Laguna, DeepSeek, Solar, Gemma, and
Python (Llama, LFM2, Olmo). Each parser parses the text between the tags of a call.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from ollama_async.core.conversation import ToolCall
from ollama_async.core.json_depth import TOOL_DEPTH
from ollama_async.prompts.output_format import CallSyntax
from ollama_async.prompts.parsers.delimiter_search import (
    Quote,
    python_strings,
    quoted_strings,
    tagged_strings,
)
from ollama_async.prompts.parsers.json_calls import JsonCalls, fenced, named_object
from ollama_async.prompts.parsers.literals import (
    PYTHON_QUOTES,
    Unreadable,
    Values,
    as_it_is,
    unescaped,
)
from ollama_async.prompts.parsers.tool_schemas import (
    ParsedCalls,
    Schema,
    Tools,
    arguments,
    call_of,
    decoded,
    parses,
    value_of,
)
from ollama_async.prompts.parsers.xml_calls import pairs

MINIMAX_PREFIX = "]<]minimax[>["
_MINIMAX_TAG = re.compile(
    r"<(?P<close>/?)(?P<name>[^<>\s]++)(?:\s++name=\"(?P<attribute>[^\"]*+)\")?\s*+>"
)
_ITEM = "item"
_SCALARS = {"boolean", "number"}
"""What a value without a type of its own may be."""


class _Node(msgspec.Struct):
    """An element; ``texts`` are the pieces of what stands in it before its first child."""

    name: str
    texts: list[str] = []
    children: list[_Node] = []

    @property
    def text(self) -> str:
        return "".join(self.texts)


@parses(None, strings=())
def minimax_m3_call(text: str, tools: Tools) -> ParsedCalls | None:
    root = _tree(text)
    nodes = root.children if root else []
    if any(not node.name or node.text.strip() for node in nodes):
        return None
    return [call_of(node.name, _members(node, tools.schema(node.name))) for node in nodes] or None


def _tree(text: str) -> _Node | None:
    """None: the tags do not match each other, or are too deep."""
    first, *pieces = text.split(MINIMAX_PREFIX)
    path = [_Node("")]
    for piece in pieces:
        tag = _MINIMAX_TAG.match(piece)
        if tag is None:
            path[-1].texts.append(MINIMAX_PREFIX + piece)
        elif not tag["close"]:
            name = tag["attribute"] if len(path) == 1 else tag["name"]
            path[-1].children.append(_Node(name or "", [piece[tag.end() :]]))
            path.append(path[-1].children[-1])
        else:
            node = path.pop()
            is_closed = len(path) < 2 or node.name == tag["name"]  # calls have names of their own
            if not path or not is_closed or piece[tag.end() :].strip():
                return None
        if len(path) > TOOL_DEPTH:
            return None
    return path[0] if len(path) == 1 and not first.strip() else None


def _members(node: _Node, schema: Schema) -> dict[str, Any]:
    return {child.name: _value(child, schema.part(child.name)) for child in node.children}


def _value(node: _Node, schema: Schema) -> Any:
    types = schema.types()
    if not node.children:
        if not node.text and types and "string" not in types:
            return {"array": [], "object": {}}.get(next(iter(types)), "")
        return value_of(node.text, types or _SCALARS)
    names = {child.name for child in node.children}
    if names == {_ITEM} and types != {"object"}:
        return [_value(child, schema.part(None)) for child in node.children]
    return _members(node, schema)


_KIMI_ARGUMENT_TAGS = ("<|open|>argument ", "<|close|>argument<|sep|>")
_KIMI_JSON_END = "<|close|>json<|sep|>"

_KIMI_HEAD = re.compile(r'\s*+tool="(?P<name>[^"]*+)"[^<]*+<\|sep\|>')
_KIMI_ARGUMENT = re.compile(
    r'\s*+<\|open\|>argument key="(?P<key>[^"]*+)"(?: type="(?P<type>[^"]*+)")?[^<]*+<\|sep\|>'
    r"(?P<value>.*?)<\|close\|>argument<\|sep\|>(?=\s*+(?:<\|open\|>argument |$))",
    re.DOTALL,
)
_KIMI_JSON = re.compile(
    r"\s*+<\|open\|>json[^<]*+<\|sep\|>(?P<value>.*)<\|close\|>json<\|sep\|>\s*+", re.DOTALL
)


@parses(
    None,
    (
        *tagged_strings(*_KIMI_ARGUMENT_TAGS, "<|open|>call "),
        *tagged_strings("<|open|>json", _KIMI_JSON_END),
    ),
)
def kimi_k3_call(text: str, tools: Tools) -> ParsedCalls | None:
    head = _KIMI_HEAD.match(text)
    if head is None or not head["name"].strip():
        return None
    name = _unescaped(head["name"]).strip()
    block = _KIMI_JSON.fullmatch(text, head.end())
    given = arguments(block["value"]) if block else _kimi_arguments(text, head.end(), name, tools)
    return None if given is None else [call_of(name, given)]


def _kimi_arguments(text: str, at: int, name: str, tools: Tools) -> dict[str, Any] | None:
    given: dict[str, Any] = {}
    while found := _KIMI_ARGUMENT.match(text, at):
        if _KIMI_ARGUMENT_TAGS[0] in found["value"]:
            return None
        key = _unescaped(found["key"])
        value = decoded(found["value"]) if found["type"] else None
        if found["type"] == "string":
            value = found["value"]
        given[key] = tools.value(name, key, found["value"]) if value is None else value
        at = found.end()
    return None if text[at:].strip() else given


def _unescaped(text: str) -> str:
    return text.replace("&quot;", '"').replace("&amp;", "&")


_ALIASES = {
    "read_file": "read",
    "write_file": "write",
    "edit_file": "edit",
    "web_fetch": "webfetch",
}
_JSON = JsonCalls(values=("arguments",))
_NESTED = re.compile(r"\A(?:\s*<tool_call>)+")


@parses(
    replace(
        pairs.syntax,
        forms=("{name} {parameters}", "{name} {arguments}", "{call}"),
        argument_keys=("arguments",),
    )
)
def laguna_call(text: str, tools: Tools) -> ParsedCalls | None:
    """Names that other agents have taught these models become those of the client's tools."""
    pieces = _read_laguna(_NESTED.sub("", text, count=1).strip(), tools)
    return pieces and [_renamed(piece, tools) for piece in pieces]


def _read_laguna(text: str, tools: Tools) -> ParsedCalls | None:
    if text.startswith("{"):
        return _JSON(text, tools)
    name, brace, rest = text.partition("{")
    if brace and "<arg_key>" not in text:
        return named_object(brace + rest, tools, name.strip())
    return pairs(text, tools)


def _renamed(piece: ToolCall | str, tools: Tools) -> ToolCall | str:
    if isinstance(piece, str) or piece.function.name in tools:
        return piece
    alias = _ALIASES.get(piece.function.name, "")
    return call_of(alias, piece.function.arguments, piece.id) if alias in tools else piece


DEEPSEEK_SEPARATOR = "<｜tool▁sep｜>"


@parses(
    CallSyntax(
        forms=(
            f"{{name}}{DEEPSEEK_SEPARATOR} {{arguments}}",
            f"function{DEEPSEEK_SEPARATOR}{{name}} ```json {{arguments}} ```",
        )
    )
)
def deepseek_call(text: str, tools: Tools) -> ParsedCalls | None:
    first, separator, rest = text.partition(DEEPSEEK_SEPARATOR)
    if not separator:
        return None
    name, fence, block = rest.partition("```")
    if fence and "{" not in name:  # not within the arguments
        return named_object(fenced(fence + block), tools, name.strip())
    return named_object(rest, tools, first.strip())


KIMI_SEPARATOR = "<|tool_call_argument_begin|>"


@parses(CallSyntax(forms=(f"functions.{{name}}:{{id}}{KIMI_SEPARATOR} {{arguments}}",)))
def kimi_call(text: str, tools: Tools) -> ParsedCalls | None:
    call_id, separator, rest = text.partition(KIMI_SEPARATOR)
    name = call_id.strip().removeprefix("functions.").partition(":")[0]
    return named_object(rest, tools, name, call_id.strip()) if separator else None


SOLAR_SEPARATORS = ("<|tool_call:name|>", "<|tool_call:args|>")


@parses(
    CallSyntax(forms=(f"{{id}}{SOLAR_SEPARATORS[0]}{{name}}{SOLAR_SEPARATORS[1]} {{arguments}}",))
)
def solar_call(text: str, tools: Tools) -> ParsedCalls | None:
    call_id, _, rest = text.partition(SOLAR_SEPARATORS[0])
    name, separator, rest = rest.partition(SOLAR_SEPARATORS[1])
    return named_object(rest, tools, name.strip(), call_id.strip()) if separator else None


# ----------------------------------------------------------------- Python

_NAME = re.compile(r"[\w.$-]+")


class PythonCalls:
    """``add(a=1, b="x")``, one per line or in a list. ``strings`` decodes the text between quotes;
    lists and dicts are written as Python prints them.
    """

    def __init__(self, strings: Callable[[str], str] = unescaped) -> None:
        self._escapes = strings is unescaped
        self._quotes = {'"': strings, "'": strings}

    @property
    def syntax(self) -> CallSyntax | None:
        """None without escapes: strings may hold their own quotes, and no grammar finds their
        end.
        """
        if not self._escapes:
            return None
        form = "{name}( {parameters})"
        return CallSyntax(
            forms=(form,),
            parameter="{key}= {value}",
            between=",",
            quotes=('"', "'"),
            listed=(form,),
            repeated=True,
        )

    def strings(self, *around: str) -> tuple[Quote, ...]:
        return python_strings(*around)

    def __call__(self, text: str, tools: Tools) -> ParsedCalls | None:
        del tools
        values = Values(text.strip(), self._quotes, inner=PYTHON_QUOTES)
        pieces: ParsedCalls = []
        try:
            listed = values.take("[")
            while not self._at_end(values, listed=listed):
                pieces.append(self._call(values))
                values.take(",")
        except Unreadable:
            return None
        return pieces or None

    def member(self, text: str) -> ToolCall | None:
        """The call in one member of a list."""
        values = Values(text.strip(), self._quotes, inner=PYTHON_QUOTES)
        try:
            call = self._call(values)
        except Unreadable:
            return None
        return call if values.at == len(values.text) else None

    def _at_end(self, values: Values, *, listed: bool) -> bool:
        if listed and values.take("]"):
            values.skip_space()
            if values.at < len(values.text):
                raise Unreadable("text after the list")
            return True
        values.skip_space()
        if values.at < len(values.text):
            return False
        if listed:
            raise Unreadable("]")
        return True

    def _call(self, values: Values) -> ToolCall:
        values.skip_space()
        name = values.until("(")
        if not _NAME.fullmatch(name):
            raise Unreadable(name)
        return call_of(name, values.members(")", "="))


class BraceCalls:
    """``call:add{a:1,b:<escape>x<escape>}``: keys without quotes, strings between tags. ``quote``
    is the tag; quotes of other languages are understood as well. ``lenient``: what is still open
    at the end of the call counts as closed.
    """

    def __init__(self, quote: str, *, lenient: bool) -> None:
        self._quote = quote
        self._quotes = {quote: as_it_is, '"': unescaped, "'": as_it_is}
        self._lenient = lenient

    @property
    def syntax(self) -> CallSyntax:
        return CallSyntax(
            forms=("call:{name}{ {parameters}}",),
            parameter="{key}: {value}",
            between=",",
            quotes=(self._quote,),
        )

    def strings(self, *around: str) -> tuple[Quote, ...]:
        return quoted_strings(self._quote, *around)

    def __call__(self, text: str, tools: Tools) -> ParsedCalls | None:
        del tools
        before, called, rest = text.partition("call:")
        if not called:
            return None
        values = Values(rest.rstrip(), self._quotes, keyed=True, lenient=self._lenient)
        try:
            name = values.until("{")
            given = values.members("}", ":")
        except Unreadable:
            return None
        if not name or values.text[values.at :].strip():
            return None
        return [*([before] if before.strip() else []), call_of(name, given)]
