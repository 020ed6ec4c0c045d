"""``POST /api/generate``: one prompt, continued or answered."""

from __future__ import annotations

from time import perf_counter

from aiohttp import web

from ollama_async.api.ollama import GenerateRequest
from ollama_async.errors import NotFound
from ollama_async.gateway.asking import check_generate, check_top_logprobs, generate_job
from ollama_async.gateway.body import read_json
from ollama_async.gateway.client_identity import client_of
from ollama_async.gateway.finding import FINDER
from ollama_async.gateway.handlers.answering import answer, renders_only, unload
from ollama_async.gateway.voices import GenerateVoice, RenderedGenerateVoice


async def generate(request: web.Request) -> web.StreamResponse:
    """Without a prompt the model is loaded; with ``keep_alive`` 0 as well, it is unloaded."""
    began_at = perf_counter()
    asked = await read_json(request, GenerateRequest)
    check_top_logprobs(asked)
    if not asked.model.strip():
        raise NotFound("model '' not found")
    model = await request.app[FINDER].find(asked.model)
    voice = GenerateVoice(asked.model)
    if not asked.prompt and asked.keep_alive_s == 0:
        return await unload(request, model, voice)
    check_generate(asked, model)
    job = generate_job(asked, model, client=client_of(request))
    if renders_only(job):
        voice = RenderedGenerateVoice(asked.model)
    return await answer(request, asked, job, voice, began_at=began_at)
