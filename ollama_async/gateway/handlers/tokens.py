"""The tokens of a text, and the text of tokens, as any model has them. Not in Ollama; bodies are
those of its open proposals, with llama.cpp's names as well.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter

from aiohttp import web

from ollama_async.api.ollama import DetokenizeRequest, TokenizeRequest, parse_keep_alive
from ollama_async.core.conversation import Detokenize, Tokenize
from ollama_async.core.errors import BadRequest
from ollama_async.gateway.body import BODY_PROCESSOR, Body
from ollama_async.gateway.handlers.models import find_model
from ollama_async.gateway.job_builder import build_task_job
from ollama_async.gateway.response_formats.ollama import DetokenizeFormat, TokenizeFormat
from ollama_async.gateway.streaming import StreamRequest, send_answer


async def tokenize(request: web.Request) -> web.StreamResponse:
    """Loads the model, which has the tokenizer; computes nothing."""
    return await _respond(request, TokenizeRequest)


async def detokenize(request: web.Request) -> web.StreamResponse:
    """As :func:`tokenize`."""
    return await _respond(request, DetokenizeRequest)


async def _respond(
    request: web.Request, kind: type[TokenizeRequest] | type[DetokenizeRequest]
) -> web.StreamResponse:
    began_at = perf_counter()
    run = request.app[BODY_PROCESSOR].run
    body = Body(request)
    await body.receive(kind)
    params: TokenizeRequest | DetokenizeRequest
    params = await run(body.client, body.size, body.decode, kind)
    task = _task(params)
    if not params.model.strip():
        raise BadRequest("model is required")
    model = await find_model(request.app, params.model)
    keep_alive_s = parse_keep_alive(params.keep_alive)
    build = partial(build_task_job, task, params.options, model, body.client, keep_alive_s)
    job = await run(body.client, body.size, build)
    is_text = isinstance(task, Detokenize)
    response_format = DetokenizeFormat(params.model) if is_text else TokenizeFormat(params.model)
    return await send_answer(
        request,
        StreamRequest(
            jobs=[job], response_format=response_format, is_streamed=False, began_at=began_at
        ),
    )


def _task(params: TokenizeRequest | DetokenizeRequest) -> Tokenize | Detokenize:
    """:raises BadRequest: there is nothing to do it with."""
    if isinstance(params, DetokenizeRequest):
        if params.tokens is None:
            raise BadRequest("tokens is required")
        return Detokenize(params.tokens)
    for text in (params.text, params.content, params.prompt):
        if text is not None:
            return Tokenize(text, params.add_special, params.parse_special)
    raise BadRequest("text is required")
