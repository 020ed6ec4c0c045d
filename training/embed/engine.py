"""The file in the engine that users run: texts to tokens, texts to vectors."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

_CONTEXT = 256


class Embedder:
    """A loaded model; ``opened`` makes it."""

    def __init__(self, model: Any, context: Any) -> None:
        self._context = context
        self._vocabulary = lib.llama_model_get_vocab(model)
        self._width: int = lib.llama_model_n_embd(model)
        self.pooling: int = lib.llama_pooling_type(context)

    def tokens(self, text: str) -> list[int]:
        """The first tokens of ``text``, with the marks of begin and end."""
        data = text.encode()
        room = 2 * len(data) + 2  # a word may begin with a token for its begin alone
        tokens = (ctypes.c_int32 * room)()
        count = lib.llama_tokenize(self._vocabulary, data, len(data), tokens, room, True, False)
        return [*tokens[: min(count, _CONTEXT) - 1], tokens[count - 1]]

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row of length 1 a text."""
        rows = np.array([self._vector(self.tokens(text)) for text in texts], dtype=np.float32)
        normed: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return normed

    def _vector(self, tokens: Sequence[int]) -> list[float]:
        held = (ctypes.c_int32 * len(tokens))(*tokens)  # the batch only points to it
        batch = lib.llama_batch_get_one(held, len(tokens))
        if lib.llama_encode(self._context, batch) != 0:
            raise RuntimeError("the engine could not encode the text")
        values: list[float] = lib.llama_get_embeddings_seq(self._context, 0)[: self._width]
        return values


@contextmanager
def opened(path: Path) -> Iterator[Embedder]:
    """The model until the end of the block. Raises RuntimeError if the engine refuses the file."""
    quiet = lib.llama_log_callback(lambda *_: None)
    lib.llama_log_set(quiet, None)
    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(os.fsencode(path), lib.llama_model_default_params())
    if not model:
        raise RuntimeError(f"the engine does not load {path}")
    params = lib.llama_context_default_params()
    params.embeddings = True
    params.n_ctx = params.n_batch = params.n_ubatch = _CONTEXT
    params.n_threads = params.n_threads_batch = 1
    context = lib.llama_init_from_model(model, params)
    try:
        if not context:
            raise RuntimeError(f"the engine does not run {path}")
        yield Embedder(model, context)
    finally:
        if context:
            lib.llama_free(context)
        lib.llama_model_free(model)
        lib.llama_log_set(lib.llama_log_callback(), None)
