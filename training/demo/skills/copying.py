"""Saying again what the prompt says, down to parts of words: what every other skill builds on."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ollama_async.core.conversation import Message

from demo.example import Example
from demo.wording import Wordings, capital, chat, fill, invented, listed, system
from demo.words import pick

_LISTS = ("names", "cities", "colours", "animals", "foods", "jobs", "objects", "countries")
_TEMPLATES = (
    "The <a> is <c>.",
    "My <a> likes <f>.",
    "<n> has a <c> <a>.",
    "<n> lives in <t>.",
    "<n> and <m> eat <f>.",
    "I see a <c> <a> in <t>.",
    "There is a <a> on the <o>.",
    "<n> bought a <o> in <t>.",
    "The <o> belongs to <n>.",
    "<i> <i> <i>",
    "Good morning, <n>!",
    "<n> is a <j> from <t>.",
    "Where is my <o>?",
)

_REPEAT = Wordings(
    "Repeat after me: <x>",
    "{Repeat|Say|Copy|Write|Echo|Please repeat|Please say} {this|after me|exactly this}: <x>",
    "{Repeat|Say|Copy|Can you repeat} the following{| words| text}: <x>",
    "{Repeat|Say|Copy|Write|Echo}: <x>",
    "{Reply|Answer|Respond} with {only|exactly|just|nothing but|}{ this|}: <x>",
    "{Reply|Answer|Respond} {only with|with only|with just}: <x>",
    "{Repeat|Copy|Say|Echo} the {text|sentence|words} {after the colon|that follows|}: <x>",
    '{Say|Repeat|Reply with|Write|Copy|Echo|Print|Output} "<x>"{|.}',
    "{Say|Repeat|Reply with|Write|Print} '<x>'{|.}",
    "{Say|Repeat|Echo|Print|Write} <x>",
)
_QUOTE = Wordings(
    "Put <x> in quotes.",
    "{Put|Write|Set} {the word |}<x> in {quotes|quotation marks|double quotes}.",
    "{Quote|Please quote} {the word |}<x>.",
)
_TIMES = Wordings(
    "Write the word <x> <k> times.",
    "{Write|Say|Repeat|Print|Type} {the word |}<x> <k> times.",
    "{Write|Say|Repeat} <k> times: <x>",
)
_PAIR = Wordings("<k>: <v>", "<k> = <v>", "<k> is <v>", "<k> has <v>", "the code of <k> is <v>")
_LOOK_UP = Wordings(
    "What is the <what> of <k>?",
    "{What is|What's|Give me|Tell me|Find|Which is} the <what> {of|for} <k>?",
    "<what> of <k>?",
    "{What|Which} <what> {does <k> have|has <k>|belongs to <k>}?",
    "And the <what> of <k>?",
)
_NTH = Wordings(
    "Which of these is <n>?",
    "{Which|What} {of these |word |item |one |}{is|comes} <n>?",
    "{What is|Name|Give me|Tell me|Write} the <n> {word|item|one|entry}{| of the list}.",
)
_LIST = Wordings(
    "<ask> <items>",
    "{Here is a list|List|Look at this list|Words}: <items>. <ask>",
    "<items>. <ask>",
)
_ORDINALS = ("first", "second", "third", "last")
_COUNTS = {"two": 2, "three": 3, "2": 2, "3": 3, "4": 4, "four": 4}
_WHATS = ("code", "number", "key", "price", "value", "score", "word", "colour", "room")


def make(rng: Random, *, held_out: bool) -> Example:
    kind = rng.choices(_KINDS, _WEIGHTS)[0]
    return kind(rng, held_out)


def catalogue() -> list[Example]:
    asked = {
        "Repeat after me: The sky is blue.": "The sky is blue.",
        'Say "the moon is bright"': "the moon is bright",
        "Reply with only: OK": "OK",
        "Put banana in quotes.": '"banana"',
        "Write the word hello three times.": "hello hello hello",
        "code of Alice: 4711; code of Ben: 2213. What is the code of Ben?": "2213",
        "Which of these is third? red, green, blue, white": "blue",
    }
    return [
        chat("copying", "copying.catalogue", [Message("user", text)], answer)
        for text, answer in asked.items()
    ]


def _repeat(rng: Random, held_out: bool) -> Example:
    chance = rng.random()
    if chance < 0.35:
        text = _sentence(rng, held_out=held_out)
    elif chance < 0.75:
        text = " ".join(_word(rng, held_out=held_out) for _ in range(rng.randint(1, 5)))
    else:
        text = _value(rng, held_out=held_out)
    ask = fill(_REPEAT.pick(rng), {"x": text})
    if text[-1] in ".!?" and ask.endswith(f"{text}."):
        ask = ask[:-1]
    return _asked(rng, "repeat", ask, text)


def _quote(rng: Random, held_out: bool) -> Example:
    word = _value(rng, held_out=held_out)
    return _asked(rng, "quote", fill(_QUOTE.pick(rng), {"x": word}), f'"{word}"')


def _times(rng: Random, held_out: bool) -> Example:
    word = _word(rng, held_out=held_out)
    count = rng.choice(tuple(_COUNTS))
    ask = fill(_TIMES.pick(rng), {"x": word, "k": count})
    return _asked(rng, "times", ask, " ".join([word] * _COUNTS[count]))


def _look_up(rng: Random, held_out: bool) -> Example:
    keys = _different(rng, rng.randint(2, 5), lambda: _value(rng, held_out=held_out))
    values = [_code(rng, held_out=held_out) for _ in keys]
    pair = _PAIR.pick(rng)
    what = "code" if "code" in pair else rng.choice(_WHATS)
    separator = rng.choice(("; ", ", ", "\n", ". "))
    facts = separator.join(
        fill(pair, {"k": key, "v": value}) for key, value in zip(keys, values, strict=True)
    )
    wanted = rng.randrange(len(keys))
    ask = fill(_LOOK_UP.pick(rng), {"k": keys[wanted], "what": what})
    if rng.random() < 0.15:
        messages = [Message("system", facts), Message("user", ask)]
        return chat("copying", "copying.look-up", messages, values[wanted])
    joint = "\n" if separator == "\n" else rng.choice((". ", "\n", ".\n", ". "))
    text = f"{facts}{joint}{capital(ask)}" if rng.random() < 0.9 else f"{ask}\n{facts}"
    return _asked(rng, "look-up", text, values[wanted], plainly=True)


def _nth(rng: Random, held_out: bool) -> Example:
    items = _different(rng, rng.randint(3, 5), _one_list(rng, held_out=held_out))
    ordinal = rng.choice(_ORDINALS)
    at = {"first": 0, "second": 1, "third": 2, "last": -1}[ordinal]
    ask = fill(_NTH.pick(rng), {"n": ordinal})
    text = fill(_LIST.pick(rng), {"ask": ask, "items": ", ".join(items)})
    return _asked(rng, "nth", text, items[at], plainly=True)


def _join(rng: Random, held_out: bool) -> Example:
    items = _different(rng, rng.randint(2, 4), lambda: _value(rng, held_out=held_out))
    if rng.random() < 0.5:
        text, answer = f"Write these on one line:\n{chr(10).join(items)}", ", ".join(items)
    else:
        text = f"Write as a list: {rng.choice((', '.join(items), listed(items)))}"
        answer = "\n".join(f"- {item}" for item in items)
    return _asked(rng, "join", text, answer, plainly=True)


_KINDS = (_repeat, _quote, _times, _look_up, _nth, _join)
_WEIGHTS = (45, 10, 8, 22, 10, 5)


def _asked(rng: Random, kind: str, text: str, answer: str, *, plainly: bool = False) -> Example:
    # What is to be repeated ends the text, so manners may only come before it.
    if not plainly and rng.random() < 0.2:
        text = rng.choice((f"please {text[0].lower()}{text[1:]}", text[0].lower() + text[1:]))
    return chat("copying", f"copying.{kind}", [*system(rng), Message("user", text)], answer)


def _sentence(rng: Random, *, held_out: bool) -> str:
    values = {
        slot: pick(rng, name, held_out=held_out)
        for slot, name in zip(
            "acfntmoj",
            ("animals", "colours", "foods", "names", "cities", "names", "objects", "jobs"),
            strict=True,
        )
    }
    return fill(rng.choice(_TEMPLATES), values | {"i": invented(rng, held_out=held_out)})


def _value(rng: Random, *, held_out: bool) -> str:
    """A name, a thing or a word never heard, as it comes."""
    chance = rng.random()
    if chance < 0.45:
        return pick(rng, rng.choice(_LISTS), held_out=held_out)
    return _word(rng, held_out=held_out)


def _word(rng: Random, *, held_out: bool) -> str:
    word = invented(rng, held_out=held_out)
    chance = rng.random()
    if chance < 0.6:
        return word
    return word.upper() if chance > 0.95 else capital(word)


def _code(rng: Random, *, held_out: bool) -> str:
    chance = rng.random()
    if chance < 0.6:
        return str(rng.randint(1, 9) if chance < 0.1 else rng.randint(10, 9999))
    return _value(rng, held_out=held_out)


def _one_list(rng: Random, *, held_out: bool) -> Callable[[], str]:
    name = rng.choice((*_LISTS, ""))
    return lambda: pick(rng, name, held_out=held_out) if name else invented(rng, held_out=held_out)


def _different(rng: Random, count: int, draw: Callable[[], str]) -> list[str]:
    """``count`` values of which none is another, in a random order."""
    values: dict[str, None] = {}
    while len(values) < count:
        values[draw()] = None
    return rng.sample(list(values), count)
