"""Host memory of prompt caches: made for workers, shared out, and kept for the next of their kind.

A worker fills its memory with the states of conversations (:mod:`.child.host_prompt_cache`). When
it has ended, the memory is kept for the next worker of the same model, whose conversations then go
on where they were. The parent only makes the memory: it maps and reads none, because a hostile
model may have written it.

Models come first: prompt caches share what the models of this machine leave free, and give way when
that becomes less. Of the memory kept without a worker, the oldest goes first.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import OrderedDict
from pathlib import Path

import msgspec

from ollama_async.workers import sealed_memory
from ollama_async.workers.load_plan import LoadPlan
from ollama_async.workers.load_spec import LoadSpec

_STEP_BYTES = 1 << 20
_BLOCK_BYTES = 512  # unit of st_blocks

MAX_KEPT = 64
"""Models whose memory is kept without a worker: each takes a descriptor, however small it is."""

log = logging.getLogger(__name__)


class _Memory(msgspec.Struct, frozen=True):
    fd: int
    key: str

    @property
    def size_bytes(self) -> int:
        """What it takes now: pages that were written."""
        return os.fstat(self.fd).st_blocks * _BLOCK_BYTES


class CacheMemory:
    """The memory of all prompt caches. ``limit_bytes``: for each loaded model, and for all that
    were unloaded together; 0 = there are no prompt caches.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes - limit_bytes % _STEP_BYTES
        self._lent: dict[int, _Memory] = {}  # by instance
        self._kept: OrderedDict[str, _Memory] = OrderedDict()  # by key, oldest first

    def lend(self, instance_id: int, plan: LoadPlan) -> LoadPlan:
        """The plan with memory for the prompt cache of the worker that will be started; call
        :meth:`take_back` when that is gone.
        """
        if not self._limit_bytes or plan.spec.embedding:
            return plan
        key = _key(plan.spec)
        memory = self._kept.pop(key, None)
        try:
            memory = memory or self._create(key)
        except OSError as reason:
            log.warning("no memory for a prompt cache: %s", reason)
            return plan
        self._lent[instance_id] = memory
        spec = msgspec.structs.replace(plan.spec, cache_fd=memory.fd, cache_key=key)
        return msgspec.structs.replace(plan, spec=spec)

    def _create(self, key: str) -> _Memory:
        """:raises OSError: there are no descriptors left."""
        return _Memory(sealed_memory.create("ollama-async-prompt-cache", self._limit_bytes), key)

    def take_back(self, instance_id: int, *, is_kept: bool = True) -> None:
        """The instance's worker is gone: keep its memory, unless that may be why. Idempotent."""
        memory = self._lent.pop(instance_id, None)
        if memory is None:
            return
        if not is_kept:
            os.close(memory.fd)
            return
        if older := self._kept.pop(memory.key, None):
            os.close(older.fd)
        self._kept[memory.key] = memory
        if len(self._kept) > MAX_KEPT:
            _, oldest = self._kept.popitem(last=False)
            os.close(oldest.fd)

    def share_out(self, free_bytes: int) -> int:
        """What each loaded model may use if models leave so much free. What is kept beyond that is
        dropped.
        """
        free_bytes = max(0, free_bytes)
        share = self._limit_bytes
        if self._lent:
            share = min(share, free_bytes // len(self._lent))
            free_bytes -= share * len(self._lent)
        kept = sum(memory.size_bytes for memory in self._kept.values())
        while kept > min(free_bytes, self._limit_bytes):
            _, memory = self._kept.popitem(last=False)
            kept -= memory.size_bytes
            os.close(memory.fd)
        return share

    def close(self) -> None:
        """Drop everything. Workers that are still alive keep what they have mapped."""
        for memory in [*self._kept.values(), *self._lent.values()]:
            os.close(memory.fd)
        self._kept.clear()
        self._lent.clear()


def _key(spec: LoadSpec) -> str:
    """Equal for workers of the same model. The library and its kernels are the worker's part."""
    parts: list[object] = [spec.engine, spec.cache_type, spec.flash_attention, spec.gpu_layers]
    for path in (spec.model, *spec.adapters, spec.projector):
        parts += [path, *_signature(path)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _signature(path: str) -> tuple[int, ...]:
    """Changes with the file."""
    try:
        facts = Path(path).stat()
    except OSError:  # not a file: a model of the scripted engine
        return ()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
