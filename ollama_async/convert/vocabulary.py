"""A tokenizer as stored in a GGUF file."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from gguf import TokenType

from ollama_async.core.errors import BadRequest

MAX_TOKENS = 1 << 20
"""Bounds the memory for a small file with an enormous token number."""

_UNUSED_SCORE = -10000.0
ADDED_SCORE = -1000.0
_COMPOSES = "ollama_async.tokenizer.nfc"
"""Our own key, which our workers read."""
NORMAL, UNKNOWN, CONTROL = int(TokenType.NORMAL), int(TokenType.UNKNOWN), int(TokenType.CONTROL)
USER, UNUSED, BYTE = int(TokenType.USER_DEFINED), int(TokenType.UNUSED), int(TokenType.BYTE)


class Token(msgspec.Struct):
    """``kind``: one of the numbers above. ``score``: only of the model ``llama``."""

    text: str
    kind: int = NORMAL
    score: float = 0.0


class GgufVocabulary(msgspec.Struct, kw_only=True):
    """``tokens`` by number. ``extra``: more keys below ``tokenizer.ggml.``

    ``unknown``: the number of the unknown token, if there is one. ``changes_added``: added tokens
    marked as ``normalized`` are normalized. ``composes``: characters are composed (NFC) first,
    which our workers do for llama.cpp.
    """

    model: Literal["llama", "gpt2", "bert"]
    tokens: dict[int, Token]
    merges: list[str] = []
    extra: dict[str, Any] = {}
    unknown: int | None = None
    changes_added: bool = False
    composes: bool = False

    def put(self, number: int, token: Token) -> None:
        """:raises BadRequest: the number is invalid."""
        if not 0 <= number < MAX_TOKENS:
            raise BadRequest(f"the tokenizer has a token with the number {number}")
        self.tokens[number] = token

    def add(self, number: int, text: str, *, is_special: bool) -> None:
        """Add a token, or replace a learned one. :raises BadRequest: the number is invalid."""
        old = self.tokens.get(number)
        kind = CONTROL if is_special else USER
        if old is not None and old.text == text and old.kind == UNKNOWN:
            kind = UNKNOWN
        self.put(number, Token(text, kind, ADDED_SCORE))

    def ids(self) -> dict[str, int]:
        """The number of each text; the first if several tokens have it."""
        return {token.text: number for number, token in sorted(self.tokens.items(), reverse=True)}

    def fields(self, size: int) -> dict[str, Any]:
        """Keys and values for exactly ``size`` tokens, the rows of the network."""
        padding = (Token(f"[PAD{number}]", UNUSED, _UNUSED_SCORE) for number in range(size))
        tokens = [self.tokens.get(number, token) for number, token in enumerate(padding)]
        self._check_texts(tokens)
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
        if self.composes:
            found[_COMPOSES] = True
        return found

    def _check_texts(self, tokens: list[Token]) -> None:
        """llama.cpp aborts for two tokens with the same text, and treats some texts as special
        tokens of any kind.
        """
        known: set[str] = set()
        for token in tokens:
            if token.text in known:
                raise BadRequest(f"two tokens have the text {token.text[:80]!r}")
            known.add(token.text)
            if token.kind == NORMAL and token.text in SPECIAL_TEXTS:
                raise BadRequest(
                    f"the token {token.text!r} is an ordinary one here, but special to "
                    "llama.cpp; it must be among the added tokens"
                )


END_TEXTS = {
    *("</s>", "<EOT>", "<end_of_turn>", "<end_of_utterance>", "<eos>", "<turn|>"),
    *("<|calls|>", "<|call|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>"),
    *("<|eom_id|>", "<|eot_id|>", "<|flush|>", "<|im_end|>", "<|return|>"),
    *("<|tool_response>", "[EOS]", "[EOT]", "[e~[", "_<EOT>", "<｜end▁of▁sentence｜>"),  # noqa: RUF001
}
"""llama.cpp ends answers at tokens with these texts, without a key in the file."""

SPECIAL_TEXTS = END_TEXTS | {
    *("<MID>", "<PAD>", "<PRE>", "<REPO>", "<SUF>", "<fim-middle>", "<fim-pad>"),
    *("<fim-prefix>", "<fim-repo>", "<fim-suffix>", "<fim_middle>", "<fim_pad>"),
    *("<fim_prefix>", "<fim_suffix>", "<reponame>", "<|channel|>", "<|code_middle|>"),
    *("<|code_prefix|>", "<|code_suffix|>", "<|constrain|>", "<|file_sep|>"),
    *("<|fim_middle|>", "<|fim_pad|>", "<|fim_prefix|>", "<|fim_repo|>"),
    *("<|fim_suffix|>", "<|message|>", "<|middle|>", "<|prefix|>", "<|repo_name|>"),
    *("<|start|>", "<|suffix|>", "[PAD]", "▁<MID>", "▁<PRE>", "▁<SUF>"),
    *("<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜fim▁hole｜>"),  # noqa: RUF001
}
"""llama.cpp treats tokens with these texts as special tokens of any kind: it finds them in texts,
and does not merge pieces into them. The others are for messages and for gaps in code."""
