"""The byte-level BPE vocabulary of the demo model, trained on its own corpus.

A word has the same pieces wherever it stands, because a space never joins the letters behind it
while merges are learned: ``Karvel`` in a question, in quotes and behind a space are the same
tokens, so the model copies a name that it has never seen by copying tokens. Only the most
frequent whole words then get a second token with the space in front; texts get a third shorter.

Texts are cut with the regular expression of Qwen2's vocabulary, which llama.cpp knows by the name
:data:`PRE_TOKENIZER`; merges learned on finer cuts give the same tokens with it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SIZE = 4096
PRE_TOKENIZER = "qwen2"
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Never shown to users."""
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
"""Single tokens too, but part of the text."""

_SPACED_WORDS = 700
_SPACE = "Ġ"  # how byte-level vocabularies write a space
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BEHIND_SPACE = re.compile(r" ([^\W\d_]+|[^\w\s]+)")
_FINER = r"\p{L}+|\p{N}|\s+|[^\s\p{L}\p{N}]+"


class Vocabulary(msgspec.Struct, frozen=True):
    """Token texts by id in byte-level writing, and the merges, best first."""

    tokens: list[str]
    merges: list[tuple[str, str]]

    def encoder(self) -> Tokenizer:
        """The tokenizer with the control tokens and marks recognised in any text."""
        ids = {text: number for number, text in enumerate(self.tokens)}
        tokenizer = Tokenizer(models.BPE(vocab=ids, merges=self.merges))
        tokenizer.pre_tokenizer = _cut(_QWEN2)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([*CONTROL, *MARKS])
        return tokenizer

    def save(self, path: Path) -> None:
        path.write_bytes(msgspec.json.encode(self))


def load(path: Path) -> Vocabulary:
    return msgspec.json.decode(path.read_bytes(), type=Vocabulary)


def train(texts: Sequence[str]) -> Vocabulary:
    """Learn the vocabulary; the same texts give the same one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _cut(_QWEN2, _FINER)
    pieces = SIZE - len(CONTROL) - len(MARKS) - _SPACED_WORDS
    trainer = trainers.BpeTrainer(
        vocab_size=pieces,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator((_without_marks(text) for text in texts), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    merges = [(left, right) for left, right in learned["merges"]]
    for word in _frequent(texts, set(tokens)):
        tokens.append(_SPACE + word)
        merges.append((_SPACE, word))
    return Vocabulary(tokens=[*tokens, *CONTROL, *MARKS], merges=merges)


def _cut(*patterns: str) -> pre_tokenizers.PreTokenizer:
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def _frequent(texts: Iterable[str], tokens: set[str]) -> list[str]:
    """The words and marks most often behind a space, of those that are single tokens."""
    counts = Counter(word for text in texts for word in _BEHIND_SPACE.findall(text))
    known = ((word, count) for word, count in counts.items() if word in tokens)
    ranked = sorted(known, key=lambda pair: (-pair[1], pair[0]))
    return [word for word, _ in ranked[:_SPACED_WORDS]]


def _without_marks(text: str) -> str:
    for mark in (*CONTROL, *MARKS):
        text = text.replace(mark, "\n")
    return text
