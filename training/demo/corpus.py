"""The whole corpus as token ids, made in parallel, and the vocabulary learned from a part of it."""

from __future__ import annotations

import multiprocessing
import tempfile
from functools import partial
from pathlib import Path

from demo.batches import Encoded, encode
from demo.mixture import examples
from demo.render import answer_text, prompt_text
from demo.tokenizer import Vocabulary, load, train

_VOCABULARY_EXAMPLES = 30_000
_PART = 5_000  # examples that a process makes at a time


def vocabulary(seed: int, mixture: str) -> Vocabulary:
    chosen = examples(seed, _VOCABULARY_EXAMPLES, mixture)
    return train([prompt_text(each) + answer_text(each) for each in chosen])


def corpus(words: Vocabulary, seed: int, count: int, mixture: str, processes: int) -> list[Encoded]:
    """``count`` examples in whole parts. Each part has a seed of its own, so that any number of
    processes makes the same corpus.
    """
    seeds = [seed * 1_000_000 + number for number in range(count // _PART)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.json"
        words.save(path)
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            parts = pool.map(partial(_part, path, mixture), seeds, chunksize=1)
    return [encoded for part in parts for encoded in part]


def _part(path: Path, mixture: str, seed: int) -> list[Encoded]:
    return list(encode(examples(seed, _PART, mixture), load(path).encoder()))
