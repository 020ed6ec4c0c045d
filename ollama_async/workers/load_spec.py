"""The load spec: what a worker loads and how, passed to the child as an argv."""

from __future__ import annotations

import msgspec

from ollama_async.core.model_shape import EmbeddingKind

DEFAULT_BATCH = 512
"""Tokens of one engine step at most, Ollama's ``num_batch``."""


class ResourceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a worker. ``memory_bytes``: private memory, without mapped files; 0 = no limit."""

    slots: int = 1 << 10
    num_ctx: int = 1 << 24
    memory_bytes: int = 0


class LoadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """``model``: a GGUF's path, or for the scripted engine a name in its file of scripts.
    ``num_ctx``: tokens per slot. ``threads``: 0 = every core that affinity and quota allow.
    ``gpu_layers``: -1 = all that fit. ``adapters``: paths of LoRA GGUFs.
    ``projector``: path of a GGUF, or "". ``avoids_kernels``: our own are not used.

    ``pool_cells``: of one KV cache for all, at least ``num_ctx``, which the worker may have instead
    of one for each of the ``slots``; then it has ``pool_slots``. 0: it may not.

    ``embedding``: how it embeds or ranks, if it does. Then ``num_ctx`` is the longest input,
    ``slots`` are requests at a time, and ``batch_size`` is for batches of several inputs.

    ``cache_fd``: memory for the prompt cache, which the worker inherits; -1 = none. It may use the
    first ``cache_bytes``. ``cache_key`` identifies the model whose states it may hold.
    """

    engine: str
    model: str
    num_ctx: int
    slots: int
    pool_slots: int = 0
    pool_cells: int = 0
    threads: int = 0
    batch_size: int = DEFAULT_BATCH
    gpu_layers: int = 0
    use_mmap: bool = True
    cache_type: str = "f16"
    flash_attention: str = "auto"
    adapters: tuple[str, ...] = ()
    embedding: EmbeddingKind = ""
    projector: str = ""
    cache_fd: int = -1
    cache_bytes: int = 0
    cache_key: str = ""
    avoids_kernels: bool = False

    def to_argv(self) -> list[str]:
        """Options for ``python -P -m ollama_async.workers.child``, defaults omitted."""
        argv: list[str] = []
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                argv += [f"--{field.name.replace('_', '-')}", _format(value)]
        return argv

    @classmethod
    def from_options(cls, options: dict[str, str]) -> LoadSpec:
        """The inverse of :meth:`to_argv`, from ``{"num-ctx": "4096", …}``.

        :raises msgspec.ValidationError: an option is unknown, missing or of the wrong type.
        """
        plain: dict[str, object] = {
            name.replace("-", "_"): value for name, value in options.items()
        }
        if "adapters" in options:
            plain["adapters"] = options["adapters"].split("\n")
        return msgspec.convert(plain, cls, strict=False)


def _format(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "\n".join(value) if isinstance(value, tuple) else str(value)
