"""LFM2 of Liquid AI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ollama_async.core.conversation import ToolFunction
from ollama_async.prompts.renderers import chatml, tool_texts
from ollama_async.prompts.renderers.conversation_view import Talk, Turn
from ollama_async.prompts.renderers.json_text import spaced
from ollama_async.prompts.renderers.renderer_spec import Family, WriteTurn, nothing, with_tools

_LIST, _LIST_END = "<|tool_list_start|>", "<|tool_list_end|>"
_CALL, _CALL_END = "<|tool_call_start|>", "<|tool_call_end|>"
_RESULT, _RESULT_END = "<|tool_response_start|>", "<|tool_response_end|>"

_join_calls = tool_texts.joined(partial(tool_texts.python_call, comma=","), ",")


def _list_tools(talk: Talk) -> str:
    listed = spaced([tool.function for tool in talk.tools])
    return f"List of tools: {_LIST}{listed}{_LIST_END}"


def _calls(made: Sequence[ToolFunction]) -> str:
    return f"{_CALL}[{_join_calls(made)}]{_CALL_END}"


def _thought(turn: Turn, _: Talk) -> str:
    return f"<think>{turn.thinking}</think>" if turn.thinking else ""


def _says(thoughts: WriteTurn) -> WriteTurn:
    """Words come after calls, on a line of their own."""

    def write(turn: Turn, talk: Talk) -> str:
        called = [_calls(turn.calls)] if turn.calls else []
        words = [turn.content] if turn.content else []
        return thoughts(turn, talk) + "\n".join(called + words)

    return write


_LFM2 = Family(
    start="<|startoftext|>",
    marks={**chatml.MARKS, "tool": chatml.turn("tool")},
    each_result_is_a_turn=True,
    system=lambda talk: with_tools(talk.system, _list_tools, talk, gap="\n"),
    assistant=_says(nothing),
    result=lambda turn, _: f"{_RESULT}{turn.content}{_RESULT_END}",
)

FAMILIES = {
    "lfm2": _LFM2,
    "lfm2-thinking": replace(_LFM2, assistant=_says(_thought), thought=("<think>", "</think>")),
}
