"""Merges of pairs, done as tokenizers do them: to find tokens that merging never gives.

Where a whole word is a token, some tokenizers take it without merging (``ignore_merges``). That
only differs for tokens that their own merges do not lead to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

Merge = tuple[str, str]


def unreachable(texts: Iterable[str], merges: Iterable[Merge]) -> str | None:
    """The first of the texts that the merges do not make one of, None if there is none.

    A few seconds for the largest vocabularies.
    """
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    return next((text for text in texts if len(_merged(text, ranks)) > 1), None)


def _merged(text: str, ranks: Mapping[Merge, int]) -> list[str]:
    parts = list(text)
    while len(parts) > 1:
        pairs = [(ranks.get(pair, len(ranks)), at) for at, pair in enumerate(pairwise(parts))]
        rank, at = min(pairs)
        if rank == len(ranks):
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
