"""From a :class:`LoadSpec` to a model and a context of the library, or the reason why not."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections import deque
from typing import Any

import llama_cpp.llama_cpp as lib

from ollama_async.core.errors import LoadFailed
from ollama_async.workers.child.engines.engine import Progress
from ollama_async.workers.load_spec import LoadSpec

INCOMPATIBLE_HINT = (
    "this model may be incompatible with your version of Ollama. "
    "If you previously pulled this model, try updating it by running `ollama pull`"
)
"""Ollama's advice after a file that the library cannot run."""

_CACHE_TYPES = {
    "f32": lib.GGML_TYPE_F32,
    "f16": lib.GGML_TYPE_F16,
    "bf16": 30,  # the binding does not name it
    "q8_0": lib.GGML_TYPE_Q8_0,
    "q5_1": lib.GGML_TYPE_Q5_1,
    "q5_0": lib.GGML_TYPE_Q5_0,
    "q4_1": lib.GGML_TYPE_Q4_1,
    "q4_0": lib.GGML_TYPE_Q4_0,
    "iq4_nl": lib.GGML_TYPE_IQ4_NL,
}
_FLASH_ATTENTION = {
    "auto": lib.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


def open_model(spec: LoadSpec, progress: Progress, journal: LogCapture, *, safe: bool) -> Any:
    """Read the weights. ``safe``: keep them as they are in the file, see ``use_extra_bufts``.

    :raises LoadFailed: with the library's reason.
    """
    params = lib.llama_model_default_params()
    params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if spec.use_mmap else lib.LLAMA_LOAD_MODE_NONE
    params.n_gpu_layers = spec.gpu_layers
    params.use_extra_bufts = not safe

    def report(fraction: float, _data: object) -> bool:
        progress(fraction)
        return True

    params.progress_callback = lib.llama_progress_callback(report)
    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(os.fsencode(spec.model), params)
    if not model:
        reason = journal.reason() or "the library gave no reason"
        raise LoadFailed(f"unable to load model: {reason}: {INCOMPATIBLE_HINT}")
    if lib.llama_model_has_encoder(model) or lib.llama_model_is_diffusion(model):
        lib.llama_model_free(model)
        raise LoadFailed("unable to load model: only decoder models can be served")
    return model


def open_adapters(spec: LoadSpec, model: Any, journal: LogCapture) -> list[Any]:
    """Read what is to be applied to the weights; the model frees it. Before any context is made,
    whose graph is measured with the adapters in it.

    :raises LoadFailed: with the library's reason.
    """
    adapters = []
    for path in spec.adapters:
        adapter = lib.llama_adapter_lora_init(model, os.fsencode(path))
        if not adapter:
            reason = journal.reason() or "the library gave no reason"
            raise LoadFailed(f"unable to load adapter: {reason}")
        adapters.append(adapter)
    return adapters


def apply_adapters(context: Any, adapters: list[Any]) -> None:
    """All of them, each in its full strength."""
    count = len(adapters)
    pointers = (lib.llama_adapter_lora_p_ctypes * count)(*adapters)
    scales = (ctypes.c_float * count)(*[1.0] * count)
    lib.llama_set_adapters_lora(context, pointers, count, scales)


def open_context(spec: LoadSpec, model: Any, journal: LogCapture) -> Any:
    """Allocate KV cache and compute buffers for ``spec.slots`` sequences, each with its own KV
    buffer (``kv_unified`` off: faster from some hundred tokens of history on, and one sequence
    cannot take another's room).

    :raises LoadFailed: not enough memory, or a combination of options that the library refuses.
    """
    params = lib.llama_context_default_params()
    params.n_ctx = spec.num_ctx * spec.slots
    params.n_seq_max = spec.slots
    params.n_batch = spec.batch_size + spec.slots  # room for the engine's own throw-away rows
    params.n_ubatch = spec.batch_size
    params.n_outputs_max = spec.slots  # one row of logits per sequence; the default is n_batch
    params.n_threads = params.n_threads_batch = spec.threads or len(os.sched_getaffinity(0))
    params.flash_attn_type = _FLASH_ATTENTION[spec.flash_attention]
    params.type_k = params.type_v = _cache_type(spec.cache_type)
    params.kv_unified = False
    params.swa_full = True  # else prefixes beyond the window could not be reused, nor shifted
    params.no_perf = True
    context = lib.llama_init_from_model(model, params)
    if not context:
        reason = journal.reason() or "the library gave no reason"
        if "alloc" in reason:
            raise LoadFailed(
                f"not enough memory for a context of {spec.num_ctx} tokens x {spec.slots}: {reason}"
            )
        raise LoadFailed(f"unable to create the context: {reason}")
    if not lib.llama_get_memory(context):
        lib.llama_free(context)
        raise LoadFailed("unable to load model: it has no KV cache, so it cannot generate text")
    return context


def _cache_type(name: str) -> int:
    try:
        return int(_CACHE_TYPES[name])
    except KeyError:
        known = ", ".join(_CACHE_TYPES)
        raise LoadFailed(f"unknown KV cache type {name!r}; known are {known}") from None


# MERGED from llama_log.py
# """What the library says while it works: one process-wide log callback.
#
# Warnings and errors go to stderr as they come (the parent keeps the tail of it); the last error
# lines are kept for the text of a failed load; the sizes of the buffers that the library allocates
# are added up, because it tells them nowhere else.
# """

_WARN, _ERROR, _CONTINUED = 3, 4, 5
_BUFFER = re.compile(r"^\w+: +(\S+) +(model|LoRA|KV|RS|compute|output) buffer size = +([\d.]+) MiB")
_PROCESSOR = ("CPU", "AMX")  # AMX: main memory, laid out for the tile unit of Intel's processors
_USUAL = "cannot use buft"  # of each tensor of an adapter, where weights are laid out anew
_ORIGIN = re.compile(r"^\w+: ")


class LogCapture:
    """Collects what is said from its making until the next journal is made; one per load.
    ``bytes_by_kind`` maps (kind, is on a device) to bytes.
    """

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=8)
        self.bytes_by_kind: dict[tuple[str, bool], int] = {}
        self._level = 0
        _open_journals[:] = [self]
        lib.llama_log_set(_callback, ctypes.c_void_p(0))

    def reason(self) -> str:
        """The library's own explanation of a failure, most telling line first; may be ""."""
        lines = [_ORIGIN.sub("", line) for line in self.errors]
        # The last line only says that something failed; the one before says what.
        return next((line for line in lines if "failed to load model" not in line), "")

    def bytes_of(self, *kinds: str) -> int:
        """Bytes in buffers of these kinds, wherever they are."""
        return sum(size for (kind, _), size in self.bytes_by_kind.items() if kind in kinds)

    def device_bytes(self) -> int:
        """Bytes of all buffers that are on an accelerator."""
        return sum(size for (_, is_device), size in self.bytes_by_kind.items() if is_device)

    def write(self, level: int, raw: bytes) -> None:
        """One line of the library, or a part of one."""
        if level != _CONTINUED:
            self._level = level
        text = raw.decode(errors="replace")
        if self._level >= _WARN and _USUAL not in text:
            sys.stderr.write(text)
        line = text.strip()
        if self._level == _ERROR and line:
            self.errors.append(line)
        buffer = _BUFFER.match(line)
        if buffer:
            name, kind, mebibytes = buffer.groups()
            is_device = not name.startswith(_PROCESSOR) and not name.endswith("_Host")
            size = int(float(mebibytes) * 1024 * 1024)
            key = (kind, is_device)
            self.bytes_by_kind[key] = self.bytes_by_kind.get(key, 0) + size


def _write(level: int, raw: bytes, _data: Any) -> None:
    for journal in _open_journals:
        journal.write(level, raw)


_open_journals: list[LogCapture] = []
_callback = lib.llama_log_callback(_write)  # lives for ever: the library keeps only a pointer
