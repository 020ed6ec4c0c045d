"""Make the demo model from nothing: corpus, vocabulary, training, file, evaluation.

    python -m demo OUT.gguf

The same seed gives the same corpus on every machine; weights differ in their last digits between
processors and releases of PyTorch.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from random import Random

import msgspec
import torch

from demo.batches import encode
from demo.corpus import corpus, vocabulary
from demo.evaluate import SUITES, evaluate, table
from demo.export import export, load
from demo.model import Llama, Shape
from demo.tokenizer import Vocabulary
from demo.train import accuracy, new_model, train

_WATCH_EVERY = 500  # steps
_WATCHED = 40  # examples of each suite


class Round(msgspec.Struct, frozen=True):
    """Training on a corpus of its own; the other fields are as in :func:`train`."""

    seed: int
    mixture: str
    examples: int
    drilled: int
    pace: float


ROUNDS = (
    Round(seed=1, mixture="even", examples=260_000, drilled=10_000, pace=1.0),
    Round(seed=2, mixture="thoughtful", examples=30_000, drilled=0, pace=0.3),
)
"""Each but the first begins from the file that the one before it has written."""


def main() -> None:
    arguments = _arguments()
    # As losses fall, ever more numbers are denormal, and processors take ten times as long for
    # those. Said before there are threads, because each inherits it.
    torch.set_flush_denormal(True)
    torch.set_num_threads(arguments.threads)
    began = time.monotonic()
    words = vocabulary(ROUNDS[0].seed, ROUNDS[0].mixture)
    model = new_model(Shape(vocabulary=len(words.tokens)), ROUNDS[0].seed)
    for number, each in enumerate(ROUNDS, start=1):
        if number >= arguments.round:
            if number > 1:
                load(model, arguments.out)
            _teach(model, words, each, arguments)
    print(f"trained in {(time.monotonic() - began) / 60:.0f} minutes", flush=True)
    if arguments.evaluate:
        print(table(asyncio.run(evaluate(arguments.out))))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("out", type=Path, help="the GGUF file to write")
    parser.add_argument(
        "--round", type=int, default=1, help="begin with this one, from what OUT already is"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-evaluation", dest="evaluate", action="store_false")
    return parser.parse_args()


def _teach(model: Llama, words: Vocabulary, each: Round, arguments: argparse.Namespace) -> None:
    encoded = corpus(words, each.seed, each.examples, each.mixture, arguments.threads)
    tokens = sum(len(example.ids) for example in encoded)
    print(f"{each}: {len(encoded):,} examples, {tokens:,} tokens", flush=True)
    watch = _Watcher(words, arguments.out)
    train(
        model,
        encoded,
        seed=each.seed,
        drilled=each.drilled,
        pace=each.pace,
        watch=watch,
    )
    export(model, words, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes", flush=True)


class _Watcher:
    """Now and then writes the file as it is, and prints what share of held-out examples it would
    get right.
    """

    def __init__(self, words: Vocabulary, out: Path) -> None:
        self._words, self._out = words, out
        encoder = words.encoder()
        rng = Random(3)
        self._suites = {
            suite.name: list(encode((suite.make(rng) for _ in range(_WATCHED)), encoder))
            for suite in SUITES
        }

    def __call__(self, model: Llama, step: int) -> None:
        if step % _WATCH_EVERY == 0:
            export(model, self._words, self._out)
            shares = (
                f"{name.split(',')[0]} {accuracy(model, examples):.0%}"
                for name, examples in self._suites.items()
            )
            print(f"  held out: {', '.join(shares)}", flush=True)


if __name__ == "__main__":
    main()
