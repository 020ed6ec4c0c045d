"""The server about itself: alive, version, what is loaded, numbers."""

from __future__ import annotations

import time

from aiohttp import web

from ollama_async import OLLAMA_VERSION, __version__
from ollama_async.api import encode, ollama
from ollama_async.core.threads import run_in_thread
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.metrics import CONTENT_TYPE
from ollama_async.gateway.responses import JSON_TYPE
from ollama_async.gateway.single_flight import FLIGHTS
from ollama_async.queue.backend import LoadedModel

FOREVER_S = 1e18  # infinity has no whole part


def json_response(value: object, status: int = 200) -> web.Response:
    return web.Response(
        body=encode.to_json(value), status=status, headers={"Content-Type": JSON_TYPE}
    )


async def root(_request: web.Request) -> web.Response:
    return web.Response(text="Ollama is running")


async def version(_request: web.Request) -> web.Response:
    return json_response(ollama.VersionResponse(OLLAMA_VERSION))


async def ps(request: web.Request) -> web.Response:
    """Loaded models, the one that stays longest first (to the second, as Ollama sorts)."""
    loaded = request.app[DEPENDENCIES].backend.snapshot().loaded
    loaded = sorted(loaded, key=lambda model: -min(model.expires_at, FOREVER_S) // 1)
    return json_response(ollama.ProcessResponse([_row(model) for model in loaded]))


async def metrics(request: web.Request) -> web.Response:
    """All who ask at once share one text."""
    rooms = request.app[DEPENDENCIES]

    async def render() -> bytes:
        return await run_in_thread(rooms.metrics.render, rooms.backend.snapshot())

    text = await request.app[FLIGHTS].ask("metrics", render)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})


async def healthz(request: web.Request) -> web.Response:
    """200 while the process takes work, 503 once it drains. It says nothing about any model."""
    rooms = request.app[DEPENDENCIES]
    snapshot = rooms.backend.snapshot()
    is_draining = rooms.lifecycle.is_draining
    facts = {
        "status": "draining" if is_draining else "ok",
        "version": __version__,
        "uptime_s": int(time.monotonic() - rooms.lifecycle.started_at),
        "waiting": snapshot.waiting,
        "capacity": snapshot.capacity,
        "running": sum(snapshot.running.values()),
        "models_loaded": len(snapshot.loaded),
        "models_loading": snapshot.loading,
    }
    return json_response(facts, status=503 if is_draining else 200)


def _row(model: LoadedModel) -> ollama.ProcessModelResponse:
    target = model.target
    return ollama.ProcessModelResponse(
        name=target.name,
        model=target.name,
        size=model.size,
        digest=target.digest,
        details=ollama.ModelDetails(
            parent_model="",
            format=str(target.details.get("format", "")),
            family=str(target.details.get("family", "")),
            families=_strings(target.details.get("families")),
            parameter_size=str(target.details.get("parameter_size", "")),
            quantization_level=str(target.details.get("quantization_level", "")),
        ),
        expires_at=encode.local(model.expires_at),
        size_vram=model.size_vram,
        context_length=model.num_ctx,
    )


def _strings(value: object) -> list[str] | None:
    return [str(each) for each in value] if isinstance(value, list) else None
