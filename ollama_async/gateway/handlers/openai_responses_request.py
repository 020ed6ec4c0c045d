"""Requests for ``/v1/responses`` in Ollama's terms.

As in Ollama, an absent ``temperature`` is 1, and an absent ``top_p`` the model's. A conversation
that is too long is shortened unless ``truncation`` is ``disabled``. What the server cannot do is a
400 that names it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from ollama_async.api import encode, ollama
from ollama_async.api import openai_responses as api
from ollama_async.api.decode import has_large_images
from ollama_async.core.errors import BadRequest, ConversationNotHeld
from ollama_async.gateway.handlers.generation import Call
from ollama_async.gateway.handlers.openai_items import read_items, read_stored, write_input
from ollama_async.gateway.handlers.openai_messages import read_format, think_of
from ollama_async.gateway.handlers.openai_responses_tools import choose_tools, read_tools
from ollama_async.gateway.job_builder import Extras
from ollama_async.gateway.response_formats.openai_responses import (
    InputTokensFormat,
    Keep,
    OpenAIResponsesFormat,
    new_id,
)
from ollama_async.gateway.response_store import (
    ITEMS_LIMIT,
    RESPONSE_LIMIT_BYTES,
    Owner,
    ResponseStore,
    StoredResponse,
)

REPEATED_LIMIT_BYTES = 1 << 20
"""Of what a response repeats of its request. A stream repeats it three times, on the event loop."""

_TRUNCATIONS = ("auto", "disabled")
_SUMMARIES = ("auto", "concise", "detailed")
_VERBOSITIES = ("low", "medium", "high")
_NAMES = ("user", "safety_identifier", "prompt_cache_key")
_NAME_CHARACTERS = 512
_UNSUPPORTED = ("conversation", "prompt", "context_management")
_SHOWN_CHARACTERS = 80  # of a value that is refused


class VisibleResponses(msgspec.Struct, frozen=True):
    """The stored responses that one client may use."""

    store: ResponseStore
    owner: Owner

    def previous(self, params: api.ResponsesRequest) -> list[StoredResponse]:
        """The turns of the response that the request continues, oldest first.

        :raises ConversationNotHeld: there is none.
        """
        if not params.previous_response_id:
            return []
        found = self.store.get(self.owner, params.previous_response_id)
        if found is None:
            shown = params.previous_response_id[:_SHOWN_CHARACTERS]
            raise ConversationNotHeld(f"Previous response with id '{shown}' not found.")
        return found.turns()

    def referenced(self, params: api.ResponsesRequest) -> dict[str, StoredResponse]:
        """By the ids of items: the responses that have the items to which the request refers.

        :raises BadRequest: there is none.
        """
        items = params.input if isinstance(params.input, list) else []
        return {item.id: self._response_of(item.id) for item in items if _is_reference(item)}

    def _response_of(self, item_id: str) -> StoredResponse:
        found = self.store.find_item(self.owner, item_id)
        if found is None:
            raise BadRequest(f"Item with id '{item_id[:_SHOWN_CHARACTERS]}' not found.")
        return found

    def bytes_of(self, params: api.ResponsesRequest) -> int:
        """What a translation reads of them. :raises BadRequest: one is missing."""
        used = [*self.previous(params), *self.referenced(params).values()]
        return sum({response.id: response.size for response in used}.values())


def _is_reference(item: api.InputItem) -> bool:
    return item.type == "item_reference" or (item.id != "" and item.kind == "")


def translate(visible: VisibleResponses, params: api.ResponsesRequest) -> Call:
    turns = visible.previous(params)
    added = _added_items(visible, params)
    functions, tools = read_tools(params.tools)
    response = _response(params, tools)
    request, extras = _request(params, turns, added, functions)
    keep = None
    if params.store is not False and not has_large_images(request.messages):
        keep = _keep(visible, response, added, turns)
    response.store = keep is not None
    return Call(
        requests=[request],
        response_format=OpenAIResponsesFormat(response, is_streamed=params.stream, keep=keep),
        is_streamed=params.stream,
        extras=extras,
    )


def translate_count(visible: VisibleResponses, params: api.ResponsesRequest) -> Call:
    functions, tools = read_tools(params.tools)
    turns, added = visible.previous(params), _added_items(visible, params)
    request, extras = _request(params, turns, added, functions)
    return Call(
        requests=[request],
        response_format=InputTokensFormat(_response(params, tools), is_streamed=False),
        is_streamed=False,
        extras=msgspec.structs.replace(extras, counts_only=True),
    )


def _request(
    params: api.ResponsesRequest,
    turns: Sequence[StoredResponse],
    added: Sequence[api.InputItem],
    functions: list[dict[str, Any]],
) -> tuple[ollama.ChatRequest, Extras]:
    _refuse_unsupported(params)
    functions, tool_choice = choose_tools(params.tool_choice, functions)
    request = ollama.ChatRequest(
        model=params.model,
        messages=_messages(params, turns, added),
        tools=functions,
        format=_format(params.text),
        options=_options(params),
        think=think_of(params.reasoning.effort if params.reasoning else None),
        truncate=params.truncation != "disabled",
        logprobs=api.LOGPROBS in params.include,
        top_logprobs=params.top_logprobs,
    )
    extras = Extras(
        tool_choice=tool_choice, parallel_tool_calls=params.parallel_tool_calls is not False
    )
    return request, extras


def _refuse_unsupported(params: api.ResponsesRequest) -> None:
    """:raises BadRequest: names what cannot be done, or is none of OpenAI's values."""
    for name in _UNSUPPORTED:
        if getattr(params, name) is not None:
            raise BadRequest(f"{name} is not supported")
    if params.background:
        raise BadRequest("background is not supported: responses end with their connection")
    _check_word("truncation", params.truncation, _TRUNCATIONS)
    if params.reasoning is not None:
        _check_word("reasoning.summary", params.reasoning.summary, _SUMMARIES)
    if params.text is not None:
        _check_word("text.verbosity", params.text.verbosity, _VERBOSITIES)
    for each in params.include:
        if each not in api.INCLUDABLE:
            shown = each[:_SHOWN_CHARACTERS]
            raise BadRequest(f"include: {shown!r} is not one of {', '.join(api.INCLUDABLE)}")
    _check_metadata(params.metadata)
    for name in _NAMES:
        if len(getattr(params, name) or "") > _NAME_CHARACTERS:
            raise BadRequest(f"{name} has at most {_NAME_CHARACTERS} characters")


