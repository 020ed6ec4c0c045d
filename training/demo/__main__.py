"""Make the demo model from nothing: corpus, vocabulary, training, file, evaluation.

    python -m training.demo OUT.gguf

The same seed gives the same corpus on every machine; weights differ in their last digits between
processors and releases of PyTorch.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from functools import partial
from pathlib import Path
from random import Random

import torch

from training.demo import tokenizer
from training.demo.batches import Encoded, encode
from training.demo.evaluate import SUITES, evaluate, table
from training.demo.export import export
from training.demo.mixture import examples
from training.demo.model import Llama, Shape
from training.demo.render import answer_text, prompt_text
from training.demo.train import accuracy, train

_VOCABULARY_EXAMPLES = 30_000
_PART = 5_000  # examples that a process makes at a time
_WATCH_EVERY = 250  # steps
_WATCHED = 40  # examples of each suite


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    began = time.monotonic()
    vocabulary = _vocabulary(arguments.seed)
    corpus = _corpus(vocabulary, arguments.seed, arguments.examples, arguments.threads)
    tokens = sum(len(encoded.ids) for encoded in corpus)
    print(
        f"corpus: {len(corpus):,} examples, {tokens:,} tokens, {len(vocabulary.tokens)} in the "
        f"vocabulary, {time.monotonic() - began:.0f} s",
        flush=True,
    )
    watch = _Watcher(vocabulary)
    shape = Shape(vocabulary=len(vocabulary.tokens))
    model = train(corpus, shape, seed=arguments.seed, watch=watch)
    export(model, vocabulary, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes", flush=True)
    print(f"trained in {(time.monotonic() - began) / 60:.0f} minutes", flush=True)
    if arguments.evaluate:
        print(table(asyncio.run(evaluate(arguments.out))))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.demo", description=__doc__)
    parser.add_argument("out", type=Path, help="the GGUF file to write")
    parser.add_argument("--examples", type=int, default=250_000, help="how many to train on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-evaluation", dest="evaluate", action="store_false")
    return parser.parse_args()


def _vocabulary(seed: int) -> tokenizer.Vocabulary:
    chosen = examples(seed, _VOCABULARY_EXAMPLES)
    return tokenizer.train([prompt_text(each) + answer_text(each) for each in chosen])


def _corpus(
    vocabulary: tokenizer.Vocabulary, seed: int, count: int, processes: int
) -> list[Encoded]:
    """Made in parts, each with a seed of its own, so that any number of processes give the same."""
    seeds = [seed * 1_000_000 + number for number in range(count // _PART)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.json"
        vocabulary.save(path)
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            parts = pool.map(partial(_part, path), seeds, chunksize=1)
    return [encoded for part in parts for encoded in part]


def _part(vocabulary: Path, seed: int) -> list[Encoded]:
    encoder = tokenizer.load(vocabulary).encoder()
    return list(encode(examples(seed, _PART), encoder))


class _Watcher:
    """Prints, now and then, what share of held-out examples the model would get right."""

    def __init__(self, vocabulary: tokenizer.Vocabulary) -> None:
        encoder = vocabulary.encoder()
        rng = Random(3)
        self._suites = {
            suite.name: list(encode((suite.make(rng) for _ in range(_WATCHED)), encoder))
            for suite in SUITES
        }

    def __call__(self, model: Llama, step: int) -> None:
        if step % _WATCH_EVERY == 0:
            shares = (
                f"{name.split(',')[0]} {accuracy(model, examples):.0%}"
                for name, examples in self._suites.items()
            )
            print(f"  held out: {', '.join(shares)}", flush=True)


if __name__ == "__main__":
    main()
