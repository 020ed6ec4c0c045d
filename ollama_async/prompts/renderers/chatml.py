"""Renderers with the delimiters of ChatML, ``<|im_start|>`` and ``<|im_end|>``: Nemotron, Olmo and
LFM2. :mod:`.qwen` uses them as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ollama_async.core.conversation import ToolFunction
from ollama_async.prompts.renderers.conversation_view import ConversationView, Turn
from ollama_async.prompts.renderers.renderer_spec import (
    RendererSpec,
    WriteTurn,
    assistant_turn,
    begun_thought,
    nothing,
    with_tools,
)
from ollama_async.prompts.renderers.tool_texts import (
    CALLS_ARE_XML,
    joined,
    python_call,
    spaced,
    xml_call,
    xml_elements,
)


def chatml_turn(role: str) -> tuple[str, str]:
    return f"<|im_start|>{role}\n", "<|im_end|>\n"


CHATML_MARKS = {role: chatml_turn(role) for role in ("system", "user", "assistant")}

CHATML_THOUGHT = ("<think>\n", "\n</think>\n\n")
"""The marks of families that were trained with empty thoughts, too."""

RESULTS_OF_USER = {**CHATML_MARKS, "tool": chatml_turn("user")}
"""Results of tools are turns of the user."""


def tool_response(result: Turn, _: ConversationView) -> str:
    return f"<tool_response>\n{result.content}\n</tool_response>"


# ----------------------------------------------------------------- Nemotron Nano of Nvidia


def _nemotron_system(view: ConversationView) -> str:
    return with_tools(view.system, _nemotron_tools, view) or ""


def _nemotron_tools(view: ConversationView) -> str:
    return CALLS_ARE_XML.format(tools=xml_elements(view, spaced))


def _nemotron_assistant(*, forgotten: str) -> WriteTurn:
    """``forgotten`` replaces past thoughts before content, which are not shown."""

    def thoughts(turn: Turn, _: ConversationView) -> str:
        if not turn.thinking:
            return "<think></think>"
        if turn.is_after_query:
            return f"<think>\n{turn.thinking}\n</think>" + ("\n" if turn.content.strip() else "")
        return "<think></think>" if turn.calls else forgotten

    def words(turn: Turn, _: ConversationView) -> str:
        return turn.content.strip() + ("\n" if turn.calls else "")

    calls = joined(xml_call, "\n")
    return assistant_turn(thoughts=thoughts, words=words, calls=lambda made: f"{calls(made)}\n")


_NEMOTRON = RendererSpec(
    marks=RESULTS_OF_USER,
    system=_nemotron_system,
    assistant=_nemotron_assistant(forgotten="<think></think>\n"),
    result=lambda turn, view: f"{tool_response(turn, view)}\n",
    opening=("<think>\n", "<think></think>"),
    thought=("<think>\n", "\n</think>\n"),
    thinks_unasked=True,
)


# ----------------------------------------------------------------- Olmo 3 of Ai2

_OLMO = (
    "You are Olmo, a helpful AI assistant built by Ai2. Your date cutoff is December 2024, and "
    "your model weights are available at https://huggingface.co/allenai."
)
_OLMO_THOUGHT = ("<think>", "</think>")
_NO_TOOLS = "You do not currently have access to any functions. <functions></functions>"
_HOW_TO_CALL = (
    "You are provided with function signatures within <functions></functions> XML tags. You may "
    "call one or more functions to assist with the user query. Output any function calls within "
    "<function_calls></function_calls> XML tags. Do not make assumptions about what values to "
    "plug into functions."
)


def _olmo_instruct(introduction: str) -> RendererSpec:
    def system(view: ConversationView) -> str:
        listed = f"<functions>{spaced([tool.declared for tool in view.tools])}</functions>"
        if view.system is not None:
            return view.system + (listed if view.tools else "")
        return f"{introduction} " + (_HOW_TO_CALL + listed if view.tools else _NO_TOOLS)

    return _olmo(system)


def _olmo_thinker(introduction: str) -> RendererSpec:
    """Thinking models get no tools; past calls and results are shown as for the others."""
    return replace(
        _olmo(_told_of_no_tools(introduction), begun_thought(_OLMO_THOUGHT)),
        opening=("<think>", "<think>"),
        thought=_OLMO_THOUGHT,
    )


def _olmo(system: Callable[[ConversationView], str], thoughts: WriteTurn = nothing) -> RendererSpec:
    calls = joined(python_call, "\n")
    return RendererSpec(
        marks={**CHATML_MARKS, "tool": chatml_turn("environment")},
        each_result_is_a_turn=True,
        system=system,
        assistant=assistant_turn(
            thoughts=thoughts,
            calls=lambda made: f"<function_calls>{calls(made)}</function_calls>",
        ),
    )


def _told_of_no_tools(introduction: str) -> Callable[[ConversationView], str]:
    return lambda view: introduction if view.system is None else f"{view.system} {_NO_TOOLS}"


# ----------------------------------------------------------------- LFM2 of Liquid AI

_LIST, _LIST_END = "<|tool_list_start|>", "<|tool_list_end|>"
_CALL, _CALL_END = "<|tool_call_start|>", "<|tool_call_end|>"
_RESULT, _RESULT_END = "<|tool_response_start|>", "<|tool_response_end|>"

_lfm2_join = joined(partial(python_call, comma=","), ",")


def _lfm2_tools(view: ConversationView) -> str:
    listed = spaced([tool.function for tool in view.tools])
    return f"List of tools: {_LIST}{listed}{_LIST_END}"


def _lfm2_calls(made: Sequence[ToolFunction]) -> str:
    return f"{_CALL}[{_lfm2_join(made)}]{_CALL_END}"


def _lfm2_thought(turn: Turn, _: ConversationView) -> str:
    return f"<think>{turn.thinking}</think>" if turn.thinking else ""


def _lfm2_assistant(thoughts: WriteTurn) -> WriteTurn:
    """Content comes after calls, on a line of its own."""

    def write(turn: Turn, view: ConversationView) -> str:
        called = [_lfm2_calls(turn.calls)] if turn.calls else []
        words = [turn.content] if turn.content else []
        return thoughts(turn, view) + "\n".join(called + words)

    return write


_LFM2 = RendererSpec(
    start="<|startoftext|>",
    marks={**CHATML_MARKS, "tool": chatml_turn("tool")},
    each_result_is_a_turn=True,
    system=lambda view: with_tools(view.system, _lfm2_tools, view, gap="\n"),
    assistant=_lfm2_assistant(nothing),
    result=lambda turn, _: f"{_RESULT}{turn.content}{_RESULT_END}",
)


RENDERERS = {
    "nemotron-3-nano": _NEMOTRON,
    "nemotron-3.5-nano": replace(
        _NEMOTRON, assistant=_nemotron_assistant(forgotten="<think></think>")
    ),
    "olmo3": _olmo_instruct("You are a helpful function-calling AI assistant."),
    "olmo3.1": _olmo_instruct(_OLMO),
    "olmo3-think": _olmo_thinker(_OLMO),
    "olmo3-32b-think": _olmo_thinker("You are a helpful AI assistant."),
    "lfm2": _LFM2,
    "lfm2-thinking": replace(
        _LFM2, assistant=_lfm2_assistant(_lfm2_thought), thought=("<think>", "</think>")
    ),
}
