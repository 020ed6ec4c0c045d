"""Anthropic's API: messages, and the number of their tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from ollama_async.api.anthropic import CountTokensRequest, MessagesRequest, Tool, ToolChoice
from ollama_async.api.ollama import ChatRequest
from ollama_async.core.errors import BadRequest, ConversationNotHeld
from ollama_async.gateway.handlers.anthropic_messages import read_messages
from ollama_async.gateway.handlers.generation import Call, GenerationRoute, respond
from ollama_async.gateway.handlers.tool_choice import choose_any, choose_one
from ollama_async.gateway.job_builder import Extras
from ollama_async.gateway.request_ids import REQUEST_ID
from ollama_async.gateway.response_formats.anthropic import AnthropicFormat, TokenCountFormat

_INT32_MAX = 2**31 - 1
_SHOWN_CHARACTERS = 100  # of a name that is refused
_REFUSED = {
    "mcp_servers": "this server runs no tools",
    "container": "this server runs no code",
    "compaction": "this server does not summarize",
}
"""What would change the answer, were it possible."""


async def messages(request: web.Request) -> web.StreamResponse:
    translate = partial(translate_messages, request_id=request[REQUEST_ID])
    return await respond(request, GenerationRoute(kind=MessagesRequest, translate=translate))


async def count_tokens(request: web.Request) -> web.StreamResponse:
    """Loads the model, which has the tokenizer; generates nothing."""
    translate = partial(translate_count, request_id=request[REQUEST_ID])
    return await respond(request, GenerationRoute(kind=CountTokensRequest, translate=translate))


def translate_messages(params: MessagesRequest, *, request_id: str) -> Call:
    """:raises BadRequest: with Ollama's text, in Ollama's order, where it has one."""
    _check_model(params)
    if params.max_tokens <= 0:
        raise BadRequest("max_tokens is required and must be positive")
    stops = params.stop_sequences or []
    options = {
        "num_predict": min(params.max_tokens, _INT32_MAX),
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "stop": stops or None,
    }
    options = {name: value for name, value in options.items() if value is not None}
    request = _chat_request(params, options)
    return Call(
        requests=[request],
        response_format=AnthropicFormat(params.model, stops, request_id),
        is_streamed=bool(params.stream),
        extras=_extras(params.tool_choice, request.tools),
    )


def translate_count(params: CountTokensRequest, *, request_id: str) -> Call:
    _check_model(params)
    request = _chat_request(params, {})
    extras = _extras(params.tool_choice, request.tools)
    return Call(
        requests=[request],
        response_format=TokenCountFormat(params.model, (), request_id),
        is_streamed=False,
        extras=msgspec.structs.replace(extras, counts_only=True),
    )


def _check_model(params: CountTokensRequest) -> None:
    if not params.model.strip():
        raise BadRequest("model is required")


def _chat_request(params: CountTokensRequest, options: dict[str, Any]) -> ChatRequest:
    if not params.messages:
        raise BadRequest("messages is required")
    for field, reason in _REFUSED.items():
        if getattr(params, field):
            raise BadRequest(f"{field}: {reason}")
    if params.thread is not None:
        raise ConversationNotHeld("thread: this server holds no conversations; send all messages")
    return ChatRequest(
        model=params.model,
        messages=read_messages(params.system, params.messages),
        tools=[_function(tool) for tool in params.tools or ()],
        think=_think(params),
        format=_format(params),
        options=options,
    )


def _function(tool: Tool) -> dict[str, Any]:
    """:raises BadRequest: only Anthropic's servers, or its models, know the tool."""
    name = tool.name[:_SHOWN_CHARACTERS]
    if tool.type not in {None, "custom"}:
        kind = str(tool.type)[:_SHOWN_CHARACTERS]
        raise BadRequest(
            f"tool {name!r}: type {kind!r} is not supported, only tools with an input_schema"
        )
    if not tool.name:
        raise BadRequest("tools: a tool has no name")
    if tool.input_schema is None:
        raise BadRequest(f"tool {name!r}: input_schema is required")
    function = {
        "name": tool.name,
        "description": tool.description or "",
        "parameters": tool.input_schema,
    }
    return {"type": "function", "function": function}


def _think(params: CountTokensRequest) -> bool | str | None:
    """None: the model's default, which is to think if it can. A budget cannot be kept."""
    mode = params.thinking.type if params.thinking else None
    if mode == "disabled":
        return False
    effort = params.output_config.effort if params.output_config else None
    if effort is not None:
        return "high" if effort == "xhigh" else effort
    return True if mode == "enabled" else None


def _format(params: CountTokensRequest) -> dict[str, Any] | None:
    config = params.output_config
    chosen = (config.format if config else None) or params.output_format
    return chosen.schema if chosen else None


def _extras(choice: ToolChoice | None, tools: list[dict[str, Any]]) -> Extras:
    """:raises BadRequest: the choice cannot be obeyed."""
    if choice is None:
        return Extras(is_think_optional=True)
    if choice.type == "tool":
        tool_choice = choose_one(tools, choice.name or "")
    else:
        tool_choice = choose_any(tools, "required" if choice.type == "any" else choice.type)
    return Extras(
        tool_choice=tool_choice,
        parallel_tool_calls=not choice.disable_parallel_tool_use,
        is_think_optional=True,
    )
