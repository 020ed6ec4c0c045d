"""OpenAI's ``/v1/responses``: its routes, and the responses that are stored."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from aiohttp import web

from ollama_async.api import encode
from ollama_async.api import openai_responses as api
from ollama_async.core.errors import BadRequest, NotFound
from ollama_async.gateway.body import BODY_PROCESSOR
from ollama_async.gateway.handlers.generation import Call, GenerationRoute, respond
from ollama_async.gateway.handlers.openai_items import read_input, read_stored, shown_form
from ollama_async.gateway.handlers.openai_responses_request import (
    VisibleResponses,
    translate,
    translate_count,
)
from ollama_async.gateway.response_store import RESPONSES, StoredResponse, owner_of
from ollama_async.gateway.responses import json_response

_LIST_LIMIT = 100
_LIST_DEFAULT = "20"
_SHOWN_CHARACTERS = 80  # of a value that is refused


async def create(request: web.Request) -> web.StreamResponse:
    """Answer, and store the response unless the client declines."""
    return await respond(request, _route(request, translate))


async def count_input_tokens(request: web.Request) -> web.StreamResponse:
    """Loads the model, which has the tokenizer; generates nothing."""
    return await respond(request, _route(request, translate_count))


def _route(
    request: web.Request, translate: Callable[[VisibleResponses, api.ResponsesRequest], Call]
) -> GenerationRoute[api.ResponsesRequest]:
    visible = VisibleResponses(request.app[RESPONSES], owner_of(request))
    return GenerationRoute(
        kind=api.ResponsesRequest,
        translate=partial(translate, visible),
        extra_bytes=visible.bytes_of,
    )


async def retrieve(request: web.Request) -> web.Response:
    if request.query.get("stream") == "true":
        raise BadRequest("stream: a stored response is retrieved whole")
    return json_response(_requested(request).answer)


async def delete(request: web.Request) -> web.Response:
    """Responses that continue it can still be continued."""
    response = _requested(request)
    request.app[RESPONSES].delete(response.owner, response.id)
    return json_response(encode.to_json(api.DeletedResponse(id=response.id)))


async def cancel(request: web.Request) -> web.Response:
    """Closing its connection cancels a response; those that are stored have ended."""
    _requested(request)
    raise BadRequest("Cannot cancel a synchronous response.")


async def input_items(request: web.Request) -> web.Response:
    """What the model was given, with the turns before."""
    turns = _requested(request).turns()
    run = request.app[BODY_PROCESSOR].run
    size = sum(turn.size for turn in turns)
    return json_response(await run(turns[0].owner.client, size, _list, turns, request.query))


# --------------------------------------------------------------------------- stored responses


def _requested(request: web.Request) -> StoredResponse:
    """The response that the path names. :raises NotFound: this client has none of this id."""
    response_id = request.match_info["id"]
    found = request.app[RESPONSES].get(owner_of(request), response_id)
    if found is None:
        raise NotFound(f"Response with id '{response_id[:_SHOWN_CHARACTERS]}' not found.")
    return found


def _list(turns: Sequence[StoredResponse], query: Mapping[str, str]) -> bytes:
    items = [item for turn in turns[:-1] for item in read_stored(turn)] + read_input(turns[-1])
    if (order := query.get("order", "desc")) not in {"asc", "desc"}:
        raise BadRequest("order must be asc or desc")
    if order == "desc":
        items.reverse()
    limit = query.get("limit", _LIST_DEFAULT)
    if not (re.fullmatch("[0-9]{1,3}", limit) and 1 <= int(limit) <= _LIST_LIMIT):
        raise BadRequest(f"limit must be between 1 and {_LIST_LIMIT}")
    if after := query.get("after"):
        ids = [item.id for item in items]
        if after not in ids:
            raise BadRequest(f"Item with id '{after[:_SHOWN_CHARACTERS]}' not found.")
        items = items[ids.index(after) + 1 :]
    shown = items[: int(limit)]
    return encode.to_json(
        api.InputItemList(
            data=[shown_form(item) for item in shown],
            first_id=shown[0].id if shown else None,
            last_id=shown[-1].id if shown else None,
            has_more=len(shown) < len(items),
        )
    )