def _check_word(name: str, value: str | None, words: Sequence[str]) -> None:
    if value is not None and value not in words:
        raise BadRequest(f"{name} must be one of {', '.join(words)}")


def _check_metadata(metadata: dict[str, str]) -> None:
    """OpenAI's limits, since it is stored."""
    if len(metadata) > api.METADATA_LIMIT:
        raise BadRequest(f"metadata: at most {api.METADATA_LIMIT} pairs are stored")
    for key, value in metadata.items():
        if len(key) > api.METADATA_KEY_CHARACTERS or len(value) > api.METADATA_VALUE_CHARACTERS:
            raise BadRequest(
                f"metadata: keys have at most {api.METADATA_KEY_CHARACTERS} characters,"
                f" values {api.METADATA_VALUE_CHARACTERS}"
            )


def _added_items(visible: VisibleResponses, params: api.ResponsesRequest) -> list[api.InputItem]:
    """The items of the request, with those to which it refers in their place."""
    if isinstance(params.input, str):
        return [api.InputItem(type="message", role="user", content=params.input)]
    responses = {each.id: each for each in visible.referenced(params).values()}  # each read once
    stored = {item.id: item for each in responses.values() for item in read_stored(each)}
    return [stored[item.id] if _is_reference(item) else item for item in params.input or ()]


