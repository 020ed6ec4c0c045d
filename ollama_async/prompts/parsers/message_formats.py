"""Output formats of messages with headers: gpt-oss (Harmony) and Muse Glimmer.

In Harmony a channel shows what a message is; in Glimmer, its recipient: the user, the model itself,
or a tool.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial

import msgspec
from msgspec.structs import replace

from ollama_async.core.conversation import Prompt
from ollama_async.prompts.output_format import CallSyntax, Delimiters, ForcedCall, Parser
from ollama_async.prompts.parsers.delimiter_search import JSON_STRINGS
from ollama_async.prompts.parsers.json_calls import named_object
from ollama_async.prompts.parsers.parser_spec import HEAD_LIMIT
from ollama_async.prompts.parsers.scanner import Scanner
from ollama_async.prompts.parsers.states import Collect, Kind, Look, Outcome, State, Text
from ollama_async.prompts.parsers.thinking import ParserContext
from ollama_async.prompts.parsers.tool_schemas import Tools, is_plain
from ollama_async.prompts.parsers.xml_calls import Element, XmlCalls

_START, _MESSAGE = "<|start|>assistant", "<|message|>"

# ----------------------------------------------------------------- headers

_HEADER = re.compile(
    r"\s*(?:<\|start\|>)?\s*(?:assistant|user|system|tool|developer)?"
    r"(?:\s*<\|channel\|>\s*(?:analysis|commentary|final)|\s*to=[^\s<]+"
    r"|\s*(?:<\|constrain\|>)?\s*(?:json|code))*\s*"
)
_CHANNEL = re.compile(r"<\|channel\|>\s*([^\s<]*)")
_RECIPIENT = re.compile(r"to=\s*([^\s<]+)")


def _cut_header(text: str) -> Outcome | None:
    """The outcome if the answer ends before a header, or within what is text instead."""
    return None if text.strip() else Outcome([], "content")


def _read_header(text: str) -> tuple[str, str] | None:
    """The channel and the recipient, each empty if it is not given; None: this is text."""
    if not _HEADER.fullmatch(text):
        return None
    channel, recipient = _CHANNEL.search(text), _RECIPIENT.search(text)
    return channel[1] if channel else "", recipient[1] if recipient else ""


# ----------------------------------------------------------------- Harmony

_CHANNEL_TOKENS = ("<|channel|>", "<|constrain|>")
_END, _FINAL = "<|end|>", "<|channel|>final<|message|>"
_HARMONY_SYNTAX = CallSyntax(
    after="to=functions.",
    forms=tuple(
        f"{{name}}{channel}{kind}<|message|> {{arguments}}"
        for channel in ("", " <|channel|>commentary")
        for kind in ("", " <|constrain|>json", "{space}json")
    ),
)
_HARMONY_FORCED = ForcedCall(
    "<|channel|>commentary to=functions.",
    replace(_HARMONY_SYNTAX, forms=("{name} <|constrain|>json<|message|> {arguments}",)),
    thoughts_end=f"{_END}{_START}",
)
_HARMONY_THOUGHTS = ("<|channel|>analysis<|message|>", f"{_END}{_START}{_FINAL}")


class Harmony(msgspec.Struct, frozen=True):
    """The prompt ends with the beginning of the first header."""

    handles_tools: bool = True
    handles_thinking: bool = True
    special_tokens: tuple[str, ...] = ("<|start|>", _END, _MESSAGE, *_CHANNEL_TOKENS)

    def start(self, prompt: Prompt, rendered: str) -> Parser | None:
        context = ParserContext.of(prompt, rendered)
        return Scanner(_harmony_states(context.tools), _begin(context))

    def delimiters(self, prompt: Prompt, rendered: str) -> Delimiters:
        context = ParserContext.of(prompt, rendered)
        # no grammar if the models may write the name of a tool in two ways
        is_plain = all(shown == name for shown, name in function_names(context.tools).items())
        syntaxes = (_HARMONY_SYNTAX,) if context.tools and is_plain else ()
        begin = _begin(context)
        if begin == "content":
            return Delimiters(syntaxes=syntaxes)
        return Delimiters(
            _HARMONY_THOUGHTS,
            begins_thinking=begin == "thinking",
            opening=_FINAL if context.rendered.endswith(_START) else "",
            syntaxes=syntaxes,
            forced=_HARMONY_FORCED if syntaxes and context.rendered.endswith(_START) else None,
        )


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


def _harmony_states(tools: Tools) -> dict[str, State]:
    header = Collect(
        partial(_harmony_message, tools, function_names(tools)),
        _cut_header,
        ends=(_MESSAGE,),
        limit=HEAD_LIMIT,
        syntax=_HARMONY_SYNTAX if tools else None,
    )
    return {
        "header": header,
        "channel": replace(header, keep=True),
        "content": Text(Kind.CONTENT, {_END: "between"}),
        "thinking": Text(Kind.THINKING, {_END: "between"}),
        "between": Text(Kind.CONTENT, {"<|start|>": "header", "<|channel|>": "channel"}),
    }


def _harmony_message(tools: Tools, names: dict[str, str], text: str) -> Outcome | None:
    """The state for a message, by its header."""
    channel, recipient = _read_header(text) or ("", None)
    if recipient is None or (recipient and not tools):
        return None
    if recipient:
        name = recipient.removeprefix("functions.")
        return Outcome([], _harmony_call(tools, names.get(name, name), source=text))
    return Outcome([], "thinking" if channel == "analysis" else "content")


def _harmony_call(tools: Tools, name: str, *, source: str) -> Collect:
    """The model stops after a call, so the end of the answer ends a call as well."""

    def parse(span: str) -> Outcome | None:
        pieces = named_object(span, tools, name)
        return Outcome(pieces, "between") if pieces and span.strip() else None

    return Collect(
        parse,
        parse,
        ends=(_END, "<|call|>"),
        strings=JSON_STRINGS,
        source=source,
        syntax=_HARMONY_SYNTAX,
    )


# ----------------------------------------------------------------- Muse Glimmer

_ENDS = ("<|eom|>", "<|eot|>")
_GLIMMER_THOUGHTS = (f"to=self{_MESSAGE}", f"{_ENDS[0]}{_START}{_MESSAGE}")
"""The texts around a message to itself, including the header of the next message."""
_CALLS, _CALLS_END = "<atem:function_calls>", "</atem:function_calls>"


def _resolve(name: str, tools: Tools) -> str | None:
    """The tool that a name means. These models may repeat the first part of the name before it."""
    if name in tools:
        return name
    namespace, _, rest = name.partition(".")
    return rest if rest in tools and rest.partition(".")[0] == namespace else None


_INVOKE = XmlCalls(
    Element('<atem:invoke name="', '">', "</atem:invoke>"),
    Element('<atem:parameter name="', '">', "</atem:parameter>"),
    lines=False,
    resolve=_resolve,
)
_GLIMMER_SYNTAX = replace(_INVOKE.syntax, prefix=_CALLS, close=(_CALLS_END,))


class Glimmer(msgspec.Struct, frozen=True):
    """The prompt ends with the beginning of the first header, or within a message."""

    handles_tools: bool = True
    handles_thinking: bool = True
    special_tokens: tuple[str, ...] = ("<|start|>", _MESSAGE, *_ENDS)

    def start(self, prompt: Prompt, rendered: str) -> Parser | None:
        context = ParserContext.of(prompt, rendered)
        thoughts = Kind.HIDDEN if context.think is False else Kind.THINKING
        return Scanner(_glimmer_states(context.tools, thoughts), _begin(context))

    def delimiters(self, prompt: Prompt, rendered: str) -> Delimiters:
        context = ParserContext.of(prompt, rendered)
        return Delimiters(
            None if context.think is False or context.begun else _GLIMMER_THOUGHTS,
            begins_thinking=context.is_in_thought,
            opening=_MESSAGE if context.rendered.endswith(_START) else "",
            syntaxes=(_GLIMMER_SYNTAX,) if context.tools else (),
            forced=ForcedCall("", _GLIMMER_SYNTAX) if context.tools else None,
        )


def _glimmer_states(tools: Tools, thoughts: Kind) -> dict[str, State]:
    recipients = {"": "fresh", " to=user": "fresh", " to=self": "thinking"}
    recipients |= {f" to={name}": f"call {name}" for name in tools if is_plain(name)}
    tags: dict[str, State | str] = dict.fromkeys(_ENDS, "header")
    tags |= {f"{_START}{recipient}{_MESSAGE}": to for recipient, to in recipients.items()}
    states: dict[str, State] = {
        "header": Collect(
            partial(_glimmer_message, tools), _cut_header, ends=(_MESSAGE,), limit=HEAD_LIMIT
        ),
        "content": Text(Kind.CONTENT, tags),
        "thinking": Text(thoughts, tags),
        # a call without a tool in its header, which these models write now and then
        "fresh": Look(
            {_CALLS: _glimmer_call(tools, keep=True)} if tools else {}, "content", keep=True
        ),
        "called": Look(tags, "content"),
    }
    return states | {f"call {name}": _glimmer_call(tools) for name in tools}


def _glimmer_message(tools: Tools, text: str) -> Outcome | None:
    """The state for a message, by its header."""
    _, recipient = _read_header(text) or ("", None)
    if recipient is None:
        return None
    if recipient == "self":
        return Outcome([], "thinking")
    is_call = _resolve(recipient, tools)
    return Outcome([], _glimmer_call(tools, source=text) if is_call else "fresh")


def _glimmer_call(tools: Tools, *, keep: bool = False, source: str = "") -> Collect:
    def parse(span: str) -> Outcome | None:
        before, opened, inner = span.partition(_CALLS)
        if not opened or before.strip():
            return None
        pieces = _INVOKE(inner.replace(_MESSAGE, ""), tools)
        return Outcome(pieces, "called") if pieces else None

    return Collect(
        parse,
        parse,
        ends=(_CALLS_END, *_ENDS),
        strings=_INVOKE.strings(_START),
        keep=keep,
        source=source,
        syntax=_GLIMMER_SYNTAX,
    )
