"""Qwen, and Ornith, which is made from it."""

from __future__ import annotations

from dataclasses import replace

from ollama_async.prompts.renderers import chatml, tool_texts
from ollama_async.prompts.renderers.conversation_view import Talk, Turn
from ollama_async.prompts.renderers.json_text import compact
from ollama_async.prompts.renderers.renderer_spec import (
    Family,
    Switch,
    speaking,
    stripped,
    with_tools,
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
"""In the words that the model was trained on. The effort between them has none."""


def _coder_system(talk: Talk) -> str | None:
    if not talk.tools:
        return talk.system
    return f"{talk.system or _CODER}\n\n" + tool_texts.CALLS_ARE_XML.format(
        tools=tool_texts.xml(talk, compact)
    )


def _vision_system(talk: Talk) -> str | None:
    return with_tools(
        talk.system,
        lambda talk: tool_texts.CALLS_ARE_JSON.format(tools=tool_texts.json_lines(talk)),
        talk,
    )


def _tools_first(talk: Talk) -> str | None:
    listed = (
        tool_texts.CALLS_ARE_XML.format(tools=tool_texts.json_lines(talk)) if talk.tools else ""
    )
    parts = [part for part in (listed, (talk.system or "").strip()) if part]
    return None if talk.system is None and not parts else "\n\n".join(parts)


def _with_effort(talk: Talk) -> str | None:
    parts = [part for part in (_effort(talk), _tools_first(talk)) if part is not None]
    return "\n\n".join(parts) if parts else None


def _effort(talk: Talk) -> str | None:
    if not talk.thinks:
        return None
    if talk.think is None or talk.think in {"high", "max"}:
        return _EFFORTS["xhigh"]
    return _EFFORTS.get(str(talk.think))


def _thought(turn: Turn, _: Talk) -> str:
    return turn.thinking.strip().join(chatml.THOUGHT)


def _recent_thought_if_any(turn: Turn, talk: Talk) -> str:
    shown = talk.thinks and turn.is_after_query and (turn.thinking or turn.is_open)
    return _thought(turn, talk) if shown else ""


def _recent_thought(turn: Turn, talk: Talk) -> str:
    return _thought(turn, talk) if talk.thinks and turn.is_after_query else ""


def _vision(*, thinks_unasked: bool) -> Family:
    return Family(
        marks=chatml.RESULTS_OF_USER,
        system=_vision_system,
        assistant=speaking(
            thoughts=_recent_thought_if_any,
            gap="\n",
            calls=tool_texts.joined(tool_texts.json_call, "\n"),
        ),
        result=chatml.tool_response,
        between_results="\n",
        opening=("<think>\n", ""),
        thought=chatml.THOUGHT if thinks_unasked else None,
        thinks_unasked=thinks_unasked,
    )


_THINK: Switch = ("<think>\n", "<think>\n\n</think>\n\n")
_CALLS = tool_texts.joined(tool_texts.xml_call, "\n")

_QWEN_3_5 = Family(
    marks=chatml.RESULTS_OF_USER,
    system=_tools_first,
    user=stripped,
    assistant=speaking(thoughts=_recent_thought, words=stripped, gap="\n\n", calls=_CALLS),
    result=chatml.tool_response,
    between_results="\n",
    opening=_THINK,
    thought=chatml.THOUGHT,
    thinks_unasked=True,
)
_ORNITH = replace(
    _QWEN_3_5, assistant=speaking(thoughts=_thought, words=stripped, gap="\n\n", calls=_CALLS)
)

FAMILIES = {
    "qwen3-coder": Family(
        marks=chatml.RESULTS_OF_USER,
        system=_coder_system,
        assistant=speaking(gap="\n", calls=lambda calls: f"\n{_CALLS(calls)}"),
        result=chatml.tool_response,
        between_results="\n",
    ),
    "qwen3-vl-instruct": _vision(thinks_unasked=False),
    "qwen3-vl-thinking": _vision(thinks_unasked=True),
    "qwen3.5": _QWEN_3_5,
    "qwen3.8": replace(_ORNITH, system=_with_effort, gathers_system=True),
    "ornith": _ORNITH,
}
