"""Caches of parsed files, valid while the files are unchanged.

A blob's content never changes, but its file may be damaged and repaired. So every entry depends on
the file's signature. Errors are cached, too: a malicious header takes a second to reject.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Hashable
from typing import Any, Generic, TypeVar

import msgspec

from ollama_async.core.bounded_cache import BoundedCache
from ollama_async.core.errors import BadRequest
from ollama_async.gguf.compatibility import check_adapter
from ollama_async.gguf.reader import read_header
from ollama_async.gguf.summary import GgufSummary, summarize
from ollama_async.store.blobs import Blobs
from ollama_async.store.manifests import TEXT_LIMIT_BYTES, Config, read_config

T = TypeVar("T")

SUMMARIES_LIMIT_BYTES = 32 << 20
"""For all GGUF headers: some thousand models, each with its chat template."""
TEXTS_LIMIT_BYTES = 64 << 20
"""For all templates, system texts, parameters and the like."""
JSON_COST = 16
"""Bytes that one byte of JSON may take once it is parsed, as in a list of short texts."""
_MIN_ENTRY_BYTES = 1024


class _CachedError(msgspec.Struct, frozen=True):
    message: str


class FileCache(Generic[T]):
    """LRU cache of values by key, each with the signatures of the files that it was made from.

    ``limit_bytes`` bounds all values together. Thread-safe.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._entries: BoundedCache[Hashable, tuple[Hashable, T | _CachedError]] = BoundedCache(
            math.inf, limit_bytes
        )

    def get(self, key: Hashable, signature: Hashable) -> T | None:
        """The value, unless its signature differs.

        :raises BadRequest: :meth:`get_or_make` cached this error.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        signature_then, value = entry
        if signature_then != signature:
            self._entries.remove(key)
            return None
        if isinstance(value, _CachedError):
            raise BadRequest(value.message)  # a new one: each raise extends an error's traceback
        return value

    def put(self, key: Hashable, signature: Hashable, value: T, size_bytes: int) -> None:
        """See :meth:`.BoundedCache.put`."""
        self._entries.put(key, (signature, value), size_bytes)

    def get_or_make(
        self,
        key: Hashable,
        signature: Hashable,
        make: Callable[[], T],
        cost: Callable[[T], int] = lambda _: 0,
    ) -> T:
        """The cached value, or the result of ``make``. ``cost`` computes a value's size in bytes.

        Concurrent calls for one key may each call ``make``.

        :raises BadRequest: ``make`` raised it, now or before.
        """
        known = self.get(key, signature)
        if known is not None:
            return known
        try:
            made = make()
        except BadRequest as error:
            self._entries.put(key, (signature, _CachedError(error.message)), _MIN_ENTRY_BYTES)
            raise
        self.put(key, signature, made, _MIN_ENTRY_BYTES + cost(made))
        return made

    def remove(self, key: Hashable) -> None:
        self._entries.remove(key)

    def keep_only(self, keys: Collection[Hashable]) -> None:
        """Remove all other keys."""
        self._entries.keep_only(keys)


class BlobCache:
    """Parsed contents of blobs, read once for all models that share them. Thread-safe.

    All methods block. They raise BadRequest if a blob is invalid, OSError if it cannot be read.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._summaries: FileCache[Any] = FileCache(SUMMARIES_LIMIT_BYTES)
        self._texts: FileCache[Any] = FileCache(TEXTS_LIMIT_BYTES)

    def summary(self, digest: str) -> GgufSummary:
        """The summary of a GGUF file."""
        summary: GgufSummary = self._summaries.get_or_make(
            digest,
            self._blobs.signature(digest),
            lambda: summarize(read_header(self._blobs.path(digest))),
            lambda summary: sys.getsizeof(summary.chat_template),
        )
        return summary

    def check_adapter(self, adapter: str, base: str) -> None:
        """:raises BadRequest: the adapter cannot be applied to the base."""

        def check() -> bool:
            check_adapter(*(read_header(self._blobs.path(digest)) for digest in (adapter, base)))
            return True

        signatures = self._blobs.signature(adapter), self._blobs.signature(base)
        self._summaries.get_or_make((adapter, base), signatures, check)

    def text(self, digest: str) -> str:
        return self._read(digest, "text", lambda data: data.decode(errors="replace"), sys.getsizeof)

    def json(self, digest: str, form: Any) -> Any:
        """The JSON value as a ``form``. The object is shared: do not change it."""

        def parse(data: bytes) -> Any:
            try:
                return msgspec.json.decode(data, type=form)
            except (ValueError, RecursionError) as error:
                raise BadRequest(str(error)) from None

        return self._read(digest, form, parse, lambda _: self._json_cost(digest))

    def config(self, digest: str) -> Config:
        """A model's config, parsed as leniently as in Ollama."""
        return self._read(digest, Config, read_config, lambda _: self._json_cost(digest))

    def _json_cost(self, digest: str) -> int:
        return JSON_COST * self._blobs.size(digest)

    def _read(
        self, digest: str, form: Hashable, parse: Callable[[bytes], T], cost: Callable[[T], int]
    ) -> T:
        value: T = self._texts.get_or_make(
            (digest, form),
            self._blobs.signature(digest),
            lambda: parse(self._blobs.read(digest, TEXT_LIMIT_BYTES)),
            cost,
        )
        return value
