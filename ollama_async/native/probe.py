"""Probes the engine library in a separate process, which may crash.

Runs in: ``python -P -m ollama_async.native.probe``, started by :mod:`ollama_async.native.check`
once per attempt. Reads: ``--mode fast|safe|own`` (the CPU's fast kernels and repacking, plain ones,
or our own kernels), ``--kernels CHOICE`` (a value of ``OLLAMA_ASYNC_KERNELS``), ``--limit-s N``.
Prints: one JSON object, a :class:`.ProbeReport`. Exit status: 0 if the results are right, 1 if
wrong; anything else is a crash. Ends when: done, after the limit, or with its parent.

Small models with the same weights in several formats are evaluated in one batch, token by token,
and as eight sequences at once: each way uses other kernels. The logits must be finite, equal in
each way except for rounding, and close to those of F32, which stock kernels compute. Our own
kernels first check themselves, and must give equal bits in each way.

``OLLAMA_ASYNC_PROBE_FAULT`` injects a fault for tests: ``crash-MODE``, ``wrong-MODE`` or
``hang-MODE``, in one mode or in ``all``.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from ollama_async.native.check import FAULT_VARIABLE, Mode, ProbeReport
from ollama_async.native.kernels import Kernels, KernelsUnusable
from ollama_async.native.tiny_model import Quantization, write_tiny_model

PROMPT_TOKENS = 96  # over 64, where the matrix kernels for prompts begin
SEQUENCES = 8
# Dimensions that the fast kernels support; other kernels handle narrow or odd matrices.
MODEL_WIDTH = 256
MODEL_FEED_FORWARD = 512
MODEL_VOCABULARY = 1024
AGREEMENT_LIMIT = 0.3
"""Largest relative distance between the logits of two equivalent computations."""
FORMAT_LIMITS: dict[Quantization, float] = {"Q8_0": 0.3, "Q4_0": 0.7}
"""Largest relative distance from F32; unrelated logits are about 1.4 apart."""

Logits = NDArray[np.float32]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=get_args(Mode), required=True)
    parser.add_argument("--kernels", required=True)
    parser.add_argument("--limit-s", type=int, required=True)
    options = parser.parse_args()
    signal.alarm(options.limit_s)  # ends the process even if native code never returns
    os.environ["OMP_WAIT_POLICY"] = "passive"  # spinning would multiply the time on a busy machine
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    report = _examine(options.mode, options.kernels, _injected_fault(options.mode))
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    return 1 if report.wrong else 0


def _injected_fault(mode: Mode) -> str:
    kind, _, where = os.environ.get(FAULT_VARIABLE, "").partition("-")
    return kind if where in {mode, "all"} else ""


def _examine(mode: Mode, choice: str, fault: str) -> ProbeReport:
    try:
        library = _Library()
        kernels = Kernels(os.environ, choice) if mode == "own" else None
    except (ImportError, OSError, RuntimeError, AttributeError) as reason:
        # what its import raises for a missing file, a missing symbol, a missing package
        return ProbeReport(wrong=f"it cannot be imported: {reason}")
    except KernelsUnusable as reason:
        return ProbeReport(wrong=str(reason))
    report = ProbeReport(system_info=library.system_info(), isa=kernels.isa if kernels else "")
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "hang":
        signal.pause()
    try:
        if kernels:
            _check_kernels(kernels)
        _check_models(library, kernels, fast=mode != "safe", is_wrong=fault == "wrong")
    except _Wrong as reason:
        report.wrong = str(reason)
    return report


def _check_kernels(kernels: Kernels) -> None:
    """:raises _Wrong: what they compute is wrong."""
    fault, types = kernels.find_fault(is_full=False)
    if fault:
        raise _Wrong(fault)
    if not types:
        raise _Wrong(f"nothing is written for {kernels.isa}")


def _check_models(
    library: _Library, kernels: Kernels | None, *, fast: bool, is_wrong: bool
) -> None:
    """Compare formats. ``is_wrong``: as if the results were. :raises _Wrong: they differ."""
    with tempfile.TemporaryDirectory(prefix="ollama_async-probe-") as name:
        folder = Path(name)
        if kernels:
            kernels.set_attention(False)
        exact, _ = _logits(library, folder, "F32", fast=fast and not kernels)
        if kernels:
            kernels.set_attention(True)
        for quantization, limit in FORMAT_LIMITS.items():
            with kernels.recorded() if kernels else contextlib.nullcontext() as usage:
                found, gap = _logits(library, folder, quantization, fast=fast)
            if usage and not usage.variant and gap:
                raise _Wrong(f"{quantization}: rows depend on the batch ({gap:.2g})")
            if is_wrong:
                found = np.roll(found, 1, axis=-1)
            distance = _distance(found, exact)
            if not distance <= limit:  # a NaN is never within a limit
                raise _Wrong(f"{quantization} is {distance:.2f} away from F32")


class _Wrong(Exception):
    """The library's result is wrong."""


