"""Renderers with the delimiters of ChatML, ``<|im_start|>`` and ``<|im_end|>``: Qwen (with Ornith,
which is derived from it), Nemotron, Olmo and LFM2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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
    json_call,
    json_lines,
    python_call,
    spaced,
    xml_call,
    xml_elements,
)


def _turn(role: str) -> tuple[str, str]:
    return f"<|im_start|>{role}\n", "<|im_end|>\n"


_TAGS = {role: _turn(role) for role in ("system", "user", "assistant")}

_THOUGHT = ("<think>\n", "\n</think>\n\n")
"""The tags of families that were trained with empty thoughts, too."""

_TAGS_OF_USER_RESULTS = {**_TAGS, "tool": _turn("user")}
"""Results of tools are turns of the user."""


def _tool_response(result: Turn, _: ConversationView) -> str:
    return f"<tool_response>\n{result.content}\n</tool_response>"


# ----------------------------------------------------------------- Nemotron Nano of Nvidia


def _nemotron_system(view: ConversationView) -> str:
    tools = CALLS_ARE_XML.format(tools=xml_elements(view, spaced))
    return with_tools(view, tools) or ""


def _nemotron_assistant(*, omitted: str) -> WriteTurn:
    """``omitted`` replaces past thoughts before content, which are not shown."""

    def thoughts(turn: Turn, _: ConversationView) -> str:
        if not turn.thinking:
            return "<think></think>"
        if turn.is_after_query:
            return f"<think>\n{turn.thinking}\n</think>" + ("\n" if turn.content.strip() else "")
        return "<think></think>" if turn.calls else omitted

    def text(turn: Turn, _: ConversationView) -> str:
        return turn.content.strip() + ("\n" if turn.calls else "")

    return assistant_turn(
        thoughts=thoughts, text=text, call=xml_call, between="\n", around=("", "\n")
    )


_NEMOTRON = RendererSpec(
    tags=_TAGS_OF_USER_RESULTS,
    system=_nemotron_system,
    assistant=_nemotron_assistant(omitted="<think></think>\n"),
    result=lambda turn, view: f"{_tool_response(turn, view)}\n",
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

    def system(view: ConversationView) -> str:
        return introduction if view.system is None else f"{view.system} {_NO_TOOLS}"

    return replace(
        _olmo(system, begun_thought(_OLMO_THOUGHT)),
        opening=("<think>", "<think>"),
        thought=_OLMO_THOUGHT,
    )


def _olmo(system: Callable[[ConversationView], str], thoughts: WriteTurn = nothing) -> RendererSpec:
    return RendererSpec(
        tags={**_TAGS, "tool": _turn("environment")},
        each_result_is_a_turn=True,
        system=system,
        assistant=assistant_turn(
            thoughts=thoughts,
            call=python_call,
            between="\n",
            around=("<function_calls>", "</function_calls>"),
        ),
    )


# ----------------------------------------------------------------- LFM2 of Liquid AI

_CALL, _CALL_END = "<|tool_call_start|>[", "]<|tool_call_end|>"


def _lfm2_system(view: ConversationView) -> str | None:
    listed = spaced([tool.function for tool in view.tools])
    tools = f"List of tools: <|tool_list_start|>{listed}<|tool_list_end|>"
    return with_tools(view, tools, gap="\n")


def _lfm2_assistant(turn: Turn, _: ConversationView) -> str:
    """Content comes after calls, on a line of its own."""
    calls = ",".join(python_call(call, comma=",") for call in turn.calls)
    called = [f"{_CALL}{calls}{_CALL_END}"] if turn.calls else []
    return "\n".join(called + ([turn.content] if turn.content else []))


def _lfm2_thinking_assistant(turn: Turn, view: ConversationView) -> str:
    thought = f"<think>{turn.thinking}</think>" if turn.thinking else ""
    return thought + _lfm2_assistant(turn, view)


_LFM2 = RendererSpec(
    start="<|startoftext|>",
    tags={**_TAGS, "tool": _turn("tool")},
    each_result_is_a_turn=True,
    system=_lfm2_system,
    assistant=_lfm2_assistant,
    result=lambda turn, _: f"<|tool_response_start|>{turn.content}<|tool_response_end|>",
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
    return with_tools(view, CALLS_ARE_JSON.format(tools=json_lines(view)))


def _tools_first(view: ConversationView) -> str | None:
    listed = CALLS_ARE_XML.format(tools=json_lines(view)) if view.tools else ""
    parts = [part for part in (listed, (view.system or "").strip()) if part]
    return None if view.system is None and not parts else "\n\n".join(parts)


def _with_effort(view: ConversationView) -> str | None:
    effort = "xhigh" if view.think in {None, "high", "max"} else str(view.think)
    instruction = _EFFORTS.get(effort) if view.thinks else None
    parts = [part for part in (instruction, _tools_first(view)) if part is not None]
    return "\n\n".join(parts) if parts else None


def _thought(turn: Turn, _: ConversationView) -> str:
    return turn.thinking.strip().join(_THOUGHT)


def _recent_thought_if_any(turn: Turn, view: ConversationView) -> str:
    shown = view.thinks and turn.is_after_query and (turn.thinking or turn.is_open)
    return _thought(turn, view) if shown else ""


def _recent_thought(turn: Turn, view: ConversationView) -> str:
    return _thought(turn, view) if view.thinks and turn.is_after_query else ""


def _vision(*, thinks_unasked: bool) -> RendererSpec:
    return RendererSpec(
        tags=_TAGS_OF_USER_RESULTS,
        system=_vision_system,
        assistant=assistant_turn(
            thoughts=_recent_thought_if_any, gap="\n", call=json_call, between="\n"
        ),
        result=_tool_response,
        between_results="\n",
        opening=("<think>\n", ""),
        thought=_THOUGHT if thinks_unasked else None,
        thinks_unasked=thinks_unasked,
    )


def _qwen_turn(thoughts: WriteTurn) -> WriteTurn:
    return assistant_turn(thoughts=thoughts, text=stripped, gap="\n\n", call=xml_call, between="\n")


_THINK: Switch = ("<think>\n", "<think>\n\n</think>\n\n")

_QWEN_3_5 = RendererSpec(
    tags=_TAGS_OF_USER_RESULTS,
    system=_tools_first,
    user=stripped,
    assistant=_qwen_turn(_recent_thought),
    result=_tool_response,
    between_results="\n",
    opening=_THINK,
    thought=_THOUGHT,
    thinks_unasked=True,
)
_ORNITH = replace(_QWEN_3_5, assistant=_qwen_turn(_thought))


RENDERERS = {
    "qwen3-coder": RendererSpec(
        tags=_TAGS_OF_USER_RESULTS,
        system=_coder_system,
        assistant=assistant_turn(gap="\n", call=xml_call, between="\n", around=("\n", "")),
        result=_tool_response,
        between_results="\n",
    ),
    "qwen3-vl-instruct": _vision(thinks_unasked=False),
    "qwen3-vl-thinking": _vision(thinks_unasked=True),
    "qwen3.5": _QWEN_3_5,
    "qwen3.8": replace(_ORNITH, system=_with_effort, gathers_system=True),
    "ornith": _ORNITH,
    "nemotron-3-nano": _NEMOTRON,
    "nemotron-3.5-nano": replace(
        _NEMOTRON, assistant=_nemotron_assistant(omitted="<think></think>")
    ),
    "olmo3": _olmo_instruct("You are a helpful function-calling AI assistant."),
    "olmo3.1": _olmo_instruct(_OLMO),
    "olmo3-think": _olmo_thinker(_OLMO),
    "olmo3-32b-think": _olmo_thinker("You are a helpful AI assistant."),
    "lfm2": _LFM2,
    "lfm2-thinking": replace(
        _LFM2, assistant=_lfm2_thinking_assistant, thought=("<think>", "</think>")
    ),
}
