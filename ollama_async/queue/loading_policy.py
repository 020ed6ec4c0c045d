"""When what is loaded is good enough for a request, and what to load so that it is.

A context that fits is never a reason to reload, whichever client asks: only a larger one is, and it
grows by powers of two. The other load-time options are the model's. Two models with the same
weights share a worker, and may differ in them: see ``Stay.suits``.
"""

from __future__ import annotations

from collections.abc import Iterable

from ollama_async.queue.backend import LoadOptions, Target

_EXPLICIT = ("num_gpu", "main_gpu", "num_thread", "use_mmap")
"""``num_batch`` is missing on purpose: it changes speed, never the answer."""


def normal(load_options: LoadOptions, target: Target, *, has_gpus: bool) -> LoadOptions:
    """The same wish in its plainest form: a context beyond training is cut, ``num_gpu`` -1 says
    nothing, nor does anything about GPUs where there are none.
    """
    if load_options == _NOTHING:
        return _NOTHING
    num_ctx = load_options.num_ctx
    if num_ctx is not None and target.train_ctx > 0:
        num_ctx = min(num_ctx, target.train_ctx)
    return LoadOptions(
        num_ctx=num_ctx,
        num_batch=load_options.num_batch,
        num_gpu=None if load_options.num_gpu == -1 or not has_gpus else load_options.num_gpu,
        main_gpu=load_options.main_gpu if has_gpus else None,
        num_thread=load_options.num_thread,
        use_mmap=load_options.use_mmap,
    )


_NOTHING = LoadOptions()


def outgrows(load_options: LoadOptions, num_ctx: float) -> bool:
    """Whether a larger context is wished than there is."""
    return load_options.num_ctx is not None and load_options.num_ctx > num_ctx


def contradicts(load_options: LoadOptions, loaded: LoadOptions) -> bool:
    """Whether the load was made with another value of an option, or with one where none is named:
    nobody inherits what is meant for others.
    """
    return any(getattr(load_options, name) != getattr(loaded, name) for name in _EXPLICIT)


def merge(
    first: LoadOptions, others: Iterable[LoadOptions], loaded: LoadOptions | None, target: Target
) -> LoadOptions:
    """What to load for ``first`` so that as many ``others`` as can be are content too.

    The options of ``first``, and the largest context of all and of what is ``loaded``. Where it
    grows, it does so to a power of two, within what the model was trained for: who asks for one
    token more each time shall not get a load each time.
    """
    loaded_ctx = loaded.num_ctx if loaded else None
    wishes = (first.num_ctx, loaded_ctx, *(load_options.num_ctx for load_options in others))
    num_ctx = max((wish for wish in wishes if wish is not None), default=None)
    if num_ctx is not None and loaded_ctx is not None and num_ctx > loaded_ctx:
        num_ctx = _round_up(num_ctx, target.train_ctx)
    explicit = {name: getattr(first, name) for name in _EXPLICIT}
    return LoadOptions(num_ctx=num_ctx, num_batch=first.num_batch, **explicit)


def _round_up(num_ctx: int, train_ctx: int) -> int:
    power = 1 << (num_ctx - 1).bit_length()
    return max(num_ctx, min(power, train_ctx)) if train_ctx > 0 else power
