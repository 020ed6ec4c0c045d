"""Output format of Cohere's Command A and R: blocks of thoughts, actions and text."""

from __future__ import annotations

import msgspec

from ollama_async.core.conversation import Prompt
from ollama_async.prompts.output_format import Delimiters, Parser
from ollama_async.prompts.parsers.call_spec import JSON, CallSpec
from ollama_async.prompts.parsers.delimiter_search import JSON_STRINGS
from ollama_async.prompts.parsers.json_calls import JsonCalls
from ollama_async.prompts.parsers.scanner import Scanner
from ollama_async.prompts.parsers.states import Kind, Look, Space, State, Text
from ollama_async.prompts.parsers.thinking import ParserContext

_STARTS = ("<|START_TEXT|>", "<|START_RESPONSE|>")
_ENDS = ("<|END_TEXT|>", "<|END_RESPONSE|>")
_THOUGHTS = ("<|START_THINKING|>", "<|END_THINKING|>")
_TURN = ("<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>")
_ACTIONS = JsonCalls(
    names=("tool_name", "name"), values=("parameters", "arguments"), ids="tool_call_id"
)
_ACTION = CallSpec(
    open=("<|START_ACTION|>",),
    close=("<|END_ACTION|>",),
    parse=_ACTIONS,
    item=_ACTIONS.member,
    quotes=JSON,
    strings=JSON_STRINGS,
)


class Cohere(msgspec.Struct, frozen=True):
    """With thinking, the prompt ends with the opening mark of thoughts. ``by_prompt``: whether it
    does is read from the prompt instead of from the client's ``think``.
    """

    by_prompt: bool = False
    handles_tools: bool = True
    handles_thinking: bool = True
    special_tokens: tuple[str, ...] = (
        *_THOUGHTS,
        *_STARTS,
        *_ENDS,
        *_ACTION.open,
        *_ACTION.close,
    )

    def start(self, prompt: Prompt, rendered: str) -> Parser | None:
        context = ParserContext.of(prompt, rendered)
        return Scanner(_states(context), self._begin(context))

    def delimiters(self, prompt: Prompt, rendered: str) -> Delimiters:
        context = ParserContext.of(prompt, rendered)
        begin = self._begin(context)
        syntaxes = (_ACTION.syntax,) if context.tools and _ACTION.syntax else ()
        if begin == "content":
            return Delimiters(syntaxes=syntaxes)
        return Delimiters(_THOUGHTS, begins_thinking=begin == "thinking", syntaxes=syntaxes)

    def _begin(self, context: ParserContext) -> str:
        """The initial state: ``thinking``, ``content``, or before a ``block``."""
        if self.by_prompt:
            return "thinking" if context.rendered.endswith(_THOUGHTS[0]) else "block"
        if context.begun:
            return "content"
        return "block" if context.think is False else "thinking"


def _states(context: ParserContext) -> dict[str, State]:
    action: dict[str, State | str] = dict.fromkeys(_ACTION.open, "action") if context.tools else {}
    opening = {**action, **dict.fromkeys(_STARTS, "content"), _THOUGHTS[0]: "thinking"}
    return {
        "thinking": Text(Kind.THINKING, {_THOUGHTS[1]: "block"}, Space.DROP),
        "block": Look({**opening, **dict.fromkeys(_TURN, "block")}, "content"),
        "content": Text(
            Kind.CONTENT,
            {**opening, **dict.fromkeys((*_ENDS, _TURN[0], _THOUGHTS[1]), "block")},
        ),
        "action": _ACTION.state(context.tools, "block"),
    }
