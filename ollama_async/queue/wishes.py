"""When what is loaded is good enough for a request, and what to load so that it is.

A context that fits is never a reason to reload, whichever client asks: only a larger one is, and it
grows by powers of two. The other load-time options are the model's. Two models with the same
weights share a worker, and may differ in them: see ``Stay.suits``.
"""

from __future__ import annotations

from collections.abc import Iterable

from ollama_async.queue.port import Needs, Target

_EXPLICIT = ("num_gpu", "main_gpu", "num_thread", "use_mmap")
"""``num_batch`` is missing on purpose: it changes speed, never the answer."""


def normal(needs: Needs, target: Target, *, has_gpus: bool) -> Needs:
    """The same wish in its plainest form: a context beyond training is cut, ``num_gpu`` -1 says
    nothing, nor does anything about GPUs where there are none.
    """
    if needs == _NOTHING:
        return _NOTHING
    num_ctx = needs.num_ctx
    if num_ctx is not None and target.train_ctx > 0:
        num_ctx = min(num_ctx, target.train_ctx)
    return Needs(
        num_ctx=num_ctx,
        num_batch=needs.num_batch,
        num_gpu=None if needs.num_gpu == -1 or not has_gpus else needs.num_gpu,
        main_gpu=needs.main_gpu if has_gpus else None,
        num_thread=needs.num_thread,
        use_mmap=needs.use_mmap,
    )


_NOTHING = Needs()


def outgrows(needs: Needs, num_ctx: float) -> bool:
    """Whether a larger context is wished than there is."""
    return needs.num_ctx is not None and needs.num_ctx > num_ctx


def contradicts(needs: Needs, loaded: Needs) -> bool:
    """Whether the load was made with another value of an option, or with one where none is named:
    nobody inherits what is meant for others.
    """
    return any(getattr(needs, name) != getattr(loaded, name) for name in _EXPLICIT)


def merge(first: Needs, others: Iterable[Needs], loaded: Needs | None, target: Target) -> Needs:
    """What to load for ``first`` so that as many ``others`` as can be are content too.

    The options of ``first``, and the largest context of all and of what is ``loaded``. Where it
    grows, it does so to a power of two, within what the model was trained for: who asks for one
    token more each time shall not get a load each time.
    """
    loaded_ctx = loaded.num_ctx if loaded else None
    wishes = (first.num_ctx, loaded_ctx, *(needs.num_ctx for needs in others))
    num_ctx = max((wish for wish in wishes if wish is not None), default=None)
    if num_ctx is not None and loaded_ctx is not None and num_ctx > loaded_ctx:
        num_ctx = _round_up(num_ctx, target.train_ctx)
    explicit = {name: getattr(first, name) for name in _EXPLICIT}
    return Needs(num_ctx=num_ctx, num_batch=first.num_batch, **explicit)


def _round_up(num_ctx: int, train_ctx: int) -> int:
    power = 1 << (num_ctx - 1).bit_length()
    return max(num_ctx, min(power, train_ctx)) if train_ctx > 0 else power
