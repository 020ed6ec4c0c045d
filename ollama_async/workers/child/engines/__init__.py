"""Engines: what can run a model. Each is a file with a class of :class:`.engine.Engine`."""

from __future__ import annotations

import msgspec

from ollama_async.core.errors import LoadFailed
from ollama_async.core.settings import Settings
from ollama_async.workers.child.engines.engine import Engine, Progress
from ollama_async.workers.load_spec import LoadSpec


def open_engine(spec: LoadSpec, settings: Settings, progress: Progress) -> Engine:
    """Load ``spec.model`` with ``spec.engine``. Blocks.

    Engines are imported on demand, because importing one takes longer than starting a worker.

    :raises LoadFailed: the engine is unknown or unusable here, or the model cannot be loaded.
    """
    if spec.engine == "llama_cpp":
        return _open_llama_cpp(spec, settings, progress)
    if spec.engine == "scripted":
        from ollama_async.workers.child.engines import scripted  # noqa: PLC0415

        return scripted.load(spec, settings.scripts, progress)
    raise LoadFailed(f"unknown engine {spec.engine!r}")


def _open_llama_cpp(spec: LoadSpec, settings: Settings, progress: Progress) -> Engine:
    """The library is checked in another process first: a bad one would crash this one."""
    from ollama_async.native import check  # noqa: PLC0415

    verdict = check.check_library(settings.cache_dir)
    if verdict.kind == "unusable":
        raise LoadFailed(verdict.reason)
    try:
        from ollama_async.workers.child.engines import llama_cpp  # noqa: PLC0415
    except (ImportError, OSError, RuntimeError) as reason:
        raise LoadFailed(f"the engine library cannot be loaded: {reason}") from reason
    engine = llama_cpp.load(spec, progress, safe=verdict.kind == "safe")
    if verdict.reason:
        warnings = (*engine.facts.warnings, verdict.reason)
        engine.facts = msgspec.structs.replace(engine.facts, warnings=warnings)
    return engine
