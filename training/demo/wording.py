"""Many ways to say one thing: lines with alternatives and ``<slots>``, and varied manners."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from ollama_async.core.conversation import Message, Prompt

from demo.example import Example, Rule
from demo.families import expand, plain
from demo.skills.questions import SYSTEMS
from demo.words import is_held_out, words

_SLOT = re.compile(r"<(\w+)>")
_GREETINGS = ("Hi", "Hello", "Hey", "Hi there", "Good morning", "Okay")
_VOWELS = "aeiouAEIOU"
_MARKS = ".!?"
_OFFENSIVE = re.compile(
    "anal|bich|chink|chod|dago|dik|fag|fuc|fuk|gook|hamas|hebe|homo|jap|jew|jiz|kafi|kike|klan|"
    "loli|moron|naz|negr|nig|paki|pede|pedo|penis|poof|porn|pube|pusi|puta|puto|rape|rapi|retar|"
    "semen|shag|shit|tit|trann|vagin|wop",
    re.IGNORECASE,
)


class Wordings:
    """Texts made of ``lines`` (alternatives in braces, not nested), each line as likely.

    Of the expansions one in five is held out, except the first line's first one.
    """

    def __init__(self, *lines: str) -> None:
        expansions = [expand(line) for line in lines]
        first = expansions[0][0]
        self.trained = [
            kept
            for texts in expansions
            if (kept := [text for text in texts if text == first or not _is_held_out(text)])
        ]
        self.held_out = [
            text for texts in expansions for text in texts if text != first and _is_held_out(text)
        ]

    def pick(self, rng: Random, *, held_out: bool = False) -> str:
        if held_out and self.held_out:
            return rng.choice(self.held_out)
        return rng.choice(rng.choice(self.trained))


def _is_held_out(text: str) -> bool:
    return is_held_out(plain(text) or text)


def fill(text: str, values: dict[str, str]) -> str:
    """``text`` with its ``<slots>`` replaced. Raises ``KeyError`` for one without a value."""
    return _SLOT.sub(lambda match: values[match[1]], text)


def mannered(rng: Random, text: str) -> str:
    """``text`` as somebody else would type it: greeting, politeness, case, last mark.

    Only the first letter's case changes, so values in the text stay as they are.
    """
    return rng.choices(_MANNERS, _MANNER_WEIGHTS)[0](rng, text)


def _greeted(rng: Random, text: str) -> str:
    return f"{rng.choice(_GREETINGS)}{rng.choice((', ', '! ', ' '))}{_lower_first(text)}"


def _polite(_: Random, text: str) -> str:
    mark = text[-1] if text[-1] in _MARKS else ""
    return f"{text.rstrip(_MARKS)}, please{mark}"


def _unmarked(_: Random, text: str) -> str:
    return text.rstrip(_MARKS)


def _sloppy(rng: Random, text: str) -> str:
    """As in a hurry: a small first letter, perhaps no mark or one set apart."""
    bare = _lower_first(text).rstrip(_MARKS)
    return bare + rng.choice(("", "", "", "?", " ?", "?", " "))


_MANNERS = (lambda _, text: text, _greeted, _polite, _unmarked, _sloppy)
_MANNER_WEIGHTS = (55, 10, 7, 8, 20)


def _lower_first(text: str) -> str:
    """Keeps ``I`` and words in capitals."""
    return text if text[:2].isupper() or text[:2] in ("I ", "I'") else text[0].lower() + text[1:]


def invented(rng: Random, *, held_out: bool, most: int = 3) -> str:
    """A word of two to ``most`` syllables that no list has and that offends nobody."""
    syllables = words("syllables", held_out=held_out)
    while True:
        word = "".join(rng.choice(syllables) for _ in range(rng.randint(2, most)))
        if not _OFFENSIVE.search(word):
            return word


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in _VOWELS and not noun.startswith('uni') else 'a'} {noun}"


def capital(text: str) -> str:
    """``text`` with a capital first letter and the rest as it is."""
    return text[:1].upper() + text[1:]


def listed(items: Sequence[object], last: str = " and ") -> str:
    """``a``, ``a and b`` or ``a, b and c``."""
    texts = [str(item) for item in items]
    return last.join((", ".join(texts[:-1]), texts[-1])) if len(texts) > 1 else "".join(texts)


def system(rng: Random, chance: float = 0.2) -> list[Message]:
    """Sometimes a system message that says nothing about the task."""
    return [Message("system", rng.choice(SYSTEMS))] if rng.random() < chance else []


def chat(
    skill: str,
    family: str,
    messages: list[Message],
    answer: str,
    *,
    thinking: str = "",
    rule: Rule = "same text",
) -> Example:
    """An example without tools; ``thinking`` means that thinking is on."""
    prompt = Prompt(messages=messages, think=True if thinking else None)
    return Example(skill, family, prompt, Message("assistant", answer, thinking), rule)
