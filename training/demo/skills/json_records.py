"""Texts that a JSON object can be filled from, and the values that each one states."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import msgspec

from demo.wording import (
    Wordings,
    capital,
    fill,
    invented,
    listed,
    with_article,
)
from demo.words import pick, words

Value = str | int | float | bool | list[str] | list[dict[str, Any]] | None


class _Field(msgspec.Struct, frozen=True):
    """``clause`` goes on after a name ("Tom …"), ``first`` after "I"."""

    type: str
    values: str
    clause: Wordings
    first: Wordings


_PERSON = {
    "age": _Field(
        "integer",
        "",
        Wordings("is <v> years old", "is <v>{| years old| years of age}"),
        Wordings("am <v> years old", "am <v>{| years old}"),
    ),
    "city": _Field(
        "string",
        "cities",
        Wordings("lives in <v>", "{lives in|comes from|is from|is living in|works in} <v>"),
        Wordings("live in <v>", "{live in|come from|am from|work in} <v>"),
    ),
    "job": _Field(
        "string",
        "jobs",
        Wordings("works as a <v>", "{works as a|has the job of a|earns money as a} <v>"),
        Wordings("work as a <v>", "{work as a|earn my money as a} <v>"),
    ),
    "colour": _Field(
        "string",
        "colours",
        Wordings("likes the colour <v>", "{likes|loves|prefers} the {colour|color} <v>"),
        Wordings("like the colour <v>", "{like|love|prefer} the {colour|color} <v>"),
    ),
    "food": _Field(
        "string",
        "foods",
        Wordings("likes to eat <v>", "{likes to eat|loves to eat|often eats|likes eating} <v>"),
        Wordings("like to eat <v>", "{like to eat|love to eat|often eat|like eating} <v>"),
    ),
    "hobby": _Field(
        "string",
        "hobbies",
        Wordings("has the hobby <v>", "{has the hobby|spends free time with} <v>"),
        Wordings("have the hobby <v>", "{have the hobby|spend my free time with} <v>"),
    ),
    "animal": _Field(
        "string",
        "animals",
        Wordings("has a <v>", "{has|owns|keeps} a <v>"),
        Wordings("have a <v>", "{have|own|keep} a <v>"),
    ),
    "country": _Field(
        "string",
        "countries",
        Wordings("was born in <v>", "{was born in|grew up in} <v>"),
        Wordings("was born in <v>", "{was born in|grew up in} <v>"),
    ),
}
_AVAILABLE = {
    True: ("is free today", "is available", "has time now", "has nothing to do", "is free"),
    False: (
        "is busy",
        "is busy saving the world",
        "is not available",
        "has no time",
        "is very busy today",
    ),
}
INTEGERS = ("age", "quantity", "year", "count", "number")
"""Fields that hold integers, also where their value is missing."""

# Sentences about other things; the fields are the slots.
_THINGS: dict[str, tuple[dict[str, str], Wordings]] = {
    "order": (
        {"product": "objects", "price": "price", "quantity": "small"},
        Wordings(
            "I want to order <quantity> of the product <product> at <price> euros each.",
            "{Order|Invoice|New order}: <quantity> x <product>, <price> {euros|dollars} each.",
            "The <product> costs <price> {dollars|euros} and we {have|need|sold} <quantity>.",
            "We {sold|bought|need} <quantity> pieces of <product> for <price> {dollars|euros}.",
        ),
    ),
    "book": (
        {"title": "title", "author": "author", "year": "year"},
        Wordings(
            'The book "<title>" was written by <author> in <year>.',
            '{In <year>|In the year <year>}, <author> {wrote|published} {the book |}"<title>".',
            '"<title>" by <author> {came out in|was published in|appeared in} <year>.',
            '<author> is the author of "<title>" (<year>).',
        ),
    ),
    "event": (
        {"event": "event", "date": "date", "place": "cities"},
        Wordings(
            "The <event> takes place in <place> on <date>.",
            "{On <date>|On <date> at noon} there is a <event> in <place>.",
            "{Come to|Join|You are invited to} the <event> in <place> on <date>{.|!}",
            "{Event|Reminder}: <event>, <date>, <place>.",
        ),
    ),
    "pet": (
        {"name": "names", "animal": "animals", "age": "small", "color": "colours"},
        Wordings(
            "I have a <color> <animal> named <name> who is <age> years old.",
            "{My|Our} <animal> {is called|is named} <name>, is <age> years old and <color>.",
            "<name> is a <age> year old <color> <animal>.",
        ),
    ),
}
_PETS = ("I have two pets.", "We have two pets.", "These are our pets.", "I own two animals.")
_PET = Wordings(
    "One is <an> named <name>, <age> years old. It is <color> and plays with <favorite_toy>.",
    "I {also |}have a <age> year old <color> <animal> named <name> who loves <favorite_toy>.",
    "{My|Our} <animal> is called <name>, is <age> years old, <color> and likes <favorite_toy>.",
)
_TOYS = ("yarn", "tennis balls", "a mouse", "sticks", "ropes", "a bell", "feathers", "balloons")
_ABOUT = Wordings(
    "Tell me about <v>.",
    "{Tell me something about|Give me facts about|Describe|What is known about} <v>.",
)
_EVENTS = ("concert", "meeting", "party", "wedding", "fair", "festival", "match", "workshop")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
)

_FREE = Wordings(
    "The <k> is <v>.",
    "<k>: <v>",
    "<k> = <v>",
    "The <k> {is|was|will be} <v>.",
)


class Record(msgspec.Struct, frozen=True):
    """``text`` says ``values``, in that order, or they are ``known``.

    One of ``missing`` may be asked for too. A ``nested`` record is never asked for by its fields.
    """

    family: str
    text: str
    values: dict[str, Value]
    missing: tuple[str, ...] = ()
    known: bool = False
    nested: bool = False


def draw(rng: Random, *, held_out: bool) -> Record:
    """With ``held_out`` all can be copied from the text, in words that are never trained."""
    record = rng.choices(_RECORDS, _RECORD_WEIGHTS)[0](rng, held_out)
    while record.known and held_out:
        record = rng.choices(_RECORDS, _RECORD_WEIGHTS)[0](rng, held_out)
    return record


def _person(rng: Random, held_out: bool) -> Record:
    """A name and one to three more things about somebody, in one or more sentences."""
    main = ["age", "city"] if rng.random() < 0.6 else []
    others = rng.sample(list(_PERSON), rng.choice((1, 2, 3)))
    keys = list(dict.fromkeys([*main, *others]))[:3]
    rng.shuffle(keys)
    values: dict[str, Value] = {"name": _name(rng, held_out=held_out)}
    values |= {key: _value(rng, _PERSON[key], held_out=held_out) for key in keys}
    missing = [key for key in _PERSON if key not in values]
    text = _person_text(rng, values)
    return Record("json.person", text, values, tuple(missing))


def _person_text(rng: Random, values: dict[str, Value]) -> str:
    name = str(values["name"])
    rest = {key: str(value) for key, value in values.items() if key != "name"}
    chance = rng.random()
    if chance < 0.1:
        return _labelled(rng, values)
    if chance < 0.25:
        clauses = [fill(_PERSON[key].first.pick(rng), {"v": v}) for key, v in rest.items()]
        opening = rng.choice(("My name is", "I am", "I'm", "I am called"))
        return f"{opening} {name} and I {listed(_articles(clauses))}."
    clauses = _articles([fill(_PERSON[key].clause.pick(rng), {"v": v}) for key, v in rest.items()])
    if chance < 0.7:
        return f"{name} {listed(clauses)}."
    return " ".join(f"{name} {clause}." for clause in clauses)


def _articles(clauses: list[str]) -> list[str]:
    """``a owl`` becomes ``an owl``."""
    fixed = []
    for clause in clauses:
        start, article, noun = clause.partition(" a ")
        fixed.append(f"{start} {with_article(noun)}" if article else clause)
    return fixed


def _labelled(rng: Random, values: dict[str, Value]) -> str:
    separator = rng.choice((", ", "; ", "\n"))
    mark = rng.choice((": ", " = ", ": "))
    name = rng.choice((capital, str))
    return separator.join(f"{name(key)}{mark}{value}" for key, value in values.items())


def _available(rng: Random, held_out: bool) -> Record:
    free = rng.random() < 0.5
    name, age = _name(rng, held_out=held_out), rng.randint(1, 99)
    text = f"{name} is {age} years old and {rng.choice(_AVAILABLE[free])}."
    return Record("json.available", text, {"name": name, "age": age, "available": free})


def _thing(rng: Random, held_out: bool) -> Record:
    kind = rng.choice(tuple(_THINGS))
    slots, wordings = _THINGS[kind]
    drawn = {key: _slot(rng, slot, held_out=held_out) for key, slot in slots.items()}
    text = fill(wordings.pick(rng), {key: str(value) for key, value in drawn.items()})
    return Record(f"json.{kind}", text, drawn)


def _free(rng: Random, held_out: bool) -> Record:
    """Fields that nobody has heard of: the text says which value belongs to which."""
    values: dict[str, Value] = {}
    while len(values) < 2 + (rng.random() < 0.5):
        values[_key(rng, held_out=held_out)] = _any_value(rng, held_out=held_out)
    wording = _FREE.pick(rng)
    separator = " " if wording.endswith(".") else rng.choice((", ", "; ", "\n"))
    text = separator.join(
        fill(wording, {"k": key, "v": str(value)}) for key, value in values.items()
    )
    return Record("json.free", text, values)


def _country(rng: Random, _: bool) -> Record:
    country, capital_city, languages = rng.choice(_country_facts())
    values: dict[str, Value] = {
        "name": country,
        "capital": capital_city,
        "languages": languages.split(", "),
    }
    text = fill(_ABOUT.pick(rng), {"v": country})
    return Record("json.country", text, values, known=True)


@cache
def _country_facts() -> list[tuple[str, ...]]:
    rows = words("country_facts", held_out=False) + words("country_facts", held_out=True)
    return [tuple(column.strip() for column in row.split("|")) for row in rows]


def _pets(rng: Random, held_out: bool) -> Record:
    """Two animals with everything about them."""
    pets = [
        {
            "name": _name(rng, held_out=held_out),
            "animal": pick(rng, "animals", held_out=held_out),
            "age": rng.randint(1, 20),
            "color": pick(rng, "colours", held_out=held_out),
            "favorite_toy": rng.choice(_TOYS),
        }
        for _ in range(2)
    ]
    first, second = (_pet_text(rng, pet) for pet in pets)
    text = f"{rng.choice(_PETS)} {first} {second}"
    return Record("json.pets", text, {"pets": pets}, nested=True)


def _pet_text(rng: Random, pet: dict[str, Any]) -> str:
    slots = {key: str(value) for key, value in pet.items()}
    return fill(_PET.pick(rng), slots | {"an": with_article(pet["animal"])})


_RECORDS = (_person, _available, _thing, _free, _country, _pets)
_RECORD_WEIGHTS = (46, 8, 20, 18, 4, 4)


def _name(rng: Random, *, held_out: bool) -> str:
    if rng.random() < 0.25:
        return capital(invented(rng, held_out=held_out))
    return pick(rng, "names", held_out=held_out)


def _key(rng: Random, *, held_out: bool) -> str:
    if rng.random() < 0.5:
        return pick(rng, "objects", held_out=held_out)
    return invented(rng, held_out=held_out)


def _any_value(rng: Random, *, held_out: bool) -> Value:
    chance = rng.random()
    if chance < 0.35:
        return rng.randint(1, 9999)
    if chance < 0.65:
        return _name(rng, held_out=held_out)
    return pick(rng, rng.choice(("cities", "colours", "foods", "animals")), held_out=held_out)


def _value(rng: Random, field: _Field, *, held_out: bool) -> Value:
    if field.type == "integer":
        return rng.randint(1, 99)
    return pick(rng, field.values, held_out=held_out)


def _slot(rng: Random, slot: str, *, held_out: bool) -> Value:
    """A slot is a list of words or has a way of its own to be drawn."""
    if slot in _DRAWN:
        return _DRAWN[slot](rng, held_out)
    return pick(rng, slot, held_out=held_out)


def _price(rng: Random, _: bool) -> Value:
    return rng.randint(1, 99) + rng.choice((0, 0.5))


def _author(rng: Random, held_out: bool) -> Value:
    last = capital(invented(rng, held_out=held_out))
    return f"{pick(rng, 'names', held_out=held_out)} {last}"


def _title(rng: Random, held_out: bool) -> Value:
    colour = capital(pick(rng, "colours", held_out=held_out))
    return f"The {colour} {capital(pick(rng, 'objects', held_out=held_out))}"


_DRAWN: dict[str, Callable[[Random, bool], Value]] = {
    "price": _price,
    "author": _author,
    "title": _title,
    "small": lambda rng, _: rng.randint(2, 20),
    "year": lambda rng, _: rng.randint(1850, 2024),
    "event": lambda rng, _: rng.choice(_EVENTS),
    "date": lambda rng, _: f"{rng.randint(1, 28)} {rng.choice(_MONTHS)}",
}
