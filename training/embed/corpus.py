"""The seeded stream of what the embedding model learns from: triplets of four kinds.

- two wordings of one family of questions, and a wording of a related family;
- a question and its answer;
- two sentences of one meaning, and one of the same form with another content;
- words without grammar, most of them again, and some of them among others: whatever the words are,
  sentences that share them are near each other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from random import Random

from demo.families import Family, families, plain
from demo.wording import capital, invented
from embed.statements import Triplet, all_words, statement

_GREETINGS = ("please ", "hi, ", "hello! ", "hey ", "can you please ", "ok, ", "so, ")
_ENDINGS = ("", "", ".", "?", "!", " please", ", thanks")
_CANONICAL_SHARE = 0.3
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def triplets(seed: int) -> Iterator[Triplet]:
    """Endless; the same ones for the same seed. Nothing that is held out is in it."""
    rng = Random(seed)
    makers: tuple[Callable[[Random], Triplet], ...] = (question, answered, said, jumbled)
    while True:
        (make,) = rng.choices(makers, (0.62, 0.06, 0.25, 0.07))
        yield make(rng)


@cache
def askable() -> dict[str, Family]:
    """The families that a question alone tells from all others.

    A question that follows another one, or that a system message gives its meaning, says too
    little by itself; so does one that two families begin with.
    """
    alone = {
        name: family
        for name, family in families().items()
        if not family.after and not family.systems
    }
    first = Counter(plain(family.wordings[0]) for family in alone.values())
    return {name: family for name, family in alone.items() if first[plain(family.wordings[0])] == 1}


def question(rng: Random) -> Triplet:
    """Two trained wordings of a family and one of another, of the same group where there is one.

    The second one is often the canonical wording, which all others are to be found by.
    """
    family = rng.choice(list(askable().values()))
    relatives = [name for name in _groups()[_group(family)] if name != family.name]
    other = askable()[rng.choice(relatives or [name for name in askable() if name != family.name])]
    second = family.wordings[0] if rng.random() < _CANONICAL_SHARE else _wording(rng, family)
    texts = (_wording(rng, family), second, _wording(rng, other))
    return Triplet(family.name, *(roughened(rng, text) for text in texts))


def answered(rng: Random) -> Triplet:
    """A question and its answer; the negative is the answer to another question."""
    family, other = rng.sample(list(askable().values()), 2)
    return Triplet(family.name, _wording(rng, family), family.answer, other.answer)


def said(rng: Random) -> Triplet:
    triplet = statement(rng, held_out=False)
    return Triplet(
        triplet.meaning,
        *(
            roughened(rng, text, polite=False)
            for text in (triplet.anchor, triplet.positive, triplet.negative)
        ),
    )


def jumbled(rng: Random) -> Triplet:
    words = [
        capital(invented(rng, held_out=False)) if rng.random() < 0.1 else rng.choice(_vocabulary())
        for _ in range(rng.randint(4, 10))
    ]
    kept = words.copy()
    kept.pop(rng.randrange(len(kept)))
    if rng.random() < 0.5:
        rng.shuffle(kept)
    changed = [word if rng.random() < 0.5 else rng.choice(_vocabulary()) for word in words]
    return Triplet(
        " ".join(words),
        " ".join(words),
        roughened(rng, " ".join(kept), polite=False),
        " ".join(changed),
    )


def roughened(rng: Random, text: str, *, polite: bool = True) -> str:
    """As people type it: another end, a greeting, now and then a slip of the fingers."""
    text = text.rstrip(".?!") + rng.choice(_ENDINGS[: 7 if polite else 5])
    if polite and rng.random() < 0.2:
        text = rng.choice(_GREETINGS) + text
    return _mistyped(rng, text) if rng.random() < 0.1 else text


def _mistyped(rng: Random, text: str) -> str:
    at = rng.randrange(len(text))
    if not (text[at].isascii() and text[at].isalpha()):
        return text
    return (
        text[:at]
        + rng.choice(("", text[at] * 2, rng.choice(_LETTERS), text[at + 1 : at + 2] + text[at]))
        + text[at + 1 :]
    )


def _wording(rng: Random, family: Family) -> str:
    return rng.choice(rng.choice(family.trained))


def _group(family: Family) -> str:
    return family.name.partition(".")[0]


@cache
def _groups() -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for family in askable().values():
        groups[_group(family)].append(family.name)
    return groups


@cache
def _vocabulary() -> list[str]:
    """Words of the whole corpus, each once: rare ones shall be learned as well as frequent ones."""
    asked = (
        word
        for family in askable().values()
        for line in family.trained
        for text in (*line, family.answer)
        for word in plain(text).split()
    )
    return sorted({*all_words(), *asked})
