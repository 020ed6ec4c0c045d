"""Every route, in one table: what the application is built from and the documentation lists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from ollama_async.gateway.handlers import (
    blobs,
    chat,
    create,
    generate,
    models,
    push,
    server,
    show,
    transfers,
)


class Route(msgspec.Struct, frozen=True):
    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]


ROUTES: tuple[Route, ...] = (
    Route("GET", "/", server.root),
    Route("HEAD", "/", server.root),
    Route("GET", "/api/version", server.version),
    Route("HEAD", "/api/version", server.version),
    Route("GET", "/api/tags", models.tags),
    Route("HEAD", "/api/tags", models.tags),
    Route("GET", "/api/ps", server.ps),
    Route("POST", "/api/generate", generate.generate),
    Route("POST", "/api/chat", chat.chat),
    Route("HEAD", "/api/blobs/{digest}", blobs.exists),
    Route("POST", "/api/blobs/{digest}", blobs.upload),
    Route("POST", "/api/pull", transfers.pull),
    Route("POST", "/api/push", push.push),
    Route("POST", "/api/create", create.create),
    Route("POST", "/api/show", show.show_model),
    Route("POST", "/api/copy", models.copy),
    Route("DELETE", "/api/delete", models.delete),
    Route("GET", "/metrics", server.metrics),
    Route("GET", "/healthz", server.healthz),
)
