"""``/api/generate`` and ``/api/chat``: from the HTTP body to a job, and its answer.

Decoding, the checks and the job with its packed inference are one call, off the loop when the body
is large. A model that is not cached, or that brings messages of its own, costs a second call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Generic, TypeVar

import msgspec
from aiohttp import web

from ollama_async.api.ollama import ChatRequest, GenerateRequest
from ollama_async.core.conversation import Usage
from ollama_async.core.errors import BadRequest, NotFound, ServerError
from ollama_async.gateway.body import BODY_PROCESSOR, Body
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.handlers.models import check_model_name, find_model
from ollama_async.gateway.job_builder import build_chat_job, build_generate_job
from ollama_async.gateway.response_formats import FinalAnswer, ResponseFormat
from ollama_async.gateway.response_formats.ollama import OllamaChatFormat, OllamaGenerateFormat
from ollama_async.gateway.responses import json_response
from ollama_async.gateway.streaming import StreamRequest, send_answer
from ollama_async.queue.backend import Finish, Job
from ollama_async.store.catalog import Catalog
from ollama_async.store.model import Model

R = TypeVar("R", GenerateRequest, ChatRequest)

_UNLOADED = FinalAnswer(finish=Finish("unload", Usage(), []))

_MESSAGE_BYTES = 64
"""What one of the model's own messages costs, as bytes of a body."""


async def generate(request: web.Request) -> web.StreamResponse:
    """Without a prompt the model is loaded; with ``keep_alive`` 0 as well, it is unloaded."""
    return await _respond(request, _GENERATE)


async def chat(request: web.Request) -> web.StreamResponse:
    """Without messages the model is loaded; with ``keep_alive`` 0 as well, it is unloaded."""
    return await _respond(request, _CHAT)


class _Route(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """What differs between the two routes."""

    kind: type[R]
    no_model_error: Callable[[], ServerError]
    is_empty: Callable[[R], bool]
    build_job: Callable[[R, Model, str], Job]
    response_format: Callable[..., ResponseFormat]


_GENERATE = _Route(
    kind=GenerateRequest,
    no_model_error=partial(NotFound, "model '' not found"),
    is_empty=lambda params: not params.prompt,
    build_job=build_generate_job,
    response_format=OllamaGenerateFormat,
)
_CHAT = _Route(
    kind=ChatRequest,
    no_model_error=partial(BadRequest, "model is required"),
    is_empty=lambda params: not params.messages,
    build_job=build_chat_job,
    response_format=OllamaChatFormat,
)


class _UnloadRequest(msgspec.Struct, frozen=True):
    key: str
    response_format: ResponseFormat


async def _respond(request: web.Request, route: _Route[R]) -> web.StreamResponse:
    began_at = perf_counter()
    dependencies = request.app[DEPENDENCIES]
    body = Body(request)
    await body.receive(route.kind)
    run = partial(request.app[BODY_PROCESSOR].run, body.client)
    prepared = await run(
        body.size, _decode_and_prepare, body, route, dependencies.catalog, began_at
    )
    if isinstance(prepared, route.kind):
        model = await find_model(request.app, prepared.model)
        size = body.size + _MESSAGE_BYTES * len(model.messages)
        prepared = await run(size, _prepare, route, prepared, model, body.client, began_at)
    if isinstance(prepared, StreamRequest):
        return await send_answer(request, prepared)
    assert isinstance(prepared, _UnloadRequest)
    await dependencies.backend.unload(prepared.key)  # running requests end first
    return json_response(prepared.response_format.whole(_UNLOADED))


def _decode_and_prepare(
    body: Body, route: _Route[R], catalog: Catalog, began_at: float
) -> R | StreamRequest | _UnloadRequest:
    """The decoded request itself if its model has to be found first.

    :raises ServerError: in Ollama's order of checks.
    """
    params = body.decode(route.kind)
    if not 0 <= params.top_logprobs <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20")
    if not params.model.strip():
        raise route.no_model_error()
    check_model_name(params.model)
    model = catalog.find_cached(params.model)
    if model is None or model.messages:
        return params
    return _prepare(route, params, model, body.client, began_at)


def _prepare(
    route: _Route[R], params: R, model: Model, client: str, began_at: float
) -> StreamRequest | _UnloadRequest:
    """A job that only loads is answered with one object, like one that shows its prompt."""
    if route.is_empty(params) and params.keep_alive_s == 0:
        return _UnloadRequest(model.key, route.response_format(params.model))
    job = route.build_job(params, model, client)
    renders_only = params.debug_render_only and job.inference is not None
    return StreamRequest(
        job=job,
        response_format=route.response_format(params.model, renders_only=renders_only),
        is_streamed=params.is_streaming and not renders_only and job.inference is not None,
        began_at=began_at,
    )
