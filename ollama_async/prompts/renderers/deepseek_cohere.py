"""Renderers of DeepSeek 3.1, of Cogito 2.1, which is derived from it, and of Cohere's Command
with ``START_TEXT``: each part of a turn stands between special tokens of its own.
"""

from __future__ import annotations

from ollama_async.core.conversation import ToolFunction
from ollama_async.prompts.renderers.conversation_view import ConversationView, Tool, Turn
from ollama_async.prompts.renderers.renderer_spec import RendererSpec, assistant_turn, begun_thought
from ollama_async.prompts.renderers.tool_texts import compact, indented, spaced

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


def _deepseek_thought(turn: Turn, view: ConversationView) -> str:
    """Only the closing tag of a past thought; after a result the turn continues without one."""
    past = "" if turn.before == "tool" else _THOUGHT[1]
    return begun_thought(_THOUGHT)(turn, view) or past


_deepseek_turn = assistant_turn(
    thoughts=_deepseek_thought,
    call=lambda call: f"{_CALL}{call.name}{_SEPARATOR}{compact(call.arguments)}{_CALL_END}",
    around=(_CALLS, _CALLS_END),
)


def _deepseek_assistant(turn: Turn, view: ConversationView) -> str:
    # The end tag is written before results, too, although the turn continues after them.
    return _deepseek_turn(turn, view) + ("" if turn.is_open else _EOS)


def _cogito_system(view: ConversationView) -> str:
    head = f"Enable deep thinking subroutine.\n\n{_COGITO}" if view.thinks else _COGITO
    if view.system:
        head += f"\n\n{view.system}" + ("\n\n" if view.thinks else "")
    if not view.tools:
        return head
    listed = "".join(f"```json\n{indented(tool.declared)}\n```\n" for tool in view.tools)
    return f"{head}\nYou have the following functions available:\n{listed}"


def _cogito_call(call: ToolFunction) -> str:
    block = f"```json\n{compact(call.arguments)}\n```"
    return f"{_CALL}function{_SEPARATOR}{call.name}\n{block}{_CALL_END}"


def _result(turn: Turn, _: ConversationView) -> str:
    return f"{_RESULT}{turn.content}{_RESULT_END}"


# ----------------------------------------------------------------- Cohere

_TURN, _TURN_END = "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"
_SYSTEM = f"{_TURN}<|SYSTEM_TOKEN|>"
_TEXT, _TEXT_END = "<|START_TEXT|>", "<|END_TEXT|>"
_COHERE_THOUGHT = ("<|START_THINKING|>", "<|END_THINKING|>")
_ACTION, _ACTION_END = "<|START_ACTION|>", "<|END_ACTION|>"
_TOOL_RESULT, _TOOL_RESULT_END = "<|START_TOOL_RESULT|>", "<|END_TOOL_RESULT|>"

# Blanks and empty lines are those of the template that the model was trained with.
_BEFORE_ACTION = "\n            \n                "
_AFTER_SYSTEM = "\n\n\n\n"

_ONE_RESULT = """\
    {{
        "tool_call_id": "{number}",
        "results": {{

            
            "0": {{"content": {content}}}

        }},
        "is_error": null
    }}"""  # noqa: W293


def _cohere_system(view: ConversationView) -> str:
    listed = ",\n\n".join(f"\n    {_tool(tool)}" for tool in view.tools)
    tools = f"# Available Tools\n```json\n[\n{listed}\n\n\n]\n```"
    return view.system + _AFTER_SYSTEM + tools if view.system else tools


def _tool(tool: Tool) -> str:
    known = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return spaced({**known, "responses": None})


def _cohere_assistant(turn: Turn, _: ConversationView) -> str:
    if not turn.calls:
        thought = turn.thinking.join(_COHERE_THOUGHT) if turn.thinking else ""
        return thought + _TEXT + turn.content + ("" if turn.is_open else _TEXT_END)
    # A turn with calls has no place for content, so it is written as the end of the plan.
    plan = "\n\n".join(part for part in (turn.thinking, turn.content) if part)
    thought = plan.join(_COHERE_THOUGHT) if plan else ""
    calls = ",".join(
        f'\n\n    {{"tool_call_id": "{number}", "tool_name": {spaced(call.name)}, '
        f'"parameters": {spaced(call.arguments)}}}'
        for number, call in enumerate(turn.calls, start=turn.call_number)
    )
    return f"{_BEFORE_ACTION}{thought}{_ACTION}[{calls}\n\n]{_ACTION_END}"


def _cohere_result(turn: Turn, _: ConversationView) -> str:
    return _ONE_RESULT.format(number=turn.call_number, content=spaced(turn.content))


RENDERERS = {
    "deepseek3.1": RendererSpec(
        start=_BOS,
        tags={
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
        tags={
            "system": ("", ""),
            "user": (_USER, ""),
            "assistant": (_ASSISTANT, _EOS),
            "tool": (_RESULTS, _RESULTS_END),
        },
        system=_cogito_system,
        gathers_system=True,
        assistant=assistant_turn(
            thoughts=begun_thought(_COGITO_THOUGHT),
            call=_cogito_call,
            between="\n",
            around=(_CALLS, _CALLS_END),
        ),
        result=_result,
        between_results="\n",
        opening=("<think>\n", ""),
        thought=_COGITO_THOUGHT,
    ),
    "cohere": RendererSpec(
        tags={
            "system": (f"{_SYSTEM}{_TEXT}", f"{_TEXT_END}{_TURN_END}"),
            "user": (f"{_TURN}<|USER_TOKEN|>{_TEXT}", f"{_TEXT_END}{_TURN_END}"),
            "assistant": (f"{_TURN}<|CHATBOT_TOKEN|>", _TURN_END),
            "tool": (f"{_SYSTEM}{_TOOL_RESULT}[\n", f"\n\n]{_TOOL_RESULT_END}{_TURN_END}"),
        },
        system=_cohere_system,
        assistant=_cohere_assistant,
        result=_cohere_result,
        between_results=",\n",
        results_name_calls=True,
        opening=(_COHERE_THOUGHT[0], "".join(_COHERE_THOUGHT)),
        thought=_COHERE_THOUGHT,
        thinks_unasked=True,
    ),
}
