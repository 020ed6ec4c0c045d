"""``python -m embed OUT.gguf``: learn the pieces, train, export, measure. Minutes."""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from embed.corpus import triplets
from embed.engine import Embedder, opened
from embed.evaluate import everyday, measured, table
from embed.export import write_gguf
from embed.model import Shape, Weights, embed
from embed.tokenizer import WordPiece
from embed.train import Plan, train
from embed.vocabulary import learn_pieces

_PIECES = 3072
_ROWS_FOR_PIECES = 60_000
_WRONG_SHOWN = 10


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    began = time.monotonic()
    rows = islice(triplets(seed=0), _ROWS_FOR_PIECES)
    pieces = WordPiece(learn_pieces((text for row in rows for text in row.texts), _PIECES))
    shape = Shape(vocabulary=len(pieces.pieces))
    weights = train(pieces, shape, Plan(steps=arguments.steps))
    write_gguf(arguments.out, pieces.pieces, shape, weights)
    print(
        f"{arguments.out}: {arguments.out.stat().st_size} bytes, {time.monotonic() - began:.0f} s"
    )
    with opened(arguments.out) as embedder:
        scores = measured(embedder)
        difference = _difference(embedder, pieces, shape, weights)
    for score in scores:
        for text in score.wrong[:_WRONG_SHOWN]:
            print(f"wrong: {text}")
    print(table(scores))
    print(f"Largest difference of a coordinate between training and engine: {difference:.4f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m embed", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.gguf")
    parser.add_argument("--steps", type=int, default=Plan().steps)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _difference(embedder: Embedder, pieces: WordPiece, shape: Shape, weights: Weights) -> float:
    texts = [text for row in everyday() for text in row.texts]
    with torch.no_grad():
        trained = embed(weights, shape, [pieces.encode(text, shape.positions) for text in texts])
    return float(np.abs(trained.numpy() - embedder.vectors(texts)).max())


if __name__ == "__main__":
    main()
