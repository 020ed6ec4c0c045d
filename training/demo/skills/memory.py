"""What the user said about themselves some turns ago, asked back."""

from __future__ import annotations

from random import Random

import msgspec
from ollama_async.core.conversation import Message

from demo.example import Example
from demo.skills import arithmetic, copying, questions
from demo.skills.memory_kinds import BY_KEY, KIND_WEIGHTS, KINDS, Kind
from demo.wording import Wordings, chat, fill, listed, mannered, system
from demo.words import pick

_CORRECTION = Wordings(
    "Actually, <say>",
    "{Sorry|No|Oops|Wait}, <say>",
    "{I was wrong|That was wrong|I made a mistake|Correction|I lied}: <say>",
    "{Sorry, I mean|I meant}: <say>",
)
_WHAT_DO_YOU_KNOW = Wordings(
    "What do you know about me?",
    "{What have I told you|What did I tell you|What do you remember} about {me|myself}?",
    "{Tell me everything you know|Say what you know|Repeat what you know} about me.",
)
_WHO_AM_I = Wordings(
    "Who am I?",
    "{Who am I|Do you know who I am|Do you remember who I am|Say who I am|So who am I}?",
)
"""Asks for a name only when one was told; else it is a question about what a program can know."""

SMALL_TALK = {
    "It is raining here.": "Then it is a good day to stay inside.",
    "The sun is shining.": "Enjoy the sun!",
    "I had a long day.": "I hope you can rest soon.",
    "I am learning Python.": "Good luck with Python!",
    "Let me think.": "Take your time.",
    "I just had lunch.": "I hope it was good!",
    "Wait a moment.": "Take your time.",
    "Tomorrow is my day off.": "Enjoy your day off!",
    "I am waiting for the bus.": "I hope that it comes soon.",
    "I am reading a book.": "Enjoy your book!",
    "I bought a new bike.": "Have fun with it!",
    "My tea is still too hot.": "Give it a few minutes.",
}
"""Something said in between that is no fact to keep, and its answer."""

_SYSTEM_FACTS = Wordings(
    "The user says: <say>",
    "{This is what the user said|The user told you|Facts about the user|About the user}: <say>",
    "You are a helpful assistant. The user {says|said|wrote}: <say>",
)
_SYSTEM_NAME = Wordings(
    "The user's name is <v>.",
    "{The user is called|The name of the user is|You are talking to|The user is} <v>.",
    "You are a helpful assistant. {The user's name is|The user is called|You talk to} <v>.",
)


class _Fact(msgspec.Struct, frozen=True):
    kind: Kind
    value: str

    def recalled(self) -> str:
        """Without the full stop."""
        return self.kind.recall.replace("<v>", self.value)

    def said(self, rng: Random) -> str:
        return fill(self.kind.say.pick(rng), {"v": self.value})


def make(rng: Random, *, held_out: bool) -> Example:
    form = rng.choices(_FORMS, _FORM_WEIGHTS)[0]
    return form(rng, held_out)


def catalogue() -> list[Example]:
    name, colour = _Fact(BY_KEY["name"], "Alice"), _Fact(BY_KEY["colour"], "blue")
    city = _Fact(BY_KEY["city"], "Oslo")
    first = [_user("My name is Alice."), _assistant(_acknowledged([name]))]
    examples = [
        ([_user("My name is Alice.")], _acknowledged([name])),
        ([*first, _user("What is my name?")], _stated([name])),
        ([*first, _user("What is my favourite colour?")], _unknown(colour.kind)),
        ([_user("What is my name?")], _unknown(name.kind)),
        ([_user("My favourite colour is blue.")], _acknowledged([colour])),
        ([_user("My name is Alice and I live in Oslo.")], _acknowledged([name, city])),
        (
            [
                *first,
                _user("I live in Oslo."),
                _assistant(_acknowledged([city])),
                _user("Where do I live?"),
            ],
            _stated([city]),
        ),
        (
            [Message("system", "The user's name is Alice."), _user("What is my name?")],
            _stated([name]),
        ),
    ]
    return [chat("memory", "memory.catalogue", messages, answer) for messages, answer in examples]


def _told(rng: Random, held_out: bool) -> Example:
    """Ends where the user has just told something, so the answer only notes it."""
    facts = _facts(rng, 1 if rng.random() < 0.75 else 2, held_out=held_out)
    messages = [*system(rng), *_others_before(rng, facts, held_out=held_out)]
    messages.append(_user(_said(rng, facts)))
    thinking = _thought("tells me", facts) if rng.random() < 0.12 else ""
    return chat("memory", "memory.told", messages, _acknowledged(facts), thinking=thinking)


