"""The tools of ``/v1/responses`` as Ollama's, and which of them the model may or must call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ollama_async.api import openai_responses as api
from ollama_async.core.errors import BadRequest
from ollama_async.gateway.handlers.tool_choice import choose_any, choose_one, choose_some

_NAME_CHARACTERS = 256
"""Of a function with its namespace, whose name each of its members repeats."""

_SHOWN_CHARACTERS = 40  # of a value that is refused


def read_tools(
    tools: Sequence[api.Tool],
) -> tuple[list[dict[str, Any]], list[api.AnswerTool]]:
    """The functions as Ollama's tools, and all tools as the response repeats them.

    The members of a namespace get its name before theirs, as in Ollama. A web search is accepted,
    since some clients offer it in every request; without an account there is none, and the model is
    not told of it.

    :raises BadRequest: names a tool that is something else.
    """
    functions: list[dict[str, Any]] = []
    shown: list[api.AnswerTool] = []
    for index, tool in enumerate(tools):
        place = f"tools[{index}]"
        if tool.type == "function":
            functions.append(_function(tool, place))
            shown.append(_shown(tool))
        elif tool.type == "namespace":
            for number, member in enumerate(tool.tools):
                member_place = f"{place}.tools[{number}]"
                if member.type != "function":
                    raise _wrong_tool(member, member_place)
                functions.append(_function(member, member_place, f"{tool.name}."))
            members = [_shown(member) for member in tool.tools]
            shown.append(
                api.NamespaceTool(name=tool.name, description=tool.description, tools=members)
            )
        elif tool.type.startswith("web_search"):
            shown.append(api.WebSearchTool())
        else:
            raise _wrong_tool(tool, place)
    return functions, shown


def _function(tool: api.MemberTool, place: str, prefix: str = "") -> dict[str, Any]:
    if not tool.name:
        raise BadRequest(f"{place}.name is missing")
    if len(prefix) + len(tool.name) > _NAME_CHARACTERS:
        raise BadRequest(f"{place}.name has at most {_NAME_CHARACTERS} characters")
    name = tool.name if tool.name.startswith(prefix) else prefix + tool.name
    function: dict[str, Any] = {"name": name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    return {"type": "function", "function": function}


def _shown(tool: api.MemberTool) -> api.FunctionTool:
    return api.FunctionTool(
        name=tool.name,
        description=tool.description,
        parameters=tool.parameters,
        strict=tool.strict,
    )


def _wrong_tool(tool: api.MemberTool, place: str) -> BadRequest:
    shown = tool.type[:_SHOWN_CHARACTERS]
    return BadRequest(f"{place}: the type {shown!r} is not supported")


def choose_tools(
    choice: str | api.ToolChoice | None, functions: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], str]:
    """The functions of which the model is told, and the choice of a prompt.

    :raises BadRequest: it cannot be obeyed.
    """
    if not isinstance(choice, api.ToolChoice):
        return functions, choose_any(functions, "auto" if choice is None else choice)
    if choice.type == "function":
        return functions, choose_one(functions, choice.name)
    if choice.type == "allowed_tools":
        names = [tool.name for tool in choice.tools]
        return choose_some(functions, names, choice.mode or "auto")
    raise BadRequest("tool_choice: only functions can be named")
