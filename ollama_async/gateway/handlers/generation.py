"""What generate and chat share once they know what is asked: unload, or run a job and send it."""

from __future__ import annotations

from aiohttp import web

from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.streaming import (
    FinalAnswer,
    ResponseFormat,
    StreamRequest,
    whole_response,
)
from ollama_async.queue.backend import Job
from ollama_async.store.model import Model


async def unload(request: web.Request, model: Model, voice: ResponseFormat) -> web.Response:
    """Running requests end first; one object even to a client that wants a stream."""
    await request.app[DEPENDENCIES].backend.unload(model.key)
    return whole_response(voice, FinalAnswer.without_answer("unload"))


async def answer(
    request: web.Request,
    job: Job,
    voice: ResponseFormat,
    *,
    is_streamed: bool,
    began_at: float,
) -> web.StreamResponse:
    """A job that only loads is answered with one object, too."""
    ask = StreamRequest(
        job=job,
        voice=voice,
        model=job.target.name,
        is_streamed=is_streamed and job.inference is not None,
        began_at=began_at,
    )
    return await request.app[DEPENDENCIES].streams.answer(request, ask)