def _logits(
    library: _Library, folder: Path, quantization: Quantization, *, fast: bool
) -> tuple[Logits, float]:
    """Logits of every prompt position, shape (PROMPT_TOKENS, vocabulary), and how far they are from
    those of other batches.

    :raises _Wrong: they are not finite, or that is too far.
    """
    path = write_tiny_model(
        folder / f"{quantization}.gguf",
        quantization=quantization,
        width=MODEL_WIDTH,
        feed_forward=MODEL_FEED_FORWARD,
        vocab=MODEL_VOCABULARY,
    )
    tokens = [300 + number * 7 % 700 for number in range(PROMPT_TOKENS)]
    with _Model(library, path, fast=fast) as model:
        batched = model.evaluate([(0, place, token) for place, token in enumerate(tokens)])
        model.clear_cache()
        single = np.concatenate(
            [model.evaluate([(0, place, token)]) for place, token in enumerate(tokens)]
        )
        model.clear_cache()
        first = [(sequence, 0, tokens[sequence]) for sequence in range(SEQUENCES)]
        together = model.evaluate(first)
        alone = []
        for _, _, token in first:
            model.clear_cache()
            alone.append(model.evaluate([(0, 0, token)]))
    gap = max(_distance(batched, single), _distance(together, np.concatenate(alone)))
    if not gap <= AGREEMENT_LIMIT:
        raise _Wrong(f"{quantization}: rows in a batch and single ones differ by {gap:.2f}")
    return single, gap


def _distance(one: Logits, other: Logits) -> float:
    """Largest distance between rows of logits, relative to the norm of the row; NaN if any is."""
    gaps = np.linalg.norm(one - other, axis=-1)
    return float(np.max(gaps / np.maximum(np.linalg.norm(other, axis=-1), 1e-6)))


class _Library:
    """The native library."""

    def __init__(self) -> None:
        import llama_cpp  # noqa: PLC0415  # importing it is part of the probe

        self.native: Any = llama_cpp
        self.quiet = llama_cpp.llama_log_callback(_discard)
        self.native.llama_log_set(self.quiet, None)
        self.native.llama_backend_init()

    def system_info(self) -> str:
        return str(self.native.llama_print_system_info().decode(errors="replace")).strip()


class _Model:
    """One loaded model, and a context for :data:`SEQUENCES` sequences."""

    def __init__(self, library: _Library, path: Path, *, fast: bool) -> None:
        self.native = native = library.native
        parameters = native.llama_model_default_params()
        parameters.n_gpu_layers = 0
        parameters.use_extra_bufts = fast
        self.model = native.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.model:
            raise _Wrong("a small model could not be loaded")
        settings = native.llama_context_default_params()
        settings.n_ctx = 256 * SEQUENCES
        settings.n_batch = settings.n_ubatch = 128
        settings.n_seq_max = SEQUENCES
        settings.offload_kqv = settings.op_offload = False
        settings.n_threads = settings.n_threads_batch = min(2, len(os.sched_getaffinity(0)))
        self.context = native.llama_init_from_model(self.model, settings)
        if not self.context:
            native.llama_model_free(self.model)
            raise _Wrong("no context could be made for a small model")
        vocabulary = native.llama_model_get_vocab(self.model)
        self.vocabulary = native.llama_vocab_n_tokens(vocabulary)

    def __enter__(self) -> _Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.native.llama_free(self.context)
        self.native.llama_model_free(self.model)

    def clear_cache(self) -> None:
        self.native.llama_memory_clear(self.native.llama_get_memory(self.context), True)

    def evaluate(self, rows: list[tuple[int, int, int]]) -> Logits:
        """Logits of (sequence, position, token) rows; shape (rows, vocabulary)."""
        batch = self.native.llama_batch_init(len(rows), 0, 1)
        try:
            batch.n_tokens = len(rows)
            for index, (sequence, position, token) in enumerate(rows):
                batch.token[index] = token
                batch.pos[index] = position
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = sequence
                batch.logits[index] = True
            if self.native.llama_decode(self.context, batch):
                raise _Wrong("a small batch was rejected")
        finally:
            self.native.llama_batch_free(batch)
        flat = self.native.llama_get_logits(self.context)
        shape = (len(rows), self.vocabulary)
        return np.array(np.ctypeslib.as_array(flat, shape=shape), dtype=np.float32)


def _discard(_level: int, _text: bytes, _data: object) -> None:
    """Discards the library's log."""


if __name__ == "__main__":
    sys.exit(main())
