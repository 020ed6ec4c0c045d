"""Renderers with the delimiters of ChatML, ``<|im_start|>`` and ``<|im_end|>``: Qwen (with Ornith,
which is derived from it), Nemotron, Olmo and LFM2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ollama_async.core.conversation import ToolFunction
from ollama_async.prompts.renderers.conversation_view import ConversationView, Turn
from ollama_async.prompts.renderers.renderer_spec import (
    RendererSpec,
    Switch,
    WriteTurn,
    assistant_turn,
    begun_thought,
    nothing,
    stripped,
    with_tools,
)
from ollama_async.prompts.renderers.tool_texts import (
    CALLS_ARE_JSON,
    CALLS_ARE_XML,
    compact,
    joined,
    json_call,
    json_lines,
    python_call,
    spaced,
    xml_call,
    xml_elements,
)


def chatml_turn(role: str) -> tuple[str, str]:
    return f"<|im_start|>{role}\n", "<|im_end|>\n"


CHATML_TAGS = {role: chatml_turn(role) for role in ("system", "user", "assistant")}

CHATML_THOUGHT = ("<think>\n", "\n</think>\n\n")
"""The tags of families that were trained with empty thoughts, too."""

RESULTS_OF_USER = {**CHATML_TAGS, "tool": chatml_turn("user")}
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
    tags=RESULTS_OF_USER,
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
        tags={**CHATML_TAGS, "tool": chatml_turn("environment")},
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
    tags={**CHATML_TAGS, "tool": chatml_turn("tool")},
    each_result_is_a_turn=True,
    system=lambda view: with_tools(view.system, _lfm2_tools, view, gap="\n"),
    assistant=_lfm2_assistant(nothing),
    result=lambda turn, _: f"{_RESULT}{turn.content}{_RESULT_END}",
)


# ----------------------------------------------------------------- Qwen

_CODER = "You are Qwen, a helpful AI assistant that can interact with a computer to solve tasks."
_EFFORTS = {
    "low": (
        "Reasoning effort is set to low. Keep your thinking brief and focused, moving directly to "
        "the conclusion without unnecessary elaboration."
    ),
    "xhigh": (
        "Reasoning effort is set to xhigh. Please think carefully through the task, validate key "
        "assumptions, consider plausible alternatives, and prioritize correctness, consistency, "
        "and clarity in the final answer."
    ),
}
"""The texts that the model was trained on. The effort between them has none."""


def _coder_system(view: ConversationView) -> str | None:
    if not view.tools:
        return view.system
    return f"{view.system or _CODER}\n\n" + CALLS_ARE_XML.format(tools=xml_elements(view, compact))


def _vision_system(view: ConversationView) -> str | None:
    return with_tools(
        view.system,
        lambda view: CALLS_ARE_JSON.format(tools=json_lines(view)),
        view,
    )


def _tools_first(view: ConversationView) -> str | None:
    listed = CALLS_ARE_XML.format(tools=json_lines(view)) if view.tools else ""
    parts = [part for part in (listed, (view.system or "").strip()) if part]
    return None if view.system is None and not parts else "\n\n".join(parts)


def _with_effort(view: ConversationView) -> str | None:
    parts = [part for part in (_effort(view), _tools_first(view)) if part is not None]
    return "\n\n".join(parts) if parts else None


def _effort(view: ConversationView) -> str | None:
    if not view.thinks:
        return None
    if view.think is None or view.think in {"high", "max"}:
        return _EFFORTS["xhigh"]
    return _EFFORTS.get(str(view.think))


def _thought(turn: Turn, _: ConversationView) -> str:
    return turn.thinking.strip().join(CHATML_THOUGHT)


def _recent_thought_if_any(turn: Turn, view: ConversationView) -> str:
    shown = view.thinks and turn.is_after_query and (turn.thinking or turn.is_open)
    return _thought(turn, view) if shown else ""


def _recent_thought(turn: Turn, view: ConversationView) -> str:
    return _thought(turn, view) if view.thinks and turn.is_after_query else ""


def _vision(*, thinks_unasked: bool) -> RendererSpec:
    return RendererSpec(
        tags=RESULTS_OF_USER,
        system=_vision_system,
        assistant=assistant_turn(
            thoughts=_recent_thought_if_any,
            gap="\n",
            calls=joined(json_call, "\n"),
        ),
        result=tool_response,
        between_results="\n",
        opening=("<think>\n", ""),
        thought=CHATML_THOUGHT if thinks_unasked else None,
        thinks_unasked=thinks_unasked,
    )


_THINK: Switch = ("<think>\n", "<think>\n\n</think>\n\n")
_CALLS = joined(xml_call, "\n")

_QWEN_3_5 = RendererSpec(
    tags=RESULTS_OF_USER,
    system=_tools_first,
    user=stripped,
    assistant=assistant_turn(thoughts=_recent_thought, words=stripped, gap="\n\n", calls=_CALLS),
    result=tool_response,
    between_results="\n",
    opening=_THINK,
    thought=CHATML_THOUGHT,
    thinks_unasked=True,
)
_ORNITH = replace(
    _QWEN_3_5, assistant=assistant_turn(thoughts=_thought, words=stripped, gap="\n\n", calls=_CALLS)
)


RENDERERS = {
    "qwen3-coder": RendererSpec(
        tags=RESULTS_OF_USER,
        system=_coder_system,
        assistant=assistant_turn(gap="\n", calls=lambda calls: f"\n{_CALLS(calls)}"),
        result=tool_response,
        between_results="\n",
    ),
    "qwen3-vl-instruct": _vision(thinks_unasked=False),
    "qwen3-vl-thinking": _vision(thinks_unasked=True),
    "qwen3.5": _QWEN_3_5,
    "qwen3.8": replace(_ORNITH, system=_with_effort, gathers_system=True),
    "ornith": _ORNITH,
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