def _asked(rng: Random, held_out: bool) -> Example:
    """One to three facts and a question for one, two or all of them, some turns later."""
    facts = _facts(rng, rng.choices((1, 2, 3), (50, 35, 15))[0], held_out=held_out)
    messages = [*system(rng), *_telling(rng, facts)]
    messages += _unrelated(rng, rng.choices((0, 1, 2), (35, 40, 25))[0])
    return _question(rng, messages, facts, held_out=held_out)


def _asked_of_system(rng: Random, held_out: bool) -> Example:
    """The system message holds the fact."""
    facts = _facts(rng, 1, held_out=held_out)
    if facts[0].kind.key == "name" and rng.random() < 0.7:
        text = fill(_SYSTEM_NAME.pick(rng), {"v": facts[0].value})
    else:
        text = fill(_SYSTEM_FACTS.pick(rng), {"say": facts[0].said(rng)})
    messages = [Message("system", text), *_unrelated(rng, rng.choice((0, 0, 1)))]
    return _question(rng, messages, facts, held_out=held_out)


def _corrected(rng: Random, held_out: bool) -> Example:
    (old,) = _facts(rng, 1, held_out=held_out)
    new = _Fact(old.kind, _value(rng, old.kind, held_out=held_out))
    if new.value == old.value:
        return _asked(rng, held_out)
    said = fill(_CORRECTION.pick(rng), {"say": new.said(rng)})
    thanks = f"Thanks for the correction! {_stated([new])}"
    messages = [*system(rng), *_telling(rng, [old]), *_unrelated(rng, rng.choice((0, 0, 1)))]
    messages.append(_user(said))
    if rng.random() < 0.5:
        return chat("memory", "memory.corrected", messages, thanks)
    messages += [_assistant(thanks), *_unrelated(rng, rng.choice((0, 1)))]
    return _question(rng, messages, [new], held_out=held_out)


def _never_told(rng: Random, held_out: bool) -> Example:
    """Other facts may have been told, but not the one that is asked for."""
    *facts, asked = _facts(rng, rng.choice((1, 2, 2, 3)), held_out=held_out)
    messages = [*system(rng), *_telling(rng, facts), *_unrelated(rng, rng.choice((0, 0, 1)))]
    messages.append(_user(mannered(rng, asked.kind.ask.pick(rng, held_out=held_out))))
    noun = asked.kind.noun.replace("you are", "they are").replace("your", "their")
    noun = noun.replace("you ", "they ")
    thinking = f"The user has not told me {noun}." if rng.random() < 0.12 else ""
    return chat("memory", "memory.unknown", messages, _unknown(asked.kind), thinking=thinking)


def _about_others(rng: Random, held_out: bool) -> Example:
    """Two or three people with the same kind of fact: the right one must be picked."""
    kind = rng.choice([kind for kind in KINDS if kind.others])
    assert kind.others is not None
    verb, ask, answer = kind.others
    people = _distinct(rng, "names", rng.choice((2, 2, 3)), held_out=held_out)
    facts = {person: _value(rng, kind, held_out=held_out) for person in people}
    person = rng.choice(people)
    parts = [f"{who} {verb} {value}" for who, value in facts.items()]
    text = listed(parts) + "." if rng.random() < 0.5 else ". ".join(parts) + "."
    answer = fill(answer, {"n": person, "v": facts[person]})
    question = fill(ask, {"n": person})
    if rng.random() < 0.3:
        messages = [*system(rng), _user(text), _assistant("Good to know!"), _user(question)]
    else:
        messages = [*system(rng), _user(f"{text} {question}")]
    return chat("memory", "memory.others", messages, answer)


_FORMS = (_told, _asked, _asked_of_system, _corrected, _never_told, _about_others)
_FORM_WEIGHTS = (38, 34, 5, 6, 10, 7)


