"""From examples to batches of equal length: token ids, and how much each next token counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from demo.example import Example
from demo.render import TURN_END, answer_text, prompt_text

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

    ``weights``: how much each token counts when it is the one to be foretold.
    """

    ids: NDArray[np.uint16]
    prompt: int
    weights: NDArray[np.float32]


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
            ids = np.array(prompt + answer, np.uint16)
            weights = np.append(_weights(prompt, speaks, end), np.ones(len(answer), np.float32))
            yield Encoded(ids, len(prompt), weights)


def _weights(prompt: list[int], speaks: list[int], end: int) -> NDArray[np.float32]:
    """Of the tokens of a prompt: the assistant's earlier turns, with their ends, are its own words.

    How a turn begins counts nothing, because the template decides that: it leaves the thoughts of
    earlier turns out, and writes an empty one where there is to be none. Learned, that would make
    the model forget to think.
    """
    weights = np.full(len(prompt), HEARD_WEIGHT, np.float32)
    for at in range(len(prompt)):
        first = at + len(speaks)
        if prompt[at:first] == speaks:
            if end in prompt[first:]:
                weights[first : prompt.index(end, first) + 1] = 1
                weights[first] = 0
            else:
                weights[first:] = 0
    return weights


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
        weights = (np.arange(len(ids)) >= len(first)).astype(np.float32)
        made.append(Encoded(ids, len(first), weights))
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
        weights[number, : len(row.ids) - 1] = row.weights[1:]
    flat = weights.reshape(-1)
    room = flat.size // 2
    order = rng.permutation(flat.size)
    positions = order[np.argsort(-flat[order], kind="stable")][:room]
    positions.sort()
    following = np.roll(ids.reshape(-1), -1)
    return Batch(ids, positions, following[positions], flat[positions])
