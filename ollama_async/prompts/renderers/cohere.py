"""Renderer of Cohere's Command models, in the form with ``START_TEXT``."""

from __future__ import annotations

from ollama_async.prompts.renderers.conversation_view import ConversationView, Tool, Turn
from ollama_async.prompts.renderers.renderer_spec import RendererSpec
from ollama_async.prompts.renderers.tool_texts import spaced

_TURN, _TURN_END = "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"
_SYSTEM = f"{_TURN}<|SYSTEM_TOKEN|>"
_TEXT, _TEXT_END = "<|START_TEXT|>", "<|END_TEXT|>"
_THOUGHT = ("<|START_THINKING|>", "<|END_THINKING|>")
_ACTION, _ACTION_END = "<|START_ACTION|>", "<|END_ACTION|>"
_RESULT, _RESULT_END = "<|START_TOOL_RESULT|>", "<|END_TOOL_RESULT|>"

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


def _system(view: ConversationView) -> str:
    listed = ",\n\n".join(f"\n    {_tool(tool)}" for tool in view.tools)
    tools = f"# Available Tools\n```json\n[\n{listed}\n\n\n]\n```"
    return view.system + _AFTER_SYSTEM + tools if view.system else tools


def _tool(tool: Tool) -> str:
    return spaced(
        {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
            "responses": None,
        }
    )


def _assistant(turn: Turn, _: ConversationView) -> str:
    if not turn.calls:
        thought = turn.thinking.join(_THOUGHT) if turn.thinking else ""
        return thought + _TEXT + turn.content + ("" if turn.is_open else _TEXT_END)
    # A turn with calls has no place for content, so it is written as the end of the plan.
    plan = "\n\n".join(part for part in (turn.thinking, turn.content) if part)
    thought = plan.join(_THOUGHT) if plan else ""
    calls = ",".join(
        f'\n\n    {{"tool_call_id": "{number}", "tool_name": {spaced(call.name)}, '
        f'"parameters": {spaced(call.arguments)}}}'
        for number, call in enumerate(turn.calls, start=turn.call_number)
    )
    return f"{_BEFORE_ACTION}{thought}{_ACTION}[{calls}\n\n]{_ACTION_END}"


def _result(turn: Turn, _: ConversationView) -> str:
    return _ONE_RESULT.format(number=turn.call_number, content=spaced(turn.content))


RENDERERS = {
    "cohere": RendererSpec(
        marks={
            "system": (f"{_SYSTEM}{_TEXT}", f"{_TEXT_END}{_TURN_END}"),
            "user": (f"{_TURN}<|USER_TOKEN|>{_TEXT}", f"{_TEXT_END}{_TURN_END}"),
            "assistant": (f"{_TURN}<|CHATBOT_TOKEN|>", _TURN_END),
            "tool": (f"{_SYSTEM}{_RESULT}[\n", f"\n\n]{_RESULT_END}{_TURN_END}"),
        },
        system=_system,
        assistant=_assistant,
        result=_result,
        between_results=",\n",
        results_name_calls=True,
        opening=(_THOUGHT[0], "".join(_THOUGHT)),
        thought=_THOUGHT,
        thinks_unasked=True,
    )
}
