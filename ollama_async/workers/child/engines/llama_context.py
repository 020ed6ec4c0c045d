"""The context of a model that generates text: its KV cache and its compute buffers."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import llama_cpp.llama_cpp as lib

from ollama_async.core.errors import LoadFailed
from ollama_async.workers.child.engines.engine import MAX_DRAFTS, MAX_STREAMS
from ollama_async.workers.child.engines.kv_layout import (
    CELLS_STEP,
    KVLayout,
    pool_of,
    round_up,
    separate_caches,
)
from ollama_async.workers.child.engines.llama_kernels import (
    KernelChoice,
    KernelUse,
    try_kernels,
)
from ollama_async.workers.child.engines.llama_model import (
    LogCapture,
    apply_adapters,
    common_context_params,
    create_context,
    read_metadata,
)
from ollama_async.workers.load_spec import LoadSpec

_SLOW = "stock attention visits the cells of all slots"


class OpenContext(NamedTuple):
    """``context`` is the library's. ``kernels``: what they compute in it."""

    context: Any
    layout: KVLayout
    kernels: KernelUse


def open_context(
    spec: LoadSpec, model: Any, adapters: list[Any], log: LogCapture, kernels: KernelChoice
) -> OpenContext:
    """A context with one pool of cells, if that is possible and not slower.

    :raises LoadFailed: not enough memory, or the library refuses the combination of options.
    """
    layout, reason = _choose_layout(spec, model, kernels)
    opened = _open_layout(spec, layout, model, adapters, log, kernels)
    if layout.is_pooled and not opened.kernels.has_attention:
        lib.llama_free(opened.context)
        log.forget_context()
        layout, reason = separate_caches(spec), _SLOW
        opened = _open_layout(spec, layout, model, adapters, log, kernels)
    kind = f"a pool of {layout.cells} cells" if layout.is_pooled else f"separate caches ({reason})"
    print(f"INFO KV cache: {kind}, {layout.slots} slots", file=sys.stderr)  # noqa: T201  # stderr is the log
    return opened


def _choose_layout(spec: LoadSpec, model: Any, kernels: KernelChoice) -> tuple[KVLayout, str]:
    """The KV cache that the plan allows and the model can have, and why it is not a pool."""
    reason = _pool_obstacle(spec, model, kernels)
    if reason:
        return separate_caches(spec), reason
    cells = spec.pool_cells
    original = _original_context(model)
    if spec.num_ctx <= original < cells:  # with more, the library takes other rope factors
        cells = max(round_up(spec.num_ctx), round_up(original + 1) - CELLS_STEP)
    return pool_of(spec.pool_slots, cells), ""


def _pool_obstacle(spec: LoadSpec, model: Any, kernels: KernelChoice) -> str:
    if not spec.pool_cells:
        return "none is planned"
    if lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model):
        return "the model is recurrent"
    if lib.llama_model_n_swa(model):
        return "the model has a sliding window"
    if spec.flash_attention == "off":
        return "flash attention is off"
    if kernels.kernels is None:
        return _SLOW
    return ""


def _original_context(model: Any) -> int:
    """Tokens for which the model was trained before its positions were scaled; 0: unknown."""
    architecture = read_metadata(model, b"general.architecture")
    text = read_metadata(model, architecture + b".rope.scaling.original_context_length")
    return int(text) if text.isdigit() else 0


def _open_layout(
    spec: LoadSpec,
    layout: KVLayout,
    model: Any,
    adapters: list[Any],
    log: LogCapture,
    kernels: KernelChoice,
) -> OpenContext:
    """Allocate KV cache and compute buffers.

    :raises LoadFailed: not enough memory, or the library refuses the combination of options.
    """
    params = common_context_params(spec)
    params.n_ctx = layout.cells
    params.n_seq_max = layout.sequences
    padding = 0 if layout.is_pooled else layout.sequences  # rows, see find_padding_slots
    params.n_batch = spec.batch_size + padding
    params.n_ubatch = spec.batch_size
    params.n_outputs_max = max_outputs(layout.sequences)  # the default is n_batch
    params.kv_unified = layout.is_pooled
    params.swa_full = True  # else prefixes beyond the window could not be reused, nor shifted
    size = f"a context of {spec.num_ctx} tokens x {spec.slots}"
    if layout.is_pooled:
        size = f"a KV cache of {layout.cells} tokens"
    context = create_context(model, params, log, size)
    if not lib.llama_get_memory(context):
        lib.llama_free(context)
        raise LoadFailed("unable to load model: it has no KV cache, so it cannot generate text")
    apply_adapters(context, adapters)
    return OpenContext(context, layout, try_kernels(kernels, context))


def max_outputs(slots: int) -> int:
    """Rows of logits in a step: one for each slot, or of few slots, for their drafts as well."""
    return max(slots, min(slots, MAX_STREAMS) + MAX_DRAFTS)
