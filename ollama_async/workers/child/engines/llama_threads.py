"""The threads that compute the library's steps: how many, and where."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import llama_cpp.llama_cpp as lib

from ollama_async.workers.child.engines.thread_count import ThreadCount
from ollama_async.workers.child.engines.thread_placement import ThreadPlacement
from ollama_async.workers.load_spec import LoadSpec


def threads_of(spec: LoadSpec) -> int:
    return spec.threads or len(os.sched_getaffinity(0))


class LlamaThreads:
    """Of one model. Step thread only. Make it before the model is loaded, and call :meth:`loaded`
    as soon as it is.
    """

    def __init__(self, spec: LoadSpec) -> None:
        self._count = ThreadCount(threads_of(spec))
        self._placement = ThreadPlacement()
        self.loaded = self._placement.loaded

    def evaluate(self, call: Callable[[Any, Any], int], context: Any, batch: Any) -> int:
        """``call(context, batch)``, the library's decode or encode."""
        count = self._count.update()
        lib.llama_set_n_threads(context, count, count)  # for one token, and for more
        return self._placement.compute(count, lambda: call(context, batch))
