"""Output format of gpt-oss (Harmony): messages, each with a channel that says what it is."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial

import msgspec

from ollama_async.core.conversation import Prompt
from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.prompts.output_format import Delimiters, Parser
from ollama_async.prompts.parsers.call_spec import HEAD_LIMIT
from ollama_async.prompts.parsers.delimiter_search import JSON_STRINGS
from ollama_async.prompts.parsers.json_calls import named_object
from ollama_async.prompts.parsers.scanner import Scanner
from ollama_async.prompts.parsers.states import Collect, Kind, Outcome, State, Text
from ollama_async.prompts.parsers.thinking import ParserContext
from ollama_async.prompts.parsers.tool_schemas import ParseCall, Tools

_MESSAGE_END = "<|end|>"
_CALL_ENDS = (_MESSAGE_END, "<|call|>")
_TURN = "<|start|>assistant"
_FINAL = "<|channel|>final<|message|>"
_SYNTAX = CallSyntax(
    after="to=functions.",
    forms=tuple(
        f"{{name}}{channel}{kind}<|message|> {{arguments}}"
        for channel in ("", " <|channel|>commentary")
        for kind in ("", " <|constrain|>json", " json")
    ),
)
_THOUGHTS = ("<|channel|>analysis<|message|>", f"{_MESSAGE_END}{_TURN}{_FINAL}")


class Harmony(msgspec.Struct, frozen=True):
    """The prompt ends with the beginning of the first header."""

    handles_tools: bool = True
    handles_thinking: bool = True
    special_tokens: tuple[str, ...] = (
        "<|start|>",
        _MESSAGE_END,
        "<|message|>",
        "<|channel|>",
        "<|constrain|>",
    )

    def start(self, prompt: Prompt, rendered: str) -> Parser | None:
        context = ParserContext.of(prompt, rendered)
        return Scanner(_states(context.tools), _begin(context))

    def delimiters(self, prompt: Prompt, rendered: str) -> Delimiters:
        context = ParserContext.of(prompt, rendered)
        begin = _begin(context)
        # no grammar if the models may write the name of a tool in two ways
        is_plain = all(shown == name for shown, name in function_names(context.tools).items())
        syntaxes = (_SYNTAX,) if context.tools and is_plain else ()
        if begin == "content":
            return Delimiters(syntaxes=syntaxes)
        opening = _FINAL if context.rendered.endswith(_TURN) else ""
        is_thinking = begin == "thinking"
        return Delimiters(_THOUGHTS, None, is_thinking, opening=opening, syntaxes=syntaxes)


def _begin(context: ParserContext) -> str:
    """The initial state."""
    if context.begun:
        return "content"
    return "thinking" if context.is_in_thought else "header"


def function_names(tools: Tools) -> dict[str, str]:
    """The names that these models use for tools, valid in TypeScript, to the client's names."""
    names: dict[str, str] = {}
    last: Counter[str] = Counter()  # the last number of each name
    for name in tools:
        plain = shown = _identifier(name)
        while shown in names:
            last[plain] += 1
            shown = f"{plain}_{last[plain] + 1}"
        names[shown] = name
    return names


def _identifier(name: str) -> str:
    if name in {"browser.open", "browser.search", "browser.find", "python"}:
        return name
    spaced = "".join("_" if character in " -." else character for character in name)
    kept = "".join(c for c in spaced if c.isalpha() or c.isdigit() or c in "_$")
    return "_" + kept if kept[:1].isdigit() else kept or "unnamed"


def _states(tools: Tools) -> dict[str, State]:
    opening = Collect(
        partial(_opened, tools, function_names(tools)),
        cut_off,
        ends=("<|message|>",),
        limit=HEAD_LIMIT,
        syntax=_SYNTAX if tools else None,
    )
    return {
        "header": opening,
        "channel": msgspec.structs.replace(opening, keep=True),
        "content": Text(Kind.CONTENT, {_MESSAGE_END: "between"}),
        "thinking": Text(Kind.THINKING, {_MESSAGE_END: "between"}),
        "between": Text(Kind.CONTENT, {"<|start|>": "header", "<|channel|>": "channel"}),
    }


def _opened(tools: Tools, names: dict[str, str], text: str) -> Outcome | None:
    """The state for a message, by its header."""
    found = header(text)
    if found is None or (found.recipient and not tools):
        return None
    if found.recipient:
        name = found.recipient.removeprefix("functions.")
        read = partial(named_object, name=names.get(name, name))
        return Outcome([], _call(tools, read, source=text))
    return Outcome([], "thinking" if found.channel == "analysis" else "content")


def _call(tools: Tools, read: ParseCall, *, source: str) -> Collect:
    """The model stops after a call, so the end of the answer ends a call as well."""

    def settle(span: str) -> Outcome | None:
        pieces = read(span, tools)
        return Outcome(pieces, "between") if pieces and span.strip() else None

    return Collect(
        settle, settle, ends=_CALL_ENDS, strings=JSON_STRINGS, source=source, syntax=_SYNTAX
    )


# ----------------------------------------------------------------- headers

_HEADER = re.compile(
    r"\s*(?:<\|start\|>)?\s*(?:assistant|user|system|tool|developer)?"
    r"(?:\s*<\|channel\|>\s*(?:analysis|commentary|final)|\s*to=[^\s<]+"
    r"|\s*(?:<\|constrain\|>)?\s*(?:json|code))*\s*"
)
_CHANNEL = re.compile(r"<\|channel\|>\s*([^\s<]*)")
_RECIPIENT = re.compile(r"to=\s*([^\s<]+)")


class Header(msgspec.Struct, frozen=True):
    """The recipient and the channel of a message; empty: not given."""

    channel: str
    recipient: str


def cut_off(text: str) -> Outcome | None:
    """The outcome if the answer ends before a header, or within what is text instead."""
    return None if text.strip() else Outcome([], "content")


def header(text: str) -> Header | None:
    """None: this is text, not a header."""
    if not _HEADER.fullmatch(text):
        return None
    channel = _CHANNEL.search(text)
    recipient = _RECIPIENT.search(text)
    return Header(channel[1] if channel else "", recipient[1] if recipient else "")
