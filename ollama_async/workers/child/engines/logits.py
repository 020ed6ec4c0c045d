"""The logits of one step: which are largest, and what probabilities they mean."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]

LEAST_LOGPROB = -9999.0
"""Of a token that the model holds impossible but a constraint forced; JSON has no infinity."""

_DIGITS = 7  # float32 has no more
_STRAND = 64  # logits in a strand
_MAX_SHARE = 4  # looking for strands pays while the number sought is at most 1/4 of them


def can_find_largest(count: int, vocab_size: int) -> bool:
    """Whether :func:`find_largest` is worth its own cost."""
    return count * _MAX_SHARE <= vocab_size // _STRAND


def find_largest(logits: Logits, count: int) -> NDArray[np.intp] | None:
    """Tokens among which are the ``count`` most likely, and hardly more; None: there is NaN.

    The row is split into many interleaved strands: at least ``count`` logits reach the strand
    maximum of that rank.
    """
    width = len(logits) // _STRAND
    maxima = logits[: width * _STRAND].reshape(_STRAND, width).max(axis=0)
    maxima.partition(width - count)
    chosen = np.flatnonzero(logits >= maxima[width - count])
    return chosen if len(chosen) >= count else None


def log_probabilities(
    logits: Logits, token: int, top: int
) -> tuple[float, list[tuple[int, float]]]:
    """The natural logarithms of the probabilities of ``token`` and of the ``top`` most likely
    tokens, best first, those of equal probability by id; impossible ones are left out.

    All are finite, at least :data:`LEAST_LOGPROB`. Costs about a pass over the vocabulary.
    """
    highest = float(logits.max())
    total = float(np.exp(logits - highest).sum()) if math.isfinite(highest) else math.nan
    if not math.isfinite(total):  # the model produced NaN
        return LEAST_LOGPROB, []
    base = highest + math.log(total)
    best: list[tuple[int, float]] = []
    if top:
        among = find_largest(logits, top) if can_find_largest(top, len(logits)) else None
        if among is None:
            among = np.arange(len(logits))
        ranked = among[np.argsort(-logits[among], kind="stable")[:top]]
        best = [
            (token, _bounded(value - base))
            for token, value in zip(ranked.tolist(), logits[ranked].tolist(), strict=True)
            if value > -math.inf
        ]
    return _bounded(float(logits[token]) - base), best


def _bounded(logprob: float) -> float:
    """Sums are not exact: without the upper bound, a certain token could be likelier than 1, and
    more digits would mean nothing.
    """
    return round(min(max(logprob, LEAST_LOGPROB), 0.0), _DIGITS)
