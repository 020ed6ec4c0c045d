"""Engines: what can run a model. Each is a file with a class of :class:`.engine.Engine`, or of
:class:`.embedding.EmbeddingEngine`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from ollama_async.core.errors import LoadFailed
from ollama_async.core.settings import Settings
from ollama_async.workers.child.engines.embedding import EmbeddingEngine
from ollama_async.workers.child.engines.engine import Engine, Progress
from ollama_async.workers.load_spec import LoadSpec

E = TypeVar("E", Engine, EmbeddingEngine)


def open_engine(spec: LoadSpec, settings: Settings, progress: Progress) -> Engine:
    """Load ``spec.model`` with ``spec.engine``. Blocks.

    Engines are imported on demand, because importing one takes longer than starting a worker.

    :raises LoadFailed: the engine is unknown or unusable here, or the model cannot be loaded.
    """
    if spec.engine == "llama_cpp":
        return _load_llama_cpp(_import_llama_cpp, spec, settings, progress)
    if spec.engine == "scripted":
        from ollama_async.workers.child.engines import scripted  # noqa: PLC0415

        return scripted.load(spec, settings.scripts, progress)
    raise LoadFailed(f"unknown engine {spec.engine!r}")


def open_embedding_engine(
    spec: LoadSpec, settings: Settings, progress: Progress
) -> EmbeddingEngine:
    """As :func:`open_engine`, for a model that embeds or ranks."""
    if spec.engine == "llama_cpp":
        return _load_llama_cpp(_import_llama_embedding, spec, settings, progress)
    if spec.engine == "scripted":
        from ollama_async.workers.child.engines import scripted_embedding  # noqa: PLC0415

        return scripted_embedding.load(spec, settings.scripts, progress)
    raise LoadFailed(f"unknown engine {spec.engine!r}")


def _import_llama_cpp() -> Callable[..., Engine]:
    from ollama_async.workers.child.engines import llama_cpp  # noqa: PLC0415

    return llama_cpp.load


def _import_llama_embedding() -> Callable[..., EmbeddingEngine]:
    from ollama_async.workers.child.engines import llama_embedding  # noqa: PLC0415

    return llama_embedding.load


def _load_llama_cpp(
    import_load: Callable[[], Callable[..., E]],
    spec: LoadSpec,
    settings: Settings,
    progress: Progress,
) -> E:
    """The library is checked in another process first: a bad one would crash this one."""
    from ollama_async.native import check  # noqa: PLC0415

    verdict = check.check_library(settings.cache_dir, kernels=settings.kernels)
    if verdict.kind == "unusable":
        raise LoadFailed(verdict.reason)
    try:
        load = import_load()
        from ollama_async.workers.child.engines import llama_kernels  # noqa: PLC0415
    except (ImportError, OSError, RuntimeError) as reason:
        raise LoadFailed(f"the engine library cannot be loaded: {reason}") from reason
    choice = llama_kernels.choose_kernels(spec, verdict)
    engine: E = load(spec, progress, safe=verdict.kind == "safe", kernels=choice)
    if verdict.reason:
        warnings = (*engine.facts.warnings, verdict.reason)
        engine.facts = msgspec.structs.replace(engine.facts, warnings=warnings)
    return engine