def _messages(
    params: api.ResponsesRequest, turns: Sequence[StoredResponse], added: Sequence[api.InputItem]
) -> list[ollama.Message]:
    """The instructions, which hold for this request only, and the conversation.

    :raises BadRequest: there is nothing to answer.
    """
    messages = read_items([item for turn in turns for item in read_stored(turn)], added)
    if not messages:
        raise BadRequest('One of "input" or "previous_response_id" must be provided.')
    if params.instructions:
        messages.insert(0, ollama.Message(role="system", content=params.instructions))
    return messages


def _format(text: api.TextConfig | None) -> dict[str, Any] | str | None:
    if text is None or text.format is None:
        return None
    return read_format(text.format.type, text.format.schema, "text.format")


def _options(params: api.ResponsesRequest) -> dict[str, Any]:
    if params.max_output_tokens is not None and params.max_output_tokens < 1:
        raise BadRequest("max_output_tokens must be at least 1")
    given = {"top_p": params.top_p, "num_predict": params.max_output_tokens}
    chosen = {name: value for name, value in given.items() if value is not None}
    return {"temperature": _or(params.temperature, 1.0), **chosen}


# --------------------------------------------------------------------------- responses


def _response(params: api.ResponsesRequest, tools: list[api.AnswerTool]) -> api.Response:
    """What is known before the model begins. What is too large is not repeated."""
    reasoning = None
    if params.reasoning is not None:
        reasoning = api.AnswerReasoning(params.reasoning.effort, params.reasoning.summary)
    response = api.Response(
        id=new_id("resp"),
        created_at=int(time.time()),
        status="in_progress",
        model=params.model,
        previous_response_id=params.previous_response_id or None,
        instructions=params.instructions or None,
        output=[],
        tools=tools,
        tool_choice=_shown_choice(params.tool_choice),
        parallel_tool_calls=params.parallel_tool_calls is not False,
        max_tool_calls=params.max_tool_calls,
        max_output_tokens=params.max_output_tokens,
        truncation=params.truncation or "auto",
        text=_shown_text(params.text),
        reasoning=reasoning,
        temperature=_or(params.temperature, 1.0),
        top_p=_or(params.top_p, 1.0),
        top_logprobs=params.top_logprobs,
        store=False,
        metadata=params.metadata,
        user=params.user,
        safety_identifier=params.safety_identifier,
        prompt_cache_key=params.prompt_cache_key,
    )
    if len(encode.to_json(response)) > REPEATED_LIMIT_BYTES:
        response.instructions, response.tools = None, []
        response.tool_choice, response.text = "auto", _shown_text(None)
    return response


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _shown_choice(choice: str | api.ToolChoice | None) -> str | api.ToolChoice:
    if isinstance(choice, api.ToolChoice) and choice.type == "allowed_tools":
        return msgspec.structs.replace(choice, mode=choice.mode or "auto")
    return "auto" if choice is None else choice


def _shown_text(text: api.TextConfig | None) -> api.AnswerText:
    given = (text and text.format) or api.TextFormat()
    fields = {name: getattr(given, name) for name in given.__struct_fields__}
    chosen = {name: value for name, value in fields.items() if value is not None}
    verbosity = text and text.verbosity
    return api.AnswerText(format=api.AnswerFormat(**chosen), verbosity=verbosity or UNSET)


def _keep(
    visible: VisibleResponses,
    response: api.Response,
    added: Sequence[api.InputItem],
    turns: Sequence[StoredResponse],
) -> Keep | None:
    """What stores the response when it is finished; None if it would be too large."""
    written = write_input(added)
    if sum(map(len, written)) > RESPONSE_LIMIT_BYTES - REPEATED_LIMIT_BYTES:
        return None
    ids = [item.id for item in added[-ITEMS_LIMIT:]]

    def keep(answer: bytes, output_ids: list[str]) -> None:
        visible.store.add(
            StoredResponse(
                id=response.id,
                owner=visible.owner,
                answer=answer,
                input=written,
                item_ids=ids + output_ids,
                previous=turns[-1] if turns else None,
            )
        )

    return keep
