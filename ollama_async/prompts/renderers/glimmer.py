"""Renderer of Muse Glimmer: every message has a recipient; the assistant may send several."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime

from ollama_async.core.conversation import ToolFunction
from ollama_async.prompts.renderers.conversation_view import ConversationView, Turn
from ollama_async.prompts.renderers.renderer_spec import RendererSpec
from ollama_async.prompts.renderers.tool_texts import bare, spaced

_START, _MESSAGE = "<|start|>", "<|message|>"
_MESSAGE_END = "<|eom|>"
_TURN_END = "<|eot|>"

_DEFAULT = """\
You are a helpful AI assistant.
Knowledge cutoff: 2026-01-04.
Current date: {today}."""

_TOOLS = """\
In this environment you have access to a set of tools you can use to answer the user's question.

You can invoke a function by writing a "<atem:function_calls>" block like the following:
<atem:function_calls>
<atem:invoke name="$FUNCTION_NAME">
<atem:parameter name="$PARAMETER_NAME">$PARAMETER_VALUE</atem:parameter>
...
</atem:invoke>
</atem:function_calls>

String and scalar parameters should be specified as is, while lists and objects should use JSON \
format. Note that spaces for string values are not stripped. The output is not expected to be \
valid XML and is parsed with regular expressions.
Here are the functions available in JSONSchema format:
// Tool metadata
{namespaces}
// Function schemas
{schemas}

Here's an example of how to call a function in the tool set:
(If the tool namespace is not specified, invoke the function directly as `example_function_name` \
rather than `example_tool_name.example_function_name`)

to=example_tool_name.example_function_name

<atem:function_calls>
<atem:invoke name="example_tool_name.example_function_name">
<atem:parameter name="example_parameter_1">value_1</atem:parameter>
<atem:parameter name="example_parameter_2">This is the value for the second parameter
that can span
"multiple" lines
</atem:parameter>
</atem:invoke>
</atem:function_calls>"""


def local_date() -> date:
    return datetime.now().astimezone().date()


def family(today: Callable[[], date]) -> RendererSpec:
    def system(view: ConversationView) -> str:
        head = _DEFAULT.format(today=today()) if view.system is None else view.system
        return _system(head, view, [_list_tools(view)] if view.tools else [])

    return RendererSpec(
        start="<|begin_of_text|>",
        tags={
            "system": (_to("system"), _TURN_END),
            "user": (_to("user"), _TURN_END),
            "assistant": ("", ""),
            "tool": ("", _TURN_END),
        },
        each_result_is_a_turn=True,
        results_name_calls=True,
        system=system,
        later_system=lambda turn, view: _system(turn.content, view, []),
        assistant=_assistant,
        result=_result,
        opening=(f"{_START}assistant",) * 2,
        thought=(_to("assistant to=self"), f"{_MESSAGE_END}{_START}assistant"),
        thinks_unasked=True,
    )


def _system(head: str, view: ConversationView, middle: list[str]) -> str:
    """``head`` and the end of every system message, with ``middle`` in between."""
    strength = view.think if isinstance(view.think, str) else "high" if view.thinks else "none"
    names_strength = "reasoning strength" in head.lower()
    tools = (f"{namespace}.*" for namespace in _namespaces(view))
    recipients = ", ".join(f'"{name}"' for name in ("self", *tools, "user"))
    end = f"# Valid recipients: {recipients}."
    return "\n\n".join(
        [head, *([] if names_strength else [f"Reasoning strength: {strength}."]), *middle, end]
    )


def _to(address: str) -> str:
    return f"{_START}{address}{_MESSAGE}"


def _list_tools(view: ConversationView) -> str:
    namespaces = [{"name": namespace, "description": ""} for namespace in _namespaces(view)]
    schemas = [
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
        for tool in view.tools
    ]
    return _TOOLS.format(
        namespaces="\n".join(map(spaced, namespaces)), schemas="\n".join(map(spaced, schemas))
    )


def _namespaces(view: ConversationView) -> list[str]:
    """The parts before the first dot of the tools' names, each once."""
    return list(dict.fromkeys(tool.name.partition(".")[0] for tool in view.tools))


def _assistant(turn: Turn, _: ConversationView) -> str:
    messages = []
    if turn.thinking:
        messages.append(_to("assistant to=self") + turn.thinking)
    if turn.content or not turn.calls:
        messages.append(_to("assistant to=user") + turn.content)
    messages += (_to(f"assistant to={call.name}") + _call(call) for call in turn.calls)
    end = _MESSAGE_END if turn.after == "assistant" else _TURN_END
    return _MESSAGE_END.join(messages) + ("" if turn.is_open else end)


def _call(call: ToolFunction) -> str:
    arguments = "".join(
        f'<atem:parameter name="{name}">{bare(value)}</atem:parameter>\n'
        for name, value in call.arguments.items()
    )
    return (
        f'<atem:function_calls>\n<atem:invoke name="{call.name}">\n{arguments}'
        "</atem:invoke>\n</atem:function_calls>"
    )


def _result(turn: Turn, _: ConversationView) -> str:
    output = f'<tool_output name="{turn.tool_name}">\n{turn.content}\n</tool_output>'
    return _to(f"tool {turn.tool_name}") + output


RENDERERS = {"glimmer": family(local_date)}
