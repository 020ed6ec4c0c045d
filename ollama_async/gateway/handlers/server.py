"""The server's own state: version, loaded models, metrics and health."""

from __future__ import annotations

import time

import msgspec
from aiohttp import web

from ollama_async import OLLAMA_VERSION, __version__
from ollama_async.api import encode, ollama_models
from ollama_async.core.threads import run_in_thread
from ollama_async.gateway.concurrency import SINGLE_FLIGHT
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.metrics import CONTENT_TYPE
from ollama_async.gateway.responses import json_response
from ollama_async.queue.backend import LoadedModel

_DETAILS = ("format", "family", "parameter_size", "quantization_level")
_FOREVER_S = 1e18  # infinity has no whole part


async def root(_request: web.Request) -> web.Response:
    return web.Response(text="Ollama is running")


async def version(_request: web.Request) -> web.Response:
    return json_response(encode.to_json(ollama_models.VersionResponse(OLLAMA_VERSION)))


async def ps(request: web.Request) -> web.Response:
    """Loaded models, the latest expiry first (to the second, as Ollama sorts)."""
    loaded = request.app[DEPENDENCIES].backend.snapshot().loaded
    loaded = sorted(loaded, key=lambda model: -min(model.expires_at, _FOREVER_S) // 1)
    return json_response(
        encode.to_json(ollama_models.ProcessResponse([_row(model) for model in loaded]))
    )


async def metrics(request: web.Request) -> web.Response:
    """Concurrent scrapes share one rendering."""
    dependencies = request.app[DEPENDENCIES]

    async def render() -> bytes:
        return await run_in_thread(dependencies.metrics.render, dependencies.backend.snapshot())

    text = await request.app[SINGLE_FLIGHT].run("metrics", render)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})


async def healthz(request: web.Request) -> web.Response:
    """200 while the process accepts work, 503 once it drains; independent of any model."""
    dependencies = request.app[DEPENDENCIES]
    snapshot = dependencies.backend.snapshot()
    is_draining = dependencies.lifecycle.is_draining
    health = ollama_models.HealthResponse(
        status="draining" if is_draining else "ok",
        version=__version__,
        uptime_s=int(time.monotonic() - dependencies.lifecycle.started_at),
        waiting=snapshot.queued,
        capacity=snapshot.capacity,
        running=sum(snapshot.running.values()),
        models_loaded=len(snapshot.loaded),
        models_loading=snapshot.loading,
    )
    return json_response(encode.to_json(health), status=503 if is_draining else 200)


def _row(model: LoadedModel) -> ollama_models.ProcessModelResponse:
    target = model.target
    details = {"parent_model": "", "families": target.details.get("families")}
    details |= {name: target.details.get(name, "") for name in _DETAILS}
    return ollama_models.ProcessModelResponse(
        name=target.name,
        model=target.name,
        size=model.size,
        digest=target.digest,
        details=msgspec.convert(details, ollama_models.ModelDetails),
        expires_at=encode.local(model.expires_at),
        size_vram=model.size_vram,
        context_length=model.num_ctx,
    )
