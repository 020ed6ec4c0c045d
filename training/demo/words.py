"""Word lists (``words/*.txt``, one entry a line), each split into words for training and held out.

A held-out word occurs in no training example at the place that the list is for, so an answer that
copies it shows that the model copies, not that it remembers.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from random import Random

_FOLDER = Path(__file__).with_name("words")
_HELD_OUT_IN_FIVE = 1


def is_held_out(text: str) -> bool:
    """One text in five, the same ones on every machine and in every version of Python."""
    return hashlib.sha256(text.encode()).digest()[0] % 5 < _HELD_OUT_IN_FIVE


@cache
def words(name: str, *, held_out: bool) -> list[str]:
    """The entries of ``words/NAME.txt`` on one side of the split, without ``#`` lines."""
    lines = (_FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    entries = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [entry for entry in entries if is_held_out(entry) == held_out]


def pick(rng: Random, name: str, *, held_out: bool) -> str:
    return rng.choice(words(name, held_out=held_out))
