"""What the user said about themselves some turns ago, asked back."""

from __future__ import annotations

from random import Random

import msgspec

from ollama_async.conversation import Message
from training.demo.example import Example
from training.demo.skills import arithmetic, copying, questions
from training.demo.wording import Wordings, chat, fill, listed, mannered, system
from training.demo.words import pick


class _Kind(msgspec.Struct, frozen=True):
    """A kind of fact: ``values`` is a list of words (``""``: an age), ``<v>`` stands for the value.

    ``recall`` states it to the user and ``noun`` names it in "You have not told me …".
    ``others`` (``<n>`` has it) asks the same about somebody else.
    """

    key: str
    values: str
    say: Wordings
    ask: Wordings
    recall: str
    noun: str
    others: tuple[str, str, str] | None = None


_KINDS = (
    _Kind(
        "name",
        "names",
        Wordings(
            "My name is <v>.",
            "{My name is|I am|I'm|Call me|You can call me|They call me} <v>{.|!}",
            "{Hi|Hello|Hey}{,|!} {my name is|my name's|I am|I'm|this is} <v>{.|!|}",
            "{I am called|Please call me|Everyone calls me|People call me|The name is} <v>.",
            "{my name is|i am|i'm|call me|my name's|name's} <v>",
            "{Remember|Please remember|Note}{ this|}: my name is <v>.",
            "{Nice to meet you|Good morning|Good evening}, {I am|I'm|my name is} <v>.",
            "Let me introduce myself{:|.} {I am|I'm|My name is} <v>.",
        ),
        Wordings(
            "What is my name?",
            "{What's|What is|What was|Whats} my name{| again| now}?",
            "{Do you know|Do you remember|Can you recall|Tell me} {my name|what my name is}?",
            "{Do you know|Do you remember|Can you say} what I am called?",
            "{Tell me|Say|Please tell me|Remind me of} my name.",
            "{What am I called|How am I called|What should you call me}?",
            "{So|And|Now|Quick question:|OK,|By the way,} what is my name?",
            "{What name did I|Which name did I} {tell you|give you|say}?",
            "{I forgot|I forget|Have you forgotten} my name. What is it?",
            "My name{| is}?",
        ),
        "Your name is <v>",
        "your name",
        ("is called", "", ""),
    ),
    _Kind(
        "colour",
        "colours",
        Wordings(
            "My favourite colour is <v>.",
            "My {favourite colour|favorite color|preferred colour} is <v>{.|!|}",
            "{my favourite colour is|my favorite color is|my fav color is} <v>",
            "<v> is my {favourite colour|favorite color}.",
            "The {colour|color} {I like best|I love most|I like most} is <v>.",
            "{Remember|Note|Please remember} that my {favourite colour|favorite color} is <v>.",
        ),
        Wordings(
            "What is my favourite colour?",
            "{What's|What is|Which is|What was} my {favourite colour|favorite color}{| again}?",
            "{Which|What} {colour|color} {do I like best|is my favourite|do I love most}?",
            "{Tell me|Say|Remind me of} my {favourite colour|favorite color}.",
            "{Do you know|Do you remember|Tell me} my {favourite colour|favorite color}?",
            "{And|So|Now|OK,} what is my {favourite colour|favorite color}?",
            "My {favourite colour|favorite color}?",
        ),
        "Your favourite colour is <v>",
        "your favourite colour",
    ),
    _Kind(
        "city",
        "cities",
        Wordings(
            "I live in <v>.",
            "{I live in|I'm living in|I am living in|I live in the city of} <v>{.|!|}",
            "{i live in|my city is|My city is|My home town is} <v>",
            "{I moved to|I have lived for years in|My house is in} <v>.",
            "{Remember|Note} that I live in <v>.",
        ),
        Wordings(
            "Where do I live?",
            "{Which|What} {city|town|place} do I live in?",
            "{Do you know|Do you remember|Can you recall|Can you tell me} where I live{| now}?",
            "{Tell me|Say|Remind me} where I live.",
            "{What is|What's} {my city|my home town|the city I live in}?",
            "{So|And|Now|OK,} where do I live{| again}?",
            "{In which|In what} city do I live?",
        ),
        "You live in <v>",
        "where you live",
        ("lives in", "Where does <n> live?", "<n> lives in <v>."),
    ),
    _Kind(
        "age",
        "",
        Wordings(
            "I am <v> years old.",
            "{I am|I'm|i am|i'm} <v> years old{.|!|}",
            "{My age is|I just turned|I turned|I am now|Today I turn} <v>.",
            "{I am|I'm} <v>.",
            "{Remember|Note} that I am <v> years old.",
        ),
        Wordings(
            "How old am I?",
            "{What is|What's|Tell me|Say} my age{|?}",
            "{Do you know|Do you remember|Can you recall|Can you tell me} {how old I am|my age}?",
            "{So|And|Now|OK,} how old am I{| again}?",
            "{Tell me|Remind me} how old I am.",
        ),
        "You are <v> years old",
        "how old you are",
        ("is", "How old is <n>?", "<n> is <v> years old."),
    ),
    _Kind(
        "dog",
        "names",
        Wordings(
            "My dog is called <v>.",
            "{My dog is called|My dog's name is|The name of my dog is|I call my dog} <v>{.|!|}",
            "{I have|I've got|I own|We have} a dog {called|named} <v>{.|!}",
            "{my dog is named|My dog is named|my dog's name is} <v>",
        ),
        Wordings(
            "What is my dog called?",
            "{What is|What's|Tell me|Do you know} {my dog's name|the name of my dog}?",
            "{How is|And what is|So what is|What's} my dog called?",
            "{What did I|How did I} {call|name} my dog?",
        ),
        "Your dog is called <v>",
        "the name of your dog",
    ),
    _Kind(
        "cat",
        "names",
        Wordings(
            "My cat is called <v>.",
            "{My cat is called|My cat's name is|The name of my cat is|I call my cat} <v>{.|!|}",
            "{I have|I've got|I own|We have} a cat {called|named} <v>{.|!}",
        ),
        Wordings(
            "What is my cat called?",
            "{What is|What's|Tell me|Do you know} {my cat's name|the name of my cat}?",
            "{How is|And what is|So what is|What's} my cat called?",
        ),
        "Your cat is called <v>",
        "the name of your cat",
    ),
    _Kind(
        "friend",
        "names",
        Wordings(
            "My best friend is <v>.",
            "{My friend is called|My best friend is|My friend's name is} <v>{.|}",
            "<v> is my {best friend|friend}.",
        ),
        Wordings(
            "Who is my best friend?",
            "{What is|What's|Tell me} {my best friend's name|the name of my friend}?",
            "{Who is|And who is|So who is|Who's} my {best friend|friend}?",
        ),
        "Your friend is called <v>",
        "the name of your friend",
    ),
    _Kind(
        "sister",
        "names",
        Wordings(
            "My sister is called <v>.",
            "{My sister is called|My sister's name is} <v>{.|}",
            "{I have|I've got} a sister {called|named} <v>.",
        ),
        Wordings(
            "What is my sister called?",
            "{What is|What's|Do you remember|Tell me} {my sister's name|the name of my sister}?",
            "{Who is|And who is|So who is|Who's} my sister?",
        ),
        "Your sister is called <v>",
        "the name of your sister",
    ),
    _Kind(
        "brother",
        "names",
        Wordings(
            "My brother is called <v>.",
            "{My brother is called|My brother's name is|My brother is} <v>{.|}",
            "{I have|I've got} a brother {called|named} <v>.",
        ),
        Wordings(
            "What is my brother called?",
            "{What is|What's|Do you remember|Tell me} {my brother's name|the name of my brother}?",
            "{Who is|And who is|So who is|Who's} my brother?",
        ),
        "Your brother is called <v>",
        "the name of your brother",
    ),
    _Kind(
        "job",
        "jobs",
        Wordings(
            "I work as a <v>.",
            "{I work as a|I'm working as a|My job is: |My job is|I earn my money as a} <v>{.|}",
            "{My profession is|My occupation is|my job is} <v>",
        ),
        Wordings(
            "What is my job?",
            "{What's|What is|Tell me|Do you remember|Do you know} my {job|profession|occupation}?",
            "{What do I do|What do I work as|What do I do for a living|What do I do for work}?",
            "{And|So|Now} what is my job?",
        ),
        "Your job is <v>",
        "your job",
        ("works as a", "What is the job of <n>?", "<n> works as a <v>."),
    ),
    _Kind(
        "food",
        "foods",
        Wordings(
            "My favourite food is <v>.",
            "My {favourite food|favorite food|favourite dish|favorite dish} is <v>{.|!|}",
            "{my favourite food is|my favorite food is|I like to eat|I love to eat} <v>",
            "{The food I like best is|Most of all I like to eat|I love eating} <v>.",
        ),
        Wordings(
            "What is my favourite food?",
            "{What's|What is|Which is|Do you remember} my {favourite|favorite} {food|dish}?",
            "{What|Which food} do I {like to eat|love to eat|like to eat most}?",
            "{And|So|Now} what is my {favourite|favorite} {food|dish}?",
        ),
        "Your favourite food is <v>",
        "your favourite food",
        ("likes to eat", "What does <n> like to eat?", "<n> likes to eat <v>."),
    ),
    _Kind(
        "animal",
        "animals",
        Wordings(
            "My favourite animal is the <v>.",
            "My {favourite|favorite} animal is {the|a} <v>{.|!|}",
            "{The animal I like best is|My best loved animal is} the <v>.",
        ),
        Wordings(
            "What is my favourite animal?",
            "{What's|What is|Which is|Do you remember|Tell me} my {favourite|favorite} animal?",
            "{What|Which} animal {do I like best|do I like most|is my favourite}?",
        ),
        "Your favourite animal is the <v>",
        "your favourite animal",
    ),
    _Kind(
        "hobby",
        "hobbies",
        Wordings(
            "My hobby is <v>.",
            "{My hobby is|My favourite hobby is|My favorite hobby is|My pastime is} <v>{.|!|}",
            "{In my free time I enjoy|I spend my free time with|my hobby is} <v>",
        ),
        Wordings(
            "What is my hobby?",
            "{What's|What is|Do you know|Tell me} my {hobby|favourite hobby|pastime}?",
            "{What do I do in|How do I spend} my free time?",
        ),
        "Your hobby is <v>",
        "your hobby",
    ),
    _Kind(
        "country",
        "countries",
        Wordings(
            "I come from <v>.",
            "{I come from|I am from|I'm from|My country is|My home country is} <v>{.|!|}",
            "{I was born in|i am from|i'm from|I grew up in} <v>",
        ),
        Wordings(
            "Where do I come from?",
            "{Which|What} country {do I come from|am I from}?",
            "{Where am I from|What is my country|What is my home country|What's my country}?",
            "{Do you know|Do you remember|Can you tell me} where I {come from|am from}?",
        ),
        "You come from <v>",
        "where you come from",
        ("comes from", "Where does <n> come from?", "<n> comes from <v>."),
    ),
)
_KIND_WEIGHTS = (34, 12, 10, 9, 5, 4, 3, 3, 3, 5, 5, 3, 4, 5)
_BY_KEY = {kind.key: kind for kind in _KINDS}

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
    kind: _Kind
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
    name, colour = _Fact(_BY_KEY["name"], "Alice"), _Fact(_BY_KEY["colour"], "blue")
    city = _Fact(_BY_KEY["city"], "Oslo")
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
    kind = rng.choice([kind for kind in _KINDS if kind.others and kind.others[1]])
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
    kinds: dict[str, _Kind] = {}
    while len(kinds) < count:
        kind = rng.choices(_KINDS, _KIND_WEIGHTS)[0]
        kinds[kind.key] = kind
    return [_Fact(kind, _value(rng, kind, held_out=held_out)) for kind in kinds.values()]


def _value(rng: Random, kind: _Kind, *, held_out: bool) -> str:
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


def _unknown(kind: _Kind) -> str:
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
