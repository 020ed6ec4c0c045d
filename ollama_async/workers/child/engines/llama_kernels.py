"""Our own kernels in a worker: whether they are used, and what of a model they compute.

What they take over depends on the model: its types of weights, its heads, its other ops. So after
a context is made, one token is computed and recorded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import llama_cpp.llama_cpp as lib
import msgspec

from ollama_async.core.errors import LoadFailed
from ollama_async.native.check import Verdict
from ollama_async.native.kernels import Kernels, KernelsUnusable
from ollama_async.workers.load_spec import LoadSpec


class KernelChoice(msgspec.Struct, frozen=True):
    """``kernels``: registered; None = stock ones compute, because of ``stock_reason``."""

    kernels: Kernels | None = None
    stock_reason: str = ""


STOCK = KernelChoice()


class KernelUse(msgspec.Struct, frozen=True):
    """What the kernels compute of a model. ``text``, ``is_invariant``: for
    :class:`~.engine.EngineFacts`. ``has_attention``: so that a pool of cells is fast.
    """

    text: str
    is_invariant: bool = False
    has_attention: bool = False


def choose_kernels(spec: LoadSpec, verdict: Verdict) -> KernelChoice:
    """Register the kernels that the verdict allows. Call it once, before the first model."""
    if spec.avoids_kernels:
        return KernelChoice(None, "a worker crashed with our own")
    if not verdict.isa:
        return KernelChoice(None, verdict.stock_reason)
    try:
        return KernelChoice(Kernels(os.environ, verdict.isa))
    except KernelsUnusable as reason:
        return KernelChoice(None, str(reason))


def try_kernels(
    choice: KernelChoice, context: Any, evaluate: Callable[[Any, Any], int] = lib.llama_decode
) -> KernelUse:
    """Compute one token in the new context, and leave it empty. Does nothing for stock ones.

    :raises LoadFailed: the library cannot.
    """
    kernels = choice.kernels
    if kernels is None:
        return KernelUse(f"stock ({choice.stock_reason})" if choice.stock_reason else "stock")
    memory = lib.llama_get_memory(context)
    kernels.watch(memory)  # and no longer that of a context before
    with kernels.recorded() as usage:
        token = (lib.llama_token * 1)(0)
        status = evaluate(context, lib.llama_batch_get_one(token, 1))
        lib.llama_synchronize(context)
    if memory:
        lib.llama_memory_clear(memory, True)
    if status != 0:
        raise LoadFailed(f"unable to compute a token: the library returned {status}")
    if not usage.products and not usage.attentions:
        return KernelUse(f"stock (our own for {kernels.isa} know nothing of this model)")
    rest = f", stock for {' '.join(usage.variant)}" if usage.variant else ""
    return KernelUse(
        text=f"own ({kernels.isa}){rest}",
        is_invariant=not usage.variant,
        has_attention=usage.attentions > 0 and "FLASH_ATTN_EXT" not in usage.variant,
    )
