"""Output format of Muse Glimmer: messages to the user, to itself, or to a tool."""

from __future__ import annotations

from functools import partial

import msgspec
from msgspec.structs import replace

from ollama_async.core.conversation import Prompt
from ollama_async.prompts.output_format import Delimiters, Parser
from ollama_async.prompts.parsers.call_spec import HEAD_LIMIT
from ollama_async.prompts.parsers.harmony import cut_off, header
from ollama_async.prompts.parsers.scanner import Scanner
from ollama_async.prompts.parsers.states import Collect, Kind, Look, Outcome, State, Text
from ollama_async.prompts.parsers.tagged_calls import Tag, XmlCalls
from ollama_async.prompts.parsers.thinking import ParserContext
from ollama_async.prompts.parsers.tool_schemas import ParsedCalls, Tools, is_plain

_START = "<|start|>assistant"
_MESSAGE = "<|message|>"
_ENDS = ("<|eom|>", "<|eot|>")
_THOUGHTS = (f"to=self{_MESSAGE}", f"{_ENDS[0]}{_START}{_MESSAGE}")
"""The texts around a message to itself, including the header of the next message."""
_CALLS = "<atem:function_calls>"
_CALLS_END = "</atem:function_calls>"


def resolved(name: str, tools: Tools) -> str | None:
    """The tool that a name means. These models may repeat the first part of the name before it."""
    if name in tools:
        return name
    space, _, rest = name.partition(".")
    return rest if rest in tools and rest.partition(".")[0] == space else None


_INVOKE = XmlCalls(
    Tag('<atem:invoke name="', '">', "</atem:invoke>"),
    Tag('<atem:parameter name="', '">', "</atem:parameter>"),
    lines=False,
    resolve=resolved,
)
_STRINGS = _INVOKE.strings(_START)
_SYNTAX = replace(_INVOKE.syntax, prefix=_CALLS, close=(_CALLS_END,))


class Glimmer(msgspec.Struct, frozen=True):
    """The prompt ends with the beginning of the first header, or within a message."""

    handles_tools: bool = True
    handles_thinking: bool = True
    special_tokens: tuple[str, ...] = ("<|start|>", _MESSAGE, *_ENDS)

    def start(self, prompt: Prompt, rendered: str) -> Parser | None:
        context = ParserContext.of(prompt, rendered)
        thoughts = Kind.HIDDEN if context.think is False else Kind.THINKING
        return Scanner(_states(context.tools, thoughts), _begin(context))

    def delimiters(self, prompt: Prompt, rendered: str) -> Delimiters:
        context = ParserContext.of(prompt, rendered)
        opening = _MESSAGE if context.rendered.endswith(_START) else ""
        return Delimiters(
            None if context.think is False or context.begun else _THOUGHTS,
            begins_thinking=context.is_in_thought,
            opening=opening,
            syntaxes=(_SYNTAX,) if context.tools else (),
        )


def _begin(context: ParserContext) -> str:
    if context.is_in_thought:
        return "thinking"
    return "content" if context.begun else "header"


def _states(tools: Tools, thoughts: Kind) -> dict[str, State]:
    recipients = {"": "fresh", " to=user": "fresh", " to=self": "thinking"}
    recipients |= {f" to={name}": f"call {name}" for name in tools if is_plain(name)}
    marks: dict[str, State | str] = dict.fromkeys(_ENDS, "header")
    marks |= {f"{_START}{recipient}{_MESSAGE}": to for recipient, to in recipients.items()}
    states: dict[str, State] = {
        "header": Collect(partial(_opened, tools), cut_off, ends=(_MESSAGE,), limit=HEAD_LIMIT),
        "content": Text(Kind.CONTENT, marks),
        "thinking": Text(thoughts, marks),
        # a call without a tool in its header, which these models write now and then
        "fresh": Look({_CALLS: _call(tools, keep=True)} if tools else {}, "content", keep=True),
        "called": Look(marks, "content"),
    }
    return states | {f"call {name}": _call(tools) for name in tools}


def _opened(tools: Tools, text: str) -> Outcome | None:
    """The state for a message, by its header."""
    found = header(text)
    if found is None:
        return None
    if found.recipient == "self":
        return Outcome([], "thinking")
    if resolved(found.recipient, tools):
        return Outcome([], _call(tools, source=text))
    return Outcome([], "fresh")


def _call(tools: Tools, *, keep: bool = False, source: str = "") -> Collect:
    def settle(span: str) -> Outcome | None:
        pieces = _calls(span, tools)
        return Outcome(pieces, "called") if pieces else None

    return Collect(
        settle,
        settle,
        ends=(_CALLS_END, *_ENDS),
        strings=_STRINGS,
        keep=keep,
        source=source,
        syntax=_SYNTAX,
    )


def _calls(text: str, tools: Tools) -> ParsedCalls | None:
    before, opened, inner = text.partition(_CALLS)
    if not opened or before.strip():
        return None
    return _INVOKE(inner.replace(_MESSAGE, ""), tools)
