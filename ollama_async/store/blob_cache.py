"""What blobs say, read once for all models that share them.

A blob's content never changes, but its file may be broken and mended, so everything is as good as
the file's signature. What is wrong with a file is remembered, too: a header made to be slow takes a
second to be refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import msgspec

from ollama_async.core.errors import BadRequest
from ollama_async.gguf.adapter_fit import check_fit
from ollama_async.gguf.reader import read_header
from ollama_async.gguf.summary import ModelFacts, facts_of
from ollama_async.store.blobs import Blobs
from ollama_async.store.manifest import TEXT_LIMIT_BYTES, Config, read_config
from ollama_async.store.remembered import Remembered, Signature

T = TypeVar("T")

FACTS_LIMIT_BYTES = 32 << 20
"""Of all headers' facts: some thousand models, each with its chat template."""
TEXTS_LIMIT_BYTES = 64 << 20
"""Of all templates, system texts, parameters and the like."""
JSON_COST = 16
"""Bytes that a byte of JSON may take once it is parsed: a list of short texts does."""
_LEAST_BYTES = 1024


class _Fault(msgspec.Struct, frozen=True):
    """Why a blob cannot be used."""

    message: str


class BlobCache:
    """Thread-safe; two threads that ask for the same at once may both read it.

    All methods block. They raise BadRequest if the blob's content is wrong, OSError if it cannot be
    read.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._facts: Remembered[Any] = Remembered(FACTS_LIMIT_BYTES)
        self._texts: Remembered[Any] = Remembered(TEXTS_LIMIT_BYTES)

    def facts(self, digest: str) -> ModelFacts:
        """Of a GGUF file."""
        return self._remembered(
            self._facts,
            digest,
            (self._blobs.signature(digest),),
            lambda: facts_of(read_header(self._blobs.path(digest))),
            lambda facts: sys.getsizeof(facts.chat_template),
        )

    def check_adapter(self, adapter: str, base: str) -> None:
        """:raises BadRequest: it cannot be applied to the base."""

        def fits() -> bool:
            check_fit(*(read_header(self._blobs.path(digest)) for digest in (adapter, base)))
            return True

        signatures = self._blobs.signature(adapter), self._blobs.signature(base)
        self._remembered(self._facts, (adapter, base), signatures, fits, lambda _: 0)

    def text(self, digest: str) -> str:
        return self._read(digest, "text", lambda data: data.decode(errors="replace"), sys.getsizeof)

    def json(self, digest: str, form: Any) -> Any:
        """The JSON value as ``form``. Others are given the same object: it must not be changed."""

        def parse(data: bytes) -> Any:
            try:
                return msgspec.json.decode(data, type=form)
            except (ValueError, RecursionError) as error:
                raise BadRequest(str(error)) from None

        return self._read(digest, form, parse, lambda _: self._json_cost(digest))

    def config(self, digest: str) -> Config:
        """As :meth:`json`, as leniently as Ollama reads it."""
        return self._read(digest, Config, read_config, lambda _: self._json_cost(digest))

    def _json_cost(self, digest: str) -> int:
        return JSON_COST * self._blobs.size(digest)

    def _read(
        self, digest: str, form: Hashable, parse: Callable[[bytes], T], cost: Callable[[T], int]
    ) -> T:
        return self._remembered(
            self._texts,
            (digest, form),
            (self._blobs.signature(digest),),
            lambda: parse(self._blobs.read(digest, TEXT_LIMIT_BYTES)),
            cost,
        )

    def _remembered(
        self,
        memory: Remembered[Any],
        key: Hashable,
        signatures: tuple[Signature, ...],
        make: Callable[[], T],
        cost: Callable[[T], int],
    ) -> T:
        known = memory.get(key, signatures)
        if known is None:
            try:
                known = make()
            except BadRequest as error:
                known = _Fault(error.message)
            size = _LEAST_BYTES if isinstance(known, _Fault) else _LEAST_BYTES + cost(known)
            memory.put(key, signatures, known, size)
        if isinstance(known, _Fault):
            raise BadRequest(known.message)  # a new one: each raise makes an exception longer
        value: T = known
        return value
