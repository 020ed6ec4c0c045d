"""What the exported file reaches in llama.cpp, on texts that were not trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

import msgspec
import numpy as np

from embed.corpus import askable
from embed.engine import Embedder
from embed.statements import Triplet, statement

_TRIPLETS = Path(__file__).with_name("triplets.txt")
_SEED = 2
_MOST_OF_A_FAMILY = 5


class Score(msgspec.Struct, frozen=True):
    """``right`` of ``count`` cases of a measurement. ``wrong`` shows some others."""

    what: str
    right: int
    count: int
    wrong: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        return self.right / self.count


def measured(embedder: Embedder) -> list[Score]:
    rng = Random(_SEED)
    said = [statement(rng, held_out=True) for _ in range(1000)]
    return [
        _recalled(
            embedder,
            "paraphrases of trained wordings find their question",
            (
                (name, text)
                for name, family in askable().items()
                for text in _some(rng, family.held_out_paraphrases)
            ),
        ),
        _recalled(
            embedder,
            "new wordings find their question",
            (
                (name, text)
                for name, family in askable().items()
                for text in _some(rng, family.held_out_wordings)
            ),
        ),
        _ordered(
            embedder,
            "new statements lie nearer to a paraphrase than to one with another content",
            said,
        ),
        _ordered(
            embedder,
            "new statements lie nearer to a paraphrase than to any other statement",
            [
                Triplet(row.meaning, row.anchor, row.positive, other.anchor)
                for row, other in zip(said, [*said[1:], said[0]], strict=True)
            ],
        ),
        _ordered(
            embedder, "everyday sentences lie nearer to a paraphrase than to another", everyday()
        ),
    ]


def everyday() -> list[Triplet]:
    """Sentences that people write, many with words that the corpus does not have."""
    lines = _TRIPLETS.read_text(encoding="utf-8").splitlines()
    rows = (line.split(" | ") for line in lines if line and not line.startswith("#"))
    return [Triplet(row[0], *row) for row in rows]


def table(scores: Sequence[Score]) -> str:
    """In Markdown, for the model card."""
    rows = [f"| {score.what} | {score.count} | {score.share:.1%} |" for score in scores]
    return "\n".join(["| what | cases | right |", "|---|---:|---:|", *rows])


def _some(rng: Random, texts: Sequence[str]) -> list[str]:
    return rng.sample(list(texts), min(len(texts), _MOST_OF_A_FAMILY))


def _recalled(embedder: Embedder, what: str, asked: Iterable[tuple[str, str]]) -> Score:
    """How often the nearest of all canonical questions is the one of the same family."""
    names = list(askable())
    known = embedder.vectors([askable()[name].wordings[0] for name in names])
    cases = list(asked)
    nearest = (embedder.vectors([text for _, text in cases]) @ known.T).argmax(axis=1)
    wrong = [
        f"{text} -> {askable()[names[found]].wordings[0]}"
        for (name, text), found in zip(cases, nearest, strict=True)
        if names[found] != name
    ]
    return Score(what, len(cases) - len(wrong), len(cases), tuple(wrong))


def _ordered(embedder: Embedder, what: str, rows: Sequence[Triplet]) -> Score:
    """How often the anchor is nearer to its positive than to its negative."""
    anchors, positives, negatives = (
        embedder.vectors(texts) for texts in zip(*(row.texts for row in rows), strict=True)
    )
    right = np.sum(anchors * positives, axis=1) > np.sum(anchors * negatives, axis=1)
    wrong = [" | ".join(row.texts) for row, ok in zip(rows, right, strict=True) if not ok]
    return Score(what, len(rows) - len(wrong), len(rows), tuple(wrong))
