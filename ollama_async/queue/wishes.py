"""When what is loaded is good enough for a request, and what to load so that it is.

A context that fits is never a reason to reload, whichever client asks: only a larger one is. The
other load-time options count when a request names them and the load was not made with that value.
"""

from __future__ import annotations

from collections.abc import Iterable

from ollama_async.queue.port import Needs, Target

_EXPLICIT = ("num_gpu", "main_gpu", "num_thread", "use_mmap")
"""``num_batch`` is missing on purpose: it changes speed, never the answer."""


def normal(needs: Needs, target: Target) -> Needs:
    """The same wish in its plainest form: a context beyond training is cut, ``num_gpu`` -1 says
    nothing, and ``num_batch`` is dropped so that equal wishes compare equal.
    """
    if needs == _NOTHING:
        return _NOTHING
    num_ctx = needs.num_ctx
    if num_ctx is not None and target.train_ctx > 0:
        num_ctx = min(num_ctx, target.train_ctx)
    return Needs(
        num_ctx=num_ctx,
        num_gpu=None if needs.num_gpu == -1 else needs.num_gpu,
        main_gpu=needs.main_gpu,
        num_thread=needs.num_thread,
        use_mmap=needs.use_mmap,
    )


_NOTHING = Needs()


def outgrows(needs: Needs, num_ctx: int) -> bool:
    """Whether a larger context is wished than there is."""
    return needs.num_ctx is not None and needs.num_ctx > num_ctx


def contradicts(needs: Needs, loaded: Needs) -> bool:
    """Whether an option is named that the load did not name, or named otherwise."""
    return any(
        (wish := getattr(needs, name)) is not None and wish != getattr(loaded, name)
        for name in _EXPLICIT
    )


def merge(first: Needs, others: Iterable[Needs], loaded: Needs | None) -> Needs:
    """What to load for ``first`` so that as many ``others`` as can be are content too.

    The largest context of all, and the options of ``first``. What it leaves open stays as it is
    ``loaded``, or two clients with different options would reload the model in turn.
    """
    base = loaded or _NOTHING
    wishes = (needs.num_ctx for needs in (first, base, *others))
    explicit = {
        name: value if (value := getattr(first, name)) is not None else getattr(base, name)
        for name in _EXPLICIT
    }
    num_ctx = max((wish for wish in wishes if wish is not None), default=None)
    return Needs(num_ctx=num_ctx, **explicit)
