"""Renderers of Qwen, and of Ornith, which is derived from it."""

from __future__ import annotations

from dataclasses import replace

from ollama_async.prompts.renderers.chatml import CHATML_THOUGHT, RESULTS_OF_USER, tool_response
from ollama_async.prompts.renderers.conversation_view import ConversationView, Turn
from ollama_async.prompts.renderers.renderer_spec import (
    RendererSpec,
    Switch,
    assistant_turn,
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
    xml_call,
    xml_elements,
)

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
        marks=RESULTS_OF_USER,
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
    marks=RESULTS_OF_USER,
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
        marks=RESULTS_OF_USER,
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
}
