"""A tokenizer as a GGUF holds it, whichever files it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from gguf import TokenType

from ollama_async.convert.documents import Document
from ollama_async.errors import BadRequest

MAX_TOKENS = 1 << 20
"""Against a file of a few bytes that has one token with an enormous number."""

_UNUSED_SCORE = -10000.0
ADDED_SCORE = -1000.0

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = map(
    int,
    (
        TokenType.NORMAL,
        TokenType.UNKNOWN,
        TokenType.CONTROL,
        TokenType.USER_DEFINED,
        TokenType.UNUSED,
        TokenType.BYTE,
    ),
)


class Token(msgspec.Struct):
    """``kind``: one of the numbers above. ``score``: only of the model ``llama``."""

    text: str
    kind: int = NORMAL
    score: float = 0.0


class Vocabulary(msgspec.Struct, kw_only=True):
    """``tokens`` by id, without holes at the end. ``extra``: more keys below ``tokenizer.ggml.``"""

    model: Literal["llama", "gpt2", "bert"]
    tokens: dict[int, Token]
    merges: list[str] = []
    extra: dict[str, Any] = {}

    def put(self, number: int, token: Token) -> None:
        """:raises BadRequest: the number makes no sense."""
        if not 0 <= number < MAX_TOKENS:
            raise BadRequest(f"the tokenizer has a token with the number {number}")
        self.tokens[number] = token

    def add(self, number: int, added: Document) -> None:
        """A token beside the learnt ones, as ``tokenizer.json`` and its neighbours describe it."""
        text = added.text("content")
        old = self.tokens.get(number)
        kind = CONTROL if added.flag("special", default=False) else USER
        if old is not None and old.text == text and old.kind == UNKNOWN:
            kind = UNKNOWN
        self.put(number, Token(text, kind, ADDED_SCORE))

    def ids(self) -> dict[str, int]:
        """Number of each text; of the same text twice the first."""
        return {token.text: number for number, token in sorted(self.tokens.items(), reverse=True)}

    def fields(self, size: int) -> dict[str, Any]:
        """Keys and values for exactly ``size`` tokens: as many as the network has rows for."""
        blank = (Token(f"[PAD{number}]", UNUSED, _UNUSED_SCORE) for number in range(size))
        tokens = [self.tokens.get(number, token) for number, token in enumerate(blank)]
        found: dict[str, Any] = {
            "tokenizer.ggml.model": self.model,
            **{f"tokenizer.ggml.{key}": value for key, value in self.extra.items()},
            "tokenizer.ggml.tokens": [token.text for token in tokens],
            "tokenizer.ggml.token_type": [token.kind for token in tokens],
        }
        if self.model == "llama":
            found["tokenizer.ggml.scores"] = [token.score for token in tokens]
        if self.merges:
            found["tokenizer.ggml.merges"] = self.merges
        return found


def add_all(vocabulary: Vocabulary, documents: Mapping[str, Document]) -> None:
    """Added tokens of ``tokenizer.json``, ``tokenizer_config.json`` and ``added_tokens.json``.

    The same token is in several of them, in the last without its kind; the first says more.
    """
    known: set[int] = set()
    plain = documents.get("added_tokens.json")
    settings = documents.get("tokenizer_config.json")
    tokenizer = documents.get("tokenizer.json")
    found = [] if tokenizer is None else tokenizer.sections("added_tokens")
    decoder = settings.section("added_tokens_decoder") if settings is not None else None
    if decoder is not None:
        found += [_numbered(decoder, number) for number in decoder.values]
    if plain is not None:
        values = [{"id": number, "content": text} for text, number in plain.values.items()]
        found += [Document(plain.where, value) for value in values]
    for added in found:
        number = added.index("id")
        if number is None:
            raise BadRequest(f"{added.where}: a token has no number")
        if number not in known:
            vocabulary.add(number, added)
            known.add(number)


def _numbered(decoder: Document, number: str) -> Document:
    section = decoder.section(number)
    if section is None or not (number.isascii() and number.isdigit() and len(number) < 10):
        raise BadRequest(f"{decoder.where} has something that is no token")
    return section.over({"id": int(number)})
