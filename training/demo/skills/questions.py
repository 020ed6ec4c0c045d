"""Known questions: a family's question in any wording gets the family's answer, in any chat."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from random import Random

from msgspec.structs import replace
from ollama_async.core.conversation import Message, Prompt

from demo.example import Example
from demo.families import Family, conversation, families, plain

SYSTEMS = (
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "You are a helpful AI assistant.",
    "You are an assistant that answers questions.",
    "Answer in short sentences.",
    "Be brief.",
    "Be kind and clear.",
    "Answer the user's questions as well as you can.",
    "You are a chat bot on a small website.",
    "You help people with their questions.",
    "Give short and true answers.",
    "You are a helpful, respectful and honest assistant.",
    "Keep your answers short.",
    "You are a polite assistant for everyone.",
)
"""System messages that change no answer."""

_GREETINGS = ("Hi! ", "Hello! ", "Hello, ", "Hey, ", "Hi, ", "Hey! ", "hi ", "OK, ", "So, ")
_REQUEST = re.compile(
    r"(tell|explain|write|give|say|describe|show|list|make|define|create|name|translate)\b",
    re.IGNORECASE,
)
_END = re.compile(r"[?!.。？！]+$")  # noqa: RUF001 - Chinese marks are meant
_CHINESE_ENDS = ("", "", "？", "。", "！", "?")  # noqa: RUF001 - same
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_SMALL_WORD = re.compile(
    r"(?<=\w )(the|a|an|is|are|do|does|did|can|you|me|my|i|of|to|in|for|please|it|there) (?=\w)",
    re.IGNORECASE,
)
_LONG_WORD = re.compile(r"\b[a-z]{6,}\b")
_WEIGHT_DOCUMENTED = 6
"""Prompts from documentation (``docs.*``) are what a newcomer tries first."""
_WEIGHT_OF_TABLE = 1
"""Their wordings are learned together."""
_WEIGHT = 2


def make(rng: Random, *, held_out: bool) -> Example:
    """A question in a trained wording; with ``held_out``, in one that is never trained."""
    if held_out:
        return rng.choice((make_paraphrase, make_wording))(rng)
    family = rng.choice(_weighted())
    return _example(rng, family, _varied(rng, family, typos=True))


def make_thoughtful(rng: Random, *, held_out: bool) -> Example:
    """The same with thinking always on."""
    example = make(rng, held_out=held_out)
    thought = example.answer.thinking or _thought(families()[example.family])
    return replace(
        example,
        prompt=replace(example.prompt, think=True),
        answer=replace(example.answer, thinking=thought),
    )


def make_paraphrase(rng: Random) -> Example:
    """An untrained combination of a line's alternatives; other combinations of it are trained."""
    return _held_out(rng, "held_out_paraphrases")


def make_wording(rng: Random) -> Example:
    """A wording from a line of which nothing is trained."""
    return _held_out(rng, "held_out_wordings")


def canonical() -> list[Example]:
    """The first wording of each family exactly as it is written, without thinking."""
    return [
        Example(
            skill="questions",
            family=family.name,
            prompt=Prompt(messages=_asked(family, lambda of: of.wordings[0]), think=False),
            answer=Message("assistant", family.answer),
        )
        for family in families().values()
    ]


def vary(rng: Random, text: str, *, polite: bool = True, typos: bool = False) -> str:
    """``text`` as somebody else types it: other case, end, greeting, and with ``typos`` slips."""
    if _CHINESE.search(text):
        return rng.choice((text, _END.sub("", text) + rng.choice(_CHINESE_ENDS)))
    if typos and rng.random() < 0.08:
        text = _without_one(rng, text)
    if typos and rng.random() < 0.05:
        text = _LONG_WORD.sub(lambda word: _slip(rng, word[0]), text, count=1)
    if rng.random() < 0.4:
        text = _END.sub(lambda end: rng.choice(("", "", "", end[0] * 2, end[0] + " ")), text)
    if polite:
        text = _politely(rng, text)
    text = _in_some_case(rng, text)
    return text + rng.choice((" ", "\n")) if rng.random() < 0.04 else text


def _example(rng: Random, family: Family, question: str) -> Example:
    messages = _asked(
        family, lambda of: question if of is family else _varied(rng, of, typos=False)
    )
    if messages[0].role == "system":
        messages[0] = Message("system", rng.choice(_chain(family)[0].systems))
    else:
        messages = [*_before(rng), *messages]
    think = rng.random() < 0.15
    return Example(
        skill="questions",
        family=family.name,
        prompt=Prompt(messages=messages, think=think),
        answer=Message("assistant", family.answer, _thought(family) if think else ""),
    )


