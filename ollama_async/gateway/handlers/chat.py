"""``POST /api/chat``: the next turn of a conversation."""

from __future__ import annotations

from time import perf_counter

from aiohttp import web

from ollama_async.api.ollama import ChatRequest
from ollama_async.core.errors import BadRequest
from ollama_async.gateway.body import read_json, work_on
from ollama_async.gateway.client_identity import client_of
from ollama_async.gateway.finding import FINDER
from ollama_async.gateway.handlers.generation import answer, unload
from ollama_async.gateway.job_builder import chat_job, check_chat, check_top_logprobs, turns_bytes
from ollama_async.gateway.response_formats.ollama import OllamaChatFormat, OllamaRenderedChatFormat
from ollama_async.queue.backend import Job
from ollama_async.store.model import Model


async def chat(request: web.Request) -> web.StreamResponse:
    """Without messages the model is loaded; with ``keep_alive`` 0 as well, it is unloaded."""
    began_at = perf_counter()
    asked = await read_json(request, ChatRequest)
    check_top_logprobs(asked)
    if not asked.model.strip():
        raise BadRequest("model is required")
    model = await request.app[FINDER].find(asked.model)
    voice = OllamaChatFormat(asked.model)
    if not asked.messages and asked.keep_alive_s == 0:
        return await unload(request, model, voice)
    added = turns_bytes(model)
    job = await work_on(request, _job, asked, model, client_of(request), added_bytes=added)
    renders_only = asked.debug_render_only and job.inference is not None
    if renders_only:
        voice = OllamaRenderedChatFormat(asked.model)
    is_streamed = asked.is_streaming and not renders_only
    del asked  # the job has what it needs, and may wait for long
    return await answer(request, job, voice, is_streamed=is_streamed, began_at=began_at)


def _job(asked: ChatRequest, model: Model, client: str) -> Job:
    check_chat(asked, model)
    return chat_job(asked, model, client)
