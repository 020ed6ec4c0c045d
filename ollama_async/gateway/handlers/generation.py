"""Generates answers for the routes of all protocols: from the HTTP body to jobs.

Here are ``/api/generate`` and ``/api/chat``; other protocols translate their requests to Ollama's
and bring a response format (:class:`Call`). Decoding, the checks and the jobs with their packed
tasks are one call, off the loop when the body is large. A model that is not cached, or that brings
messages of its own, costs a second call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Generic, TypeVar

import msgspec
from aiohttp import web

from ollama_async.api.decode import Images, quoting, restore_images
from ollama_async.api.ollama import ChatRequest, GenerateRequest
from ollama_async.core.conversation import Usage
from ollama_async.core.errors import BadRequest, NotFound, ServerError, TooLarge
from ollama_async.gateway.body import BODY_LIMIT_BYTES, BODY_PROCESSOR, Body
from ollama_async.gateway.client_budgets import BODY_RESERVATION
from ollama_async.gateway.dependencies import DEPENDENCIES, Dependencies
from ollama_async.gateway.handlers.models import check_model_name, find_model
from ollama_async.gateway.job_builder import Extras, build_chat_job, build_generate_job
from ollama_async.gateway.response_formats import FinalAnswer, ResponseFormat
from ollama_async.gateway.response_formats.ollama import OllamaChatFormat, OllamaGenerateFormat
from ollama_async.gateway.responses import json_response
from ollama_async.gateway.streaming import StreamRequest, send_answer
from ollama_async.queue.backend import Finish, Job
from ollama_async.store.model import Model

R = TypeVar("R", bound=msgspec.Struct)

_UNLOADED = FinalAnswer(finish=Finish("unload", Usage(), []))

LOGPROBS_LIMIT = 20
"""Most likely tokens beside each token of an answer."""

_MESSAGE_BYTES = 64
"""What one of the model's own messages costs, as bytes of a body."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request of any protocol in the terms of Ollama's, and how to answer it.

    ``requests``: one for each choice, all for the same model; equal choices may share one, which
    costs the memory of one. ``no_model``: the error if they name none. ``is_streamed``: an answer
    is streamed, unless it only loads the model.
    """

    requests: Sequence[GenerateRequest | ChatRequest]
    response_format: ResponseFormat
    is_streamed: bool
    extras: Extras = Extras()
    no_model: Callable[[], ServerError] = partial(BadRequest, "model is required")

    @property
    def model(self) -> str:
        return self.requests[0].model


class GenerationRoute(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """``translate`` may raise :class:`ServerError`; it runs in a thread if the body is large.

    Images go into the ``images`` of its messages, or of a request. It sees others in place of large
    ones, which are put back into these lists afterwards, so it must not keep copies of them.

    ``extra_bytes``: what its time depends on besides the body, as bytes of a body. If there is any,
    it is a call of its own.
    ``read``: what reads a body that is not JSON, and large images apart.
    """

    kind: type[R]
    translate: Callable[[R], Call]
    extra_bytes: Callable[[R], int] = lambda _: 0
    read: Callable[[Body], tuple[R, Images]] | None = None


async def respond(request: web.Request, route: GenerationRoute[R]) -> web.StreamResponse:
    """Generate what the body asks for."""
    began_at = perf_counter()
    dependencies = request.app[DEPENDENCIES]
    body = Body(request)
    await body.receive(route.kind)
    run = partial(request.app[BODY_PROCESSOR].run, body.client)
    prepared = await run(body.size, _decode_and_prepare, body, route, dependencies, began_at)
    if isinstance(prepared, _Translation):
        prepared = await run(body.size + prepared.extra_bytes, prepared.prepare)
    if isinstance(prepared, Call):
        model = await find_model(request.app, prepared.model)
        size = body.size + _MESSAGE_BYTES * len(model.messages)
        prepared = await run(size, _prepare, prepared, model, body.client, began_at)
    if isinstance(prepared, StreamRequest):
        request[BODY_RESERVATION].reserve(_task_bytes(prepared))
        return await send_answer(request, prepared)
    await dependencies.backend.unload(prepared.key)  # running requests end first
    return json_response(prepared.response_format.whole([_UNLOADED]))


class _UnloadRequest(msgspec.Struct, frozen=True):
    key: str
    response_format: ResponseFormat


class _Translation(msgspec.Struct, frozen=True):
    """A translation whose time depends on more than the body, and what follows it."""

    extra_bytes: int
    prepare: Callable[[], Call | StreamRequest | _UnloadRequest]


def _decode_and_prepare(
    body: Body, route: GenerationRoute[R], dependencies: Dependencies, began_at: float
) -> _Translation | Call | StreamRequest | _UnloadRequest:
    params, images = route.read(body) if route.read else body.decode_apart(route.kind)
    prepare = partial(
        _translate_and_prepare, route, params, images, dependencies, body.client, began_at
    )
    extra_bytes = route.extra_bytes(params)
    return _Translation(extra_bytes, prepare) if extra_bytes else prepare()


def _translate_and_prepare(
    route: GenerationRoute[R],
    params: R,
    images: Images,
    dependencies: Dependencies,
    client: str,
    began_at: float,
) -> Call | StreamRequest | _UnloadRequest:
    """The call itself if its model has to be found first.

    :raises ServerError: in Ollama's order of checks.
    """
    with quoting(images):
        call = route.translate(params)
    if not 0 <= call.requests[0].top_logprobs <= LOGPROBS_LIMIT:
        raise BadRequest(f"top_logprobs must be between 0 and {LOGPROBS_LIMIT}")
    restore_images(call.requests, images)
    if not call.model.strip():
        raise call.no_model()
    check_model_name(call.model, dependencies.settings)
    model = dependencies.catalog.find_cached(call.model)
    if model is None or model.messages:
        return call
    return _prepare(call, model, client, began_at)


def _prepare(
    call: Call, model: Model, client: str, began_at: float
) -> StreamRequest | _UnloadRequest:
    """A job that only loads is answered with one object."""
    request = call.requests[0]
    only_loads = _is_empty(request) and not call.extras.is_completion
    if only_loads and request.keep_alive_s == 0:
        return _UnloadRequest(model.key, call.response_format)
    jobs = _build_jobs(call, model, client)
    return StreamRequest(
        jobs=jobs,
        response_format=call.response_format,
        is_streamed=call.is_streamed and jobs[0].task is not None,
        began_at=began_at,
    )


def _build_jobs(call: Call, model: Model, client: str) -> list[Job]:
    """:raises TooLarge: their tasks together are over the limit."""
    built: dict[int, Job] = {}
    size = 0
    for request in call.requests:
        if id(request) not in built:
            job = built[id(request)] = _build_job(request, model, client, call.extras)
            size += 0 if job.task is None else len(job.task)
            if size > BODY_LIMIT_BYTES:
                raise TooLarge(
                    f"all choices together are over the limit of {BODY_LIMIT_BYTES} bytes"
                )
    return [built[id(request)] for request in call.requests]


def _build_job(
    request: GenerateRequest | ChatRequest, model: Model, client: str, extras: Extras
) -> Job:
    if isinstance(request, ChatRequest):
        return build_chat_job(request, model, client, extras)
    return build_generate_job(request, model, client, extras)


def _task_bytes(params: StreamRequest) -> int:
    """What the tasks of the jobs take in memory; equal choices share one."""
    tasks = {id(job): job.task for job in params.jobs}
    return sum(len(task) for task in tasks.values() if task is not None)


def _is_empty(request: GenerateRequest | ChatRequest) -> bool:
    return not (request.messages if isinstance(request, ChatRequest) else request.prompt)


# Ollama's routes


async def generate(request: web.Request) -> web.StreamResponse:
    """Without a prompt the model is loaded; with ``keep_alive`` 0 as well, it is unloaded."""
    return await respond(request, _GENERATE)


async def chat(request: web.Request) -> web.StreamResponse:
    """Without messages the model is loaded; with ``keep_alive`` 0 as well, it is unloaded."""
    return await respond(request, _CHAT)


def _translate(params: GenerateRequest | ChatRequest) -> Call:
    """A prompt that is only shown is one object."""
    is_chat = isinstance(params, ChatRequest)
    response_format = OllamaChatFormat if is_chat else OllamaGenerateFormat
    renders_only = params.debug_render_only and not _is_empty(params)
    return Call(
        requests=[params],
        response_format=response_format(
            params.model, renders_only=renders_only, image_count=len(images_of(params))
        ),
        is_streamed=params.is_streaming and not renders_only,
        no_model=partial(BadRequest, "model is required")
        if is_chat
        else partial(NotFound, "model '' not found"),
    )


def images_of(request: GenerateRequest | ChatRequest) -> list[bytes]:
    """Those of the request, in order; recordings, too."""
    if isinstance(request, GenerateRequest):
        return request.images
    return [image for message in request.messages for image in message.images]


_GENERATE = GenerationRoute(kind=GenerateRequest, translate=_translate)
_CHAT = GenerationRoute(kind=ChatRequest, translate=_translate)