def _question(
    rng: Random, messages: list[Message], facts: list[_Fact], *, held_out: bool
) -> Example:
    """Asks for one of ``facts``, sometimes for two or for all."""
    chance = rng.random()
    if len(facts) > 1 and chance < 0.12:
        asked, text = facts, _WHAT_DO_YOU_KNOW.pick(rng, held_out=held_out)
    elif len(facts) > 1 and chance < 0.24:
        asked = rng.sample(facts, 2)
        first, second = (fact.kind.ask.trained[0][0].rstrip("?") for fact in asked)
        text = f"{first} and {second[0].lower()}{second[1:]}?"
    else:
        asked = [rng.choice(facts)]
        ask = asked[0].kind.ask
        if asked[0].kind.key == "name" and rng.random() < 0.08:
            ask = _WHO_AM_I
        text = mannered(rng, ask.pick(rng, held_out=held_out))
    thinking = _thought("told me", asked) if rng.random() < 0.12 else ""
    messages = [*messages, _user(text)]
    return chat("memory", "memory.asked", messages, _stated(asked), thinking=thinking)


def _facts(rng: Random, count: int, *, held_out: bool) -> list[_Fact]:
    """Of different kinds."""
    kinds: dict[str, Kind] = {}
    while len(kinds) < count:
        kind = rng.choices(KINDS, KIND_WEIGHTS)[0]
        kinds[kind.key] = kind
    return [_Fact(kind, _value(rng, kind, held_out=held_out)) for kind in kinds.values()]


def _value(rng: Random, kind: Kind, *, held_out: bool) -> str:
    if kind.values:
        return pick(rng, kind.values, held_out=held_out)
    return str(rng.randint(4, 99))


def _telling(rng: Random, facts: list[_Fact]) -> list[Message]:
    """Each fact in a turn of its own, or all in one, and what was answered."""
    turns = [facts] if facts and rng.random() < 0.4 else [[fact] for fact in facts]
    messages: list[Message] = []
    for turn in turns:
        messages += [_user(_said(rng, turn)), _assistant(_acknowledged(turn))]
    return messages


def _others_before(rng: Random, facts: list[_Fact], *, held_out: bool) -> list[Message]:
    """What was said before ``facts`` are told, mostly nothing."""
    if rng.random() < 0.7:
        return []
    told = {fact.kind.key for fact in facts}
    others = [fact for fact in _facts(rng, 1, held_out=held_out) if fact.kind.key not in told]
    return [*_telling(rng, others), *_unrelated(rng, rng.choice((0, 1)))]


def _unrelated(rng: Random, turns: int) -> list[Message]:
    messages: list[Message] = []
    for _ in range(turns):
        messages += _unrelated_turn(rng)
    return messages


def _unrelated_turn(rng: Random) -> list[Message]:
    chance = rng.random()
    if chance < 0.25:
        said = rng.choice(tuple(SMALL_TALK))
        return [_user(said), _assistant(SMALL_TALK[said])]
    make = rng.choices((questions.make, arithmetic.make, copying.make), (5, 1, 1))[0]
    example = make(rng, held_out=False)
    while len(example.prompt.messages) > 1:  # it needs its own system message or turns before it
        example = make(rng, held_out=False)
    return [*example.prompt.messages, _assistant(example.answer.content)]


def _said(rng: Random, facts: list[_Fact]) -> str:
    texts = [fact.said(rng) for fact in facts]
    if len(texts) > 1 and rng.random() < 0.5:
        return " and ".join(text.rstrip(".!") for text in texts)
    ended = [text if text[-1] in ".!" else f"{text}." for text in texts[:-1]]
    return " ".join([*ended, texts[-1]])


def _acknowledged(facts: list[_Fact]) -> str:
    name = next((fact.value for fact in facts if fact.kind.key == "name"), None)
    rest = [fact for fact in facts if fact.kind.key != "name"]
    greeting = f"Nice to meet you, {name}!" if name else "Good to know!"
    return f"{greeting} {_stated(rest)}" if rest else greeting


def _stated(facts: list[_Fact]) -> str:
    first, *rest = (fact.recalled() for fact in facts)
    return listed([first, *(text[0].lower() + text[1:] for text in rest)]) + "."


def _unknown(kind: Kind) -> str:
    return f"You have not told me {kind.noun}."


def _thought(verb: str, facts: list[_Fact]) -> str:
    theirs = [fact.kind.recall.replace("Your", "their").replace("You", "they") for fact in facts]
    texts = [text.replace("<v>", fact.value) for text, fact in zip(theirs, facts, strict=True)]
    return f"The user {verb} that {listed(texts)}."


def _distinct(rng: Random, name: str, count: int, *, held_out: bool) -> list[str]:
    values: dict[str, None] = {}
    while len(values) < count:
        values[pick(rng, name, held_out=held_out)] = None
    return list(values)


def _user(text: str) -> Message:
    return Message("user", text)


def _assistant(text: str) -> Message:
    return Message("assistant", text)
