"""From examples to batches of equal length: token ids, and how much each next token counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.demo.example import Example
from training.demo.render import TURN_END, answer_text, prompt_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer  # only training needs that package

LENGTHS = (64, 96, 128, 192, 256, 320, 384, 512, 768, 1024, 2048)
"""Rows are padded to one of these, so that every batch has one of eleven shapes to compile for."""
TOKENS = 4096
"""In a batch, padding included."""
HEARD_WEIGHT = 0.1
"""A token that the model reads counts so much; one that it says counts 1. What it reads teaches the
language, but half of that are random words that nobody could predict."""
_SPEAKS = "<|im_start|>assistant\n"


class Encoded(msgspec.Struct, frozen=True):
    """Token ids of prompt and answer together; ``prompt`` is how many belong to the prompt.

    ``said`` marks the tokens that are the assistant's own words: the answer, and its turns earlier
    in the chat, each with its end. ``heard_weight`` is how much each other token counts.
    """

    ids: NDArray[np.uint16]
    prompt: int
    said: NDArray[np.bool_]
    heard_weight: float = HEARD_WEIGHT


class Batch(msgspec.Struct, frozen=True):
    """``ids`` ``[rows, time]``. Row-major ``positions`` of tokens whose next token is learned, with
    that ``target`` and its ``weight``; padded with weight 0 to half of all positions.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]


def encode(examples: Iterable[Example], tokenizer: Tokenizer) -> Iterator[Encoded]:
    """Examples longer than the longest row are left out."""
    speaks = tokenizer.encode(_SPEAKS).ids
    end = tokenizer.token_to_id(TURN_END)
    for example in examples:
        prompt = tokenizer.encode(prompt_text(example)).ids
        answer = tokenizer.encode(answer_text(example)).ids
        if len(prompt) + len(answer) <= LENGTHS[-1]:
            said = _turns(prompt, speaks, end) + [True] * len(answer)
            yield Encoded(np.array(prompt + answer, np.uint16), len(prompt), np.array(said))


def _turns(prompt: list[int], speaks: list[int], end: int) -> list[bool]:
    """Of each token, whether it belongs to an earlier turn of the assistant."""
    said = [False] * len(prompt)
    begin = 0
    while speaks[0] in prompt[begin:]:
        begin = prompt.index(speaks[0], begin) + 1
        first = begin - 1 + len(speaks)
        if prompt[begin - 1 : first] == speaks and end in prompt[first:]:
            begin = prompt.index(end, first) + 1
            said[first:begin] = [True] * (begin - first)
    return said


def drills(vocabulary: int, count: int, seed: int) -> list[Encoded]:
    """Pieces of random tokens, and then the same pieces in another order.

    Nothing but looking back for what followed the last time helps with these, so a network learns
    that in minutes; in sentences, where little is copied, it takes many times as long.
    """
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        pieces = [
            rng.integers(vocabulary, size=rng.integers(3, 9)) for _ in range(rng.integers(2, 9))
        ]
        first = np.concatenate(pieces)
        rng.shuffle(pieces)
        ids = np.concatenate([first, *pieces]).astype(np.uint16)
        said = np.arange(len(ids)) >= len(first)
        made.append(Encoded(ids, len(first), said, heard_weight=0))
    return made


def batches(corpus: list[Encoded], seed: int) -> list[list[Encoded]]:
    """The corpus in random order, in groups of similar length that fill a batch each."""
    order = list(range(len(corpus)))
    Random(seed).shuffle(order)
    waiting: dict[int, list[Encoded]] = {length: [] for length in LENGTHS}
    done: list[list[Encoded]] = []
    for number in order:
        encoded = corpus[number]
        length = row_length(len(encoded.ids))
        waiting[length].append(encoded)
        if len(waiting[length]) * length >= TOKENS:
            done.append(waiting[length])
            waiting[length] = []
    return done


def row_length(tokens: int) -> int:
    return next(length for length in LENGTHS if length >= tokens)


def collate(rows: list[Encoded], rng: np.random.Generator) -> Batch:
    """What is said is learned, and of the rest as much as there is room for."""
    length = row_length(max(len(row.ids) for row in rows))
    ids = np.zeros((len(rows), length), np.int64)
    weights = np.zeros((len(rows), length), np.float32)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        weights[number, : len(row.ids) - 1] = np.where(row.said[1:], 1, row.heard_weight)
    flat = weights.reshape(-1)
    room = flat.size // 2
    order = rng.permutation(flat.size)
    positions = order[np.argsort(-flat[order], kind="stable")][:room]
    positions.sort()
    following = np.roll(ids.reshape(-1), -1)
    return Batch(ids, positions, following[positions], flat[positions])
