"""Renderers of Gemma 4 and FunctionGemma (Google): calls and results are parts of the model's own
turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ollama_async.core.conversation import ChatFormatSpec, Prompt, ToolFunction
from ollama_async.prompts.output_format import Renderer
from ollama_async.prompts.renderers.conversation_view import (
    ConversationView,
    Tool,
    Turn,
    table,
    text,
)
from ollama_async.prompts.renderers.renderer_spec import (
    RendererSpec,
    assistant_turn,
    stripped,
    with_tools,
)
from ollama_async.prompts.renderers.tool_texts import spaced

_THOUGHT, _THOUGHT_END = "<|channel>thought\n", "<channel|>"
_THINK = "<|think|>\n"

Write = Callable[[Any], str]


def _object(fields: Mapping[str, str | None]) -> str:
    """``{a:…,b:…}`` of the fields that are not None."""
    return "{" + ",".join(f"{key}:{v}" for key, v in fields.items() if v is not None) + "}"


def _writer(quote: str) -> Write:
    """A writer of JSON values in Gemma's syntax, with ``quote`` around text."""

    def write(value: Any) -> str:
        if isinstance(value, str):
            return f"{quote}{value}{quote}"
        if isinstance(value, dict):
            return _object({key: write(value[key]) for key in sorted(value)})
        if isinstance(value, list):
            return f"[{','.join(write(item) for item in value)}]"
        return spaced(value)

    return write


_quote = _writer('<|"|>')
_escape = _writer("<escape>")


def _call(opened: str, closed: str, write: Write) -> Callable[[ToolFunction], str]:
    return lambda call: f"{opened}call:{call.name}{write(call.arguments)}{closed}"


def _declaration(tool: Tool, write: Write, write_schema: Callable[[Mapping[str, Any]], str]) -> str:
    schema = tool.parameters
    parameters = {
        "properties": _properties(schema.get("properties"), write_schema),
        "required": write(schema["required"]) if schema.get("required") else None,
        "type": _type(schema, write),
    }
    fields = {
        "description": write(tool.description),
        "parameters": _object(parameters) if schema else None,
    }
    return f"declaration:{tool.name}{_object(fields)}"


def _type(schema: Mapping[str, Any], write: Write) -> str | None:
    """The type in capitals; several types as a list."""
    kind = schema.get("type")
    if isinstance(kind, list):
        return write([text(one).upper() for one in kind])
    return write(kind.upper()) if isinstance(kind, str) and kind else None


def _properties(properties: Any, write: Callable[[Mapping[str, Any]], str]) -> str | None:
    known = table(properties)
    return _object({key: write(table(known[key])) for key in sorted(known)}) if known else None


def _schema(schema: Mapping[str, Any]) -> str:
    items = table(schema.get("items"))
    description = text(schema.get("description"))
    return _object(
        {
            "description": _quote(description) if description else None,
            "enum": _quote(schema["enum"]) if schema.get("enum") else None,
            "items": _schema(items) if items else None,
            "nullable": "true" if schema.get("nullable") is True else None,
            "properties": _properties(schema.get("properties"), _schema),
            "required": _quote(schema["required"]) if schema.get("required") else None,
            "type": _type(schema, _quote),
        }
    )


def _flat_schema(schema: Mapping[str, Any]) -> str:
    """FunctionGemma writes description and type of each property, always both."""
    description = _escape(text(schema.get("description")))
    return _object({"description": description, "type": _type(schema, _escape)})


def _gemma4_system(view: ConversationView) -> str | None:
    declared = "".join(
        f"<|tool>{_declaration(tool, _quote, _schema)}<tool|>" for tool in view.tools
    )
    if view.system is None and not declared and not view.thinks:
        return None
    return (_THINK if view.thinks else "") + (view.system or "").strip() + declared


def _gemma4_thought(turn: Turn, _: ConversationView) -> str:
    """Only thoughts before a call or a beginning of the answer that is being made."""
    shown = turn.thinking and turn.is_after_query and (turn.calls or turn.is_open)
    return f"{_THOUGHT}{turn.thinking}\n{_THOUGHT_END}" if shown else ""


def _gemma4_result(turn: Turn, _: ConversationView) -> str:
    value = _object({"value": _quote(turn.content)})
    return f"<|tool_response>response:{turn.tool_name}{value}<tool_response|>"


_SMALL = RendererSpec(
    start="<bos>",
    tags={
        "system": ("<|turn>system\n", "<turn|>\n"),
        "user": ("<|turn>user\n", "<turn|>\n"),
        "assistant": ("<|turn>model\n", "<turn|>\n"),
        "tool": ("", ""),
    },
    system=_gemma4_system,
    user=stripped,
    later_system=stripped,
    assistant=assistant_turn(
        thoughts=_gemma4_thought, text=stripped, call=_call("<|tool_call>", "<tool_call|>", _quote)
    ),
    result=_gemma4_result,
    results_name_calls=True,
    content_after_results=True,
    thought=(_THOUGHT, f"\n{_THOUGHT_END}"),
    resuming=(_THOUGHT, ""),
)
_LARGE = replace(_SMALL, opening=("", f"{_THOUGHT}{_THOUGHT_END}"))

_SIZE = re.compile(r"(?<![0-9a-z.])(e?)(\d{1,4})b(?![0-9a-z])")
_LARGE_FROM = 12
_BILLION = 1_000_000_000


class Gemma4:
    """Large or small, by the size in the model's name (``12b``; ``e4b`` is small), else by the
    number of its parameters. Large models need an empty thought to answer without thinking.
    """

    def render(self, prompt: Prompt) -> str:
        return (_LARGE if _is_large(prompt.chat_format) else _SMALL).render(prompt)


def _is_large(spec: ChatFormatSpec) -> bool:
    size = _SIZE.search(spec.name.lower())
    if size is None:
        return spec.parameter_count >= _LARGE_FROM * _BILLION
    return not size[1] and int(size[2]) >= _LARGE_FROM


def _function_system(view: ConversationView) -> str | None:
    """The first turn, which alone is the developer's."""
    declared = "".join(
        f"<start_function_declaration>{_declaration(tool, _escape, _flat_schema)}"
        "<end_function_declaration>"
        for tool in view.tools
    )
    tools = f"You can do function calling with the following functions:{declared}"
    written = with_tools(view, tools, gap="\n")
    return None if written is None else f"<start_of_turn>developer\n{written}<end_of_turn>\n"


def _function_result(turn: Turn, _: ConversationView) -> str:
    value = f"{{{_escape(turn.content)}}}"
    return f"<start_function_response>response:{turn.tool_name}{value}<end_function_response>"


_FUNCTION = RendererSpec(
    start="<bos>",
    tags={
        "system": ("", ""),
        "user": ("<start_of_turn>user\n", "<end_of_turn>\n"),
        "assistant": ("<start_of_turn>model\n", "<end_of_turn>\n"),
        "tool": ("", ""),
    },
    system=_function_system,
    later_system=lambda turn, _: f"<start_of_turn>system\n{turn.content}<end_of_turn>\n",
    assistant=assistant_turn(call=_call("<start_function_call>", "<end_function_call>", _escape)),
    result=_function_result,
    results_name_calls=True,
    resuming=("", ""),
)

RENDERERS: dict[str, Renderer] = {
    "gemma4": Gemma4(),
    "gemma4-small": _SMALL,
    "gemma4-large": _LARGE,
    "functiongemma": _FUNCTION,
}
