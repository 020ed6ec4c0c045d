"""Renderers of DeepSeek 3.1 and of Cogito 2.1, which is derived from it."""

from __future__ import annotations

from collections.abc import Sequence

from ollama_async.core.conversation import ToolFunction
from ollama_async.prompts.renderers.conversation_view import ConversationView, Turn
from ollama_async.prompts.renderers.renderer_spec import RendererSpec, assistant_turn, begun_thought
from ollama_async.prompts.renderers.tool_texts import compact, indented

_BOS = "<｜begin▁of▁sentence｜>"  # noqa: RUF001  # the token's own letters
_EOS = "<｜end▁of▁sentence｜>"  # noqa: RUF001
_USER = "<｜User｜>"  # noqa: RUF001
_ASSISTANT = "<｜Assistant｜>"  # noqa: RUF001
_SEPARATOR = "<｜tool▁sep｜>"  # noqa: RUF001
_CALLS, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"  # noqa: RUF001
_CALL, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"  # noqa: RUF001
_RESULTS, _RESULTS_END = "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"  # noqa: RUF001
_RESULT, _RESULT_END = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"  # noqa: RUF001
_THOUGHT = ("<think>", "</think>")
_COGITO_THOUGHT = ("<think>\n", "\n</think>\n")

_COGITO = (
    "You are Cogito, an AI assistant created by Deep Cogito, which is an AI research lab based in "
    "San Francisco."
)

_HOW_TO_CALL = f"""\
IMPORTANT: ALWAYS adhere to this exact format for tool use:
{_CALLS}{_CALL}tool_call_name{_SEPARATOR}tool_call_arguments{_CALL_END}\
{{{{additional_tool_calls}}}}{_CALLS_END}

Where:

- `tool_call_name` must be an exact match to one of the available tools
- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces
"""


def _deepseek_system(view: ConversationView) -> str:
    head = view.system or ""
    if not view.tools:
        return head
    listed = "\n".join(
        f"### {tool.name}\nDescription: {tool.description}\n\n"
        f"Parameters: {compact(tool.parameters)}\n"
        for tool in view.tools
    )
    return (
        f"{head}\n\n## Tools\nYou have access to the following tools:\n\n{listed}\n{_HOW_TO_CALL}"
    )


def _deepseek_calls(calls: Sequence[ToolFunction]) -> str:
    inside = "".join(
        f"{_CALL}{call.name}{_SEPARATOR}{compact(call.arguments)}{_CALL_END}" for call in calls
    )
    return f"{_CALLS}{inside}{_CALLS_END}"


def _deepseek_thought(turn: Turn, view: ConversationView) -> str:
    """Only the closing mark of a past thought; after a result the turn continues without one."""
    past = "" if turn.before == "tool" else _THOUGHT[1]
    return begun_thought(_THOUGHT)(turn, view) or past


_deepseek_says = assistant_turn(thoughts=_deepseek_thought, calls=_deepseek_calls)


def _deepseek_assistant(turn: Turn, view: ConversationView) -> str:
    # The end mark is written before results, too, although the turn continues after them.
    return _deepseek_says(turn, view) + ("" if turn.is_open else _EOS)


def _cogito_system(view: ConversationView) -> str:
    head = f"Enable deep thinking subroutine.\n\n{_COGITO}" if view.thinks else _COGITO
    if view.system:
        head += f"\n\n{view.system}" + ("\n\n" if view.thinks else "")
    if not view.tools:
        return head
    listed = "".join(f"```json\n{indented(tool.declared)}\n```\n" for tool in view.tools)
    return f"{head}\nYou have the following functions available:\n{listed}"


def _cogito_calls(calls: Sequence[ToolFunction]) -> str:
    inside = "\n".join(
        f"{_CALL}function{_SEPARATOR}{call.name}\n```json\n{compact(call.arguments)}\n```{_CALL_END}"
        for call in calls
    )
    return f"{_CALLS}{inside}{_CALLS_END}"


def _result(turn: Turn, _: ConversationView) -> str:
    return f"{_RESULT}{turn.content}{_RESULT_END}"


RENDERERS = {
    "deepseek3.1": RendererSpec(
        start=_BOS,
        marks={
            "system": ("", ""),
            "user": (_USER, ""),
            "assistant": (_ASSISTANT, ""),
            "tool": ("", ""),
        },
        system=_deepseek_system,
        gathers_system=True,
        assistant=_deepseek_assistant,
        result=_result,
        opening=_THOUGHT,
        thought=_THOUGHT,
        resuming=("", ""),
    ),
    "cogito": RendererSpec(
        start=_BOS,
        marks={
            "system": ("", ""),
            "user": (_USER, ""),
            "assistant": (_ASSISTANT, _EOS),
            "tool": (_RESULTS, _RESULTS_END),
        },
        system=_cogito_system,
        gathers_system=True,
        assistant=assistant_turn(thoughts=begun_thought(_COGITO_THOUGHT), calls=_cogito_calls),
        result=_result,
        between_results="\n",
        opening=("<think>\n", ""),
        thought=_COGITO_THOUGHT,
    ),
}
