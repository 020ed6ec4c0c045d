"""What handlers may use: set by ``build_application``, read as ``request.app[DEPENDENCIES]``."""

from __future__ import annotations

import time

import msgspec
from aiohttp import web

from ollama_async.core.settings import Settings
from ollama_async.gateway.metrics import Metrics
from ollama_async.gateway.response_stream import Flusher
from ollama_async.queue.backend import InferenceBackend
from ollama_async.store.catalog import Catalog


class Lifecycle(msgspec.Struct):
    """Set by the server's owner when it begins to drain; ``/healthz`` tells load balancers."""

    is_draining: bool = False
    started_at: float = msgspec.field(default_factory=time.monotonic)


class Dependencies(msgspec.Struct, frozen=True, kw_only=True):
    """``local_key`` (:mod:`ollama_async.core.local_key`) None: no client may name files."""

    settings: Settings
    catalog: Catalog
    backend: InferenceBackend
    metrics: Metrics
    lifecycle: Lifecycle
    local_key: bytes | None = None
    flusher: Flusher = msgspec.field(default_factory=Flusher)


DEPENDENCIES: web.AppKey[Dependencies] = web.AppKey("dependencies", Dependencies)
