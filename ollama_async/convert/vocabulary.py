"""A tokenizer as a GGUF file holds it, whatever files it comes from."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from gguf import TokenType

from ollama_async.core.errors import BadRequest

MAX_TOKENS = 1 << 20
"""Against a file of a few bytes that has one token with an enormous number."""

_UNUSED_SCORE = -10000.0
ADDED_SCORE = -1000.0
_COMPOSES = "ollama_async.tokenizer.nfc"
"""llama.cpp knows no such key; the workers do."""
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


class GgufVocabulary(msgspec.Struct, kw_only=True):
    """``tokens`` by id, without holes at the end. ``extra``: more keys below ``tokenizer.ggml.``

    ``unknown``: the number of the token for what cannot be spelt, if the model names one.
    ``changes_added``: the tokenizer changes the texts of added tokens marked as ``normalized``.
    ``composes``: it composes characters (NFC), which is for our workers to do.
    """

    model: Literal["llama", "gpt2", "bert"]
    tokens: dict[int, Token]
    merges: list[str] = []
    extra: dict[str, Any] = {}
    unknown: int | None = None
    changes_added: bool = False
    composes: bool = False

    def put(self, number: int, token: Token) -> None:
        """:raises BadRequest: the number makes no sense."""
        if not 0 <= number < MAX_TOKENS:
            raise BadRequest(f"the tokenizer has a token with the number {number}")
        self.tokens[number] = token

    def add(self, number: int, text: str, *, is_special: bool) -> None:
        """A token beside the learnt ones, or in the place of one.

        :raises BadRequest: the number makes no sense.
        """
        old = self.tokens.get(number)
        kind = CONTROL if is_special else USER
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
        """llama.cpp ends its process where two tokens have the same text.

        It also takes some texts for marks of an end, whoever has learnt them.
        """
        known: set[str] = set()
        for token in tokens:
            if token.text in known:
                raise BadRequest(f"two tokens have the text {token.text[:80]!r}")
            known.add(token.text)
            if token.kind == NORMAL and token.text in SPECIAL_TEXTS:
                raise BadRequest(
                    f"the token {token.text!r} is an ordinary one here, which llama.cpp takes for "
                    "a mark; it has to be among the added tokens"
                )


"""Texts that llama.cpp looks for in every vocabulary, whatever kinds the tokens have there.

Tokens of these texts become marks: they are found in texts, and never made of pieces.
"""

END_TEXTS = {
    "</s>",
    "<EOT>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|calls|>",
    "<|call|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|flush|>",
    "<|im_end|>",
    "<|return|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",  # noqa: RUF001
    "[EOS]",
    "[EOT]",
    "[e~[",
    "_<EOT>",
}
"""After these an answer is over, if the file says nothing of it."""

SPECIAL_TEXTS = END_TEXTS | {
    "<MID>",
    "<PAD>",
    "<PRE>",
    "<REPO>",
    "<SUF>",
    "<fim-middle>",
    "<fim-pad>",
    "<fim-prefix>",
    "<fim-repo>",
    "<fim-suffix>",
    "<fim_middle>",
    "<fim_pad>",
    "<fim_prefix>",
    "<fim_suffix>",
    "<reponame>",
    "<|channel|>",
    "<|code_middle|>",
    "<|code_prefix|>",
    "<|code_suffix|>",
    "<|constrain|>",
    "<|file_sep|>",
    "<|fim_middle|>",
    "<|fim_pad|>",
    "<|fim_prefix|>",
    "<|fim_repo|>",
    "<|fim_suffix|>",
    "<|message|>",
    "<|middle|>",
    "<|prefix|>",
    "<|repo_name|>",
    "<|start|>",
    "<|suffix|>",
    "<｜fim▁begin｜>",  # noqa: RUF001
    "<｜fim▁end｜>",  # noqa: RUF001
    "<｜fim▁hole｜>",  # noqa: RUF001
    "[PAD]",
    "▁<MID>",
    "▁<PRE>",
    "▁<SUF>",
}
"""Those, and the parts of messages and of gaps in code."""