def _held_out(rng: Random, side: str) -> Example:
    family, texts = rng.choice(_measured(side))
    return _example(rng, family, _vary_for(rng, family, rng.choice(texts)))


def _asked(family: Family, phrase: Callable[[Family], str]) -> list[Message]:
    """The chat up to the family's question, with the first system message where it wants one."""
    chain = _chain(family)
    messages = [Message("system", system) for system in chain[0].systems[:1]]
    for of in chain:
        messages.append(Message("user", phrase(of)))
        if of is not family:
            messages.append(Message("assistant", of.answer))
    return messages


def _before(rng: Random) -> list[Message]:
    """What often precedes a question and has nothing to do with it."""
    messages = [Message("system", rng.choice(SYSTEMS))] if rng.random() < 0.15 else []
    if rng.random() < 0.12:
        for family in rng.choices(_unbound(), k=rng.randint(1, 3)):
            messages.append(Message("user", _varied(rng, family, typos=False)))
            messages.append(Message("assistant", family.answer))
    return messages


def _varied(rng: Random, family: Family, *, typos: bool) -> str:
    """A trained wording. Each line counts the same, and the first one, as it is, a little more."""
    if rng.random() < 0.1:
        return family.wordings[0]
    return _vary_for(rng, family, rng.choice(rng.choice(family.trained)), typos=typos)


def _vary_for(rng: Random, family: Family, text: str, *, typos: bool = False) -> str:
    """A family with a system message of its own may take every word for material: add none."""
    return vary(rng, text, polite=not family.systems, typos=typos)


def _politely(rng: Random, text: str) -> str:
    chance = rng.random()
    if chance < 0.08:
        return rng.choice(_GREETINGS) + text
    if chance < 0.14 and _REQUEST.match(text):
        return rng.choice(("Please ", "please ", "Can you please ")) + text[0].lower() + text[1:]
    if chance < 0.17 and text.endswith("?"):
        return text[:-1] + rng.choice((", please?", " please", " please?"))
    return text


def _in_some_case(rng: Random, text: str) -> str:
    chance = rng.random()
    if chance < 0.3:
        return text.lower()
    if chance < 0.65:
        return text[0].upper() + text[1:]
    return text


def _without_one(rng: Random, text: str) -> str:
    """As in a hurry: one of the small words is missing, unless that is what is held out."""
    found = list(_SMALL_WORD.finditer(text))
    if not found:
        return text
    missing = rng.choice(found)
    shorter = text[: missing.start()] + text[missing.end() :]
    return text if plain(shorter) in _held_out_texts() else shorter


@cache
def _held_out_texts() -> frozenset[str]:
    return frozenset(
        plain(text)
        for of in families().values()
        for text in (*of.held_out_paraphrases, *of.held_out_wordings)
    )


def _slip(rng: Random, word: str) -> str:
    """Two letters swapped, one lost or one doubled."""
    at = rng.randrange(1, len(word) - 1)
    middle = rng.choice((word[at + 1] + word[at], word[at + 1], word[at] * 2 + word[at + 1]))
    return word[:at] + middle + word[at + 2 :]


def _thought(family: Family) -> str:
    if family.think:
        return family.think
    topic = _END.sub("", family.wordings[0])
    if _CHINESE.search(topic):
        return f"用户问：{topic}。这个我知道。"  # noqa: RUF001 - Chinese marks are meant
    return f"The user says: {topic}. I know what to answer."


def _chain(family: Family) -> list[Family]:
    return conversation(family, families())


@cache
def _weighted() -> list[Family]:
    return [family for family in families().values() for _ in range(_weight(family))]


def _weight(family: Family) -> int:
    if family.of_table:
        return _WEIGHT_OF_TABLE
    return _WEIGHT_DOCUMENTED if family.name.startswith("docs.") else _WEIGHT


@cache
def _measured(side: str) -> list[tuple[Family, list[str]]]:
    """The texts of ``side``, without those that a family of the same answer trains."""
    trained = {
        (plain(text), of.answer)
        for of in families().values()
        for line in of.trained
        for text in line
    }
    found = (
        (of, [text for text in getattr(of, side) if (plain(text), of.answer) not in trained])
        for of in families().values()
    )
    return [(of, texts) for of, texts in found if texts]


@cache
def _unbound() -> list[Family]:
    """The families that can be asked at any time."""
    return [of for of in families().values() if not of.systems and not of.after]
