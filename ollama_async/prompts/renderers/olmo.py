"""Olmo 3 of Ai2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ollama_async.prompts.renderers import chatml, tool_texts
from ollama_async.prompts.renderers.conversation_view import Talk
from ollama_async.prompts.renderers.json_text import spaced
from ollama_async.prompts.renderers.renderer_spec import (
    Family,
    WriteTurn,
    begun_thought,
    nothing,
    speaking,
)

_OLMO = (
    "You are Olmo, a helpful AI assistant built by Ai2. Your date cutoff is December 2024, and "
    "your model weights are available at https://huggingface.co/allenai."
)
_THOUGHT = ("<think>", "</think>")
_NO_TOOLS = "You do not currently have access to any functions. <functions></functions>"
_HOW_TO_CALL = (
    "You are provided with function signatures within <functions></functions> XML tags. You may "
    "call one or more functions to assist with the user query. Output any function calls within "
    "<function_calls></function_calls> XML tags. Do not make assumptions about what values to "
    "plug into functions."
)


def _instruct(introduction: str) -> Family:
    def system(talk: Talk) -> str:
        listed = f"<functions>{spaced([tool.declared for tool in talk.tools])}</functions>"
        if talk.system is not None:
            return talk.system + (listed if talk.tools else "")
        return f"{introduction} " + (_HOW_TO_CALL + listed if talk.tools else _NO_TOOLS)

    return _family(system)


def _thinker(introduction: str) -> Family:
    """It is offered no tools; calls and results of the past are shown as to the others."""
    return replace(
        _family(_told_of_no_tools(introduction), begun_thought(_THOUGHT)),
        opening=("<think>", "<think>"),
        thought=_THOUGHT,
    )


def _family(system: Callable[[Talk], str], thoughts: WriteTurn = nothing) -> Family:
    calls = tool_texts.joined(tool_texts.python_call, "\n")
    return Family(
        marks={**chatml.MARKS, "tool": chatml.turn("environment")},
        each_result_is_a_turn=True,
        system=system,
        assistant=speaking(
            thoughts=thoughts,
            calls=lambda made: f"<function_calls>{calls(made)}</function_calls>",
        ),
    )


def _told_of_no_tools(introduction: str) -> Callable[[Talk], str]:
    return lambda talk: introduction if talk.system is None else f"{talk.system} {_NO_TOOLS}"


FAMILIES = {
    "olmo3": _instruct("You are a helpful function-calling AI assistant."),
    "olmo3.1": _instruct(_OLMO),
    "olmo3-think": _thinker(_OLMO),
    "olmo3-32b-think": _thinker("You are a helpful AI assistant."),
}
