"""The tokenizer of a loaded model.

Thread-safe: the library's vocabulary is read-only after the load, each call of ``llama_tokenize``
has its own state, and ctypes releases the GIL. So other threads may tokenize while the step thread
decodes.
"""

from __future__ import annotations

import ctypes
import re
import unicodedata
from typing import Any

import llama_cpp.llama_cpp as lib

from ollama_async.workers.child.engines.engine import EngineError

_COMPOSES = b"ollama_async.tokenizer.nfc"
"""Key in files that we converted: the tokenizer normalizes text to NFC, the library does not."""
_MARK = re.compile(r"(<[^<>\s]*>)")


class LlamaTokenizer:
    """``model`` is the library's pointer, and must outlive this object."""

    def __init__(self, model: Any) -> None:
        self._vocab = lib.llama_model_get_vocab(model)
        self.size: int = lib.llama_vocab_n_tokens(self._vocab)
        self.adds_bos: bool = lib.llama_vocab_get_add_bos(self._vocab)
        self.bos = self._text(lib.llama_vocab_bos(self._vocab))
        self.eos = self._text(lib.llama_vocab_eos(self._vocab))
        self.suppressed = self._suppressed()
        self._composes = _metadata(model, _COMPOSES) == b"true"
        self._pieces: list[bytes | None] = [None] * self.size  # filled on demand

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of ``text``; lone surrogates count as "?".

        :raises EngineError: the library cannot tokenize this text.
        """
        data = (_composed(text) if self._composes else text).encode(errors="replace")
        capacity = len(data) + 8  # no token is shorter than a byte; space for BOS, EOS, a prefix
        tokens = (ctypes.c_int32 * capacity)()
        count = self._tokenize(data, tokens, add_special, parse_special)
        if count < 0:
            tokens = (ctypes.c_int32 * -count)()
            count = self._tokenize(data, tokens, add_special, parse_special)
        if count < 0:
            raise EngineError("the tokenizer refused the text")
        return tokens[:count]

    def piece(self, token: int) -> bytes:
        """The bytes of a token; empty for control tokens and unknown ids."""
        if not 0 <= token < self.size:
            return b""  # the library aborts the process on these
        piece = self._pieces[token]
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token, with_control=False)
        return piece

    def written(self, token: int) -> bytes:
        """The bytes of a token, with names of control tokens; empty for unknown ids."""
        return self._read_piece(token, with_control=True) if 0 <= token < self.size else b""

    def is_end(self, token: int) -> bool:
        return bool(lib.llama_vocab_is_eog(self._vocab, token))

    def _tokenize(self, data: bytes, tokens: Any, add_special: bool, parse_special: bool) -> int:
        count: int = lib.llama_tokenize(
            self._vocab, data, len(data), tokens, len(tokens), add_special, parse_special
        )
        return count

    def _read_piece(self, token: int, *, with_control: bool) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        read = lib.llama_token_to_piece
        size = read(self._vocab, token, buffer, len(buffer), 0, with_control)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = read(self._vocab, token, buffer, len(buffer), 0, with_control)
        return buffer.raw[: max(size, 0)]

    def _text(self, token: int) -> str:
        if token < 0:
            return ""
        raw: bytes | None = lib.llama_vocab_get_text(self._vocab, token)
        return raw.decode(errors="replace") if raw else ""

    def _suppressed(self) -> list[int]:
        """Tokens that must never be sampled, according to the model file."""
        count = ctypes.c_int32(0)
        tokens = lib.llama_vocab_get_suppress_tokens(self._vocab, ctypes.byref(count))
        return list(tokens[: count.value]) if tokens else []


def _composed(text: str) -> str:
    """As tokenizers do it: between marks, so that no mark is composed with what follows."""
    return "".join(unicodedata.normalize("NFC", part) for part in _MARK.split(text))


def _metadata(model: Any, key: bytes) -> bytes:
    """The value of a metadata key; b"" if there is none."""
    buffer = ctypes.create_string_buffer(64)
    size = lib.llama_model_meta_val_str(model, key, buffer, len(buffer))
    return buffer.value if size > 0 else b""
