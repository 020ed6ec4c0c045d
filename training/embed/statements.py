"""Sentences that say the same, and sentences nearly like them that do not (``statements.txt``)."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from random import Random

import msgspec

from demo.families import expand
from demo.wording import capital, invented
from demo.words import is_held_out, words

_FOLDER = Path(__file__).parent
_SLOT = re.compile(r"\[(\w+?)(\d?)\]")
_INVENTED_SHARE = 0.25
"""Of people and places: the model cannot know their names, so it learns to compare spellings."""


class Triplet(msgspec.Struct, frozen=True):
    """``positive`` says what ``anchor`` says; ``negative`` is like it and says something else.

    Texts of equal ``meaning`` are never told apart. ``negative`` may be empty.
    """

    meaning: str
    anchor: str
    positive: str
    negative: str = ""

    @property
    def texts(self) -> tuple[str, str, str]:
        return self.anchor, self.positive, self.negative


def statement(rng: Random, *, held_out: bool) -> Triplet:
    """A pair of one meaning and a sentence of the same form with another content.

    With ``held_out`` the meaning is one that is never trained, and so are names of people and
    places in it.
    """
    while True:
        group = rng.randrange(len(_groups()))
        wordings = _groups()[group]
        chosen = {slot: _concept(rng, slot[0], held_out) for slot in _slots(wordings[0])}
        meaning = f"{group}: " + ", ".join("/".join(concept) for concept in chosen.values())
        if is_held_out(meaning) == held_out:
            break
    first, second = rng.sample(wordings, 2)
    changed = rng.choice(list(chosen))
    other = chosen[changed]
    while set(other) & set(chosen[changed]):
        other = _concept(rng, changed[0], held_out)
    return Triplet(
        meaning,
        _filled(rng, first, chosen),
        _filled(rng, second, chosen),
        _filled(rng, rng.choice(wordings), {**chosen, changed: other}),
    )


def all_words() -> list[str]:
    """Words of all lists and sentences, each once."""
    texts = [" ".join(names) for entries in _concepts().values() for names in entries]
    texts += [_SLOT.sub(" ", line) for group in _groups() for line in group]
    return sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())})


Concept = tuple[str, ...]
Slot = tuple[str, str]


@cache
def _groups() -> list[list[str]]:
    text = (_FOLDER / "statements.txt").read_text(encoding="utf-8")
    blocks = re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n", "", text).strip())
    return [block.splitlines() for block in blocks]


@cache
def _concepts() -> dict[str, list[Concept]]:
    lists: dict[str, list[Concept]] = {}
    for line in (_FOLDER / "concepts.txt").read_text(encoding="utf-8").splitlines():
        name, colon, entries = line.partition(": ")
        if colon and not line.startswith("#"):
            lists[name] = [tuple(entry.split("/")) for entry in entries.split(", ")]
    return lists


@cache
def _expanded(wording: str) -> list[str]:
    return expand(wording)


@cache
def _slots(wording: str) -> list[Slot]:
    return _SLOT.findall(wording)


def _concept(rng: Random, name: str, held_out: bool) -> Concept:
    if name in _concepts():
        return rng.choice(_concepts()[name])
    if name != "countries" and rng.random() < _INVENTED_SHARE:
        return (capital(invented(rng, held_out=held_out)),)
    return (rng.choice(words(name, held_out=held_out)),)


def _filled(rng: Random, wording: str, chosen: dict[Slot, Concept]) -> str:
    text = rng.choice(_expanded(wording))
    filled = _SLOT.sub(lambda slot: rng.choice(chosen[slot[1], slot[2]]), text)
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", filled)
