"""``POST /api/chat``: the next turn of a conversation."""

from __future__ import annotations

from time import perf_counter

from aiohttp import web

from ollama_async.api.ollama import ChatRequest
from ollama_async.errors import BadRequest
from ollama_async.gateway.asking import chat_job, check_chat, check_top_logprobs
from ollama_async.gateway.body import read_json
from ollama_async.gateway.client_identity import client_of
from ollama_async.gateway.finding import FINDER
from ollama_async.gateway.handlers.answering import answer, renders_only, unload
from ollama_async.gateway.voices import ChatVoice, RenderedChatVoice


async def chat(request: web.Request) -> web.StreamResponse:
    """Without messages the model is loaded; with ``keep_alive`` 0 as well, it is unloaded."""
    began_at = perf_counter()
    asked = await read_json(request, ChatRequest)
    check_top_logprobs(asked)
    if not asked.model.strip():
        raise BadRequest("model is required")
    model = await request.app[FINDER].find(asked.model)
    voice = ChatVoice(asked.model)
    if not asked.messages and asked.keep_alive_s == 0:
        return await unload(request, model, voice)
    check_chat(asked, model)
    job = chat_job(asked, model, client=client_of(request))
    if renders_only(job):
        voice = RenderedChatVoice(asked.model)
    return await answer(request, asked, job, voice, began_at=began_at)
