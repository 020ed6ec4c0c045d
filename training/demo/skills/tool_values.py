"""Values for the arguments and results of tools, by kind, and how a question says them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from demo.wording import listed
from demo.words import pick

_CURRENCIES = "EUR USD GBP JPY CHF SEK NOK DKK PLN CZK HUF INR CNY KRW BRL MXN CAD AUD NZD TRY"
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday today tomorrow tonight"
_ENDINGS = "txt md pdf csv json png jpg log py docx"
_SKIES = ("sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "clear", "partly cloudy", "stormy")
_SPELLED = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def draw(rng: Random, kind: str, *, held_out: bool) -> Any:
    """A value of ``kind``; ``list of KIND`` makes a list of one to four of them."""
    if kind.startswith("list of "):
        count = rng.choice((1, 2, 2, 3, 3, 4))
        items = [draw(rng, kind[8:], held_out=held_out) for _ in range(count)]
        return list(dict.fromkeys(items))
    return _KINDS[kind](rng, held_out)


def json_type(kind: str) -> dict[str, Any]:
    """What a schema says of the values of ``kind``."""
    if kind.startswith("list of "):
        return {"type": "array", "items": {"type": "string"}}
    return {"type": _TYPES.get(kind, "string")}


def say(rng: Random, value: Any, kind: str) -> str:
    """``value`` as a question has it. Lists are enumerated, free text may stand in quotes."""
    if isinstance(value, list):
        return listed(value, rng.choice((" and ", " and ", ", ")))
    if isinstance(value, bool):
        return "true" if value else "false"
    if kind == "spelled":
        return _SPELLED[int(value)]
    if kind == "quoted" or (kind in _MAY_BE_QUOTED and rng.random() < 0.15):
        mark = rng.choice('""\'')
        return f"{mark}{value}{mark}"
    return str(value)


def nonsense(rng: Random, *, held_out: bool) -> str:
    """A lower-case word that means nothing."""
    return "".join(
        pick(rng, "syllables", held_out=held_out) for _ in range(rng.choice((2, 2, 2, 3, 3)))
    )


def _name(rng: Random, held_out: bool) -> str:
    return nonsense(rng, held_out=held_out).capitalize()


def _any_name(rng: Random, held_out: bool) -> str:
    shape = rng.random()
    if shape < 0.5:
        return _name(rng, held_out)
    if shape < 0.65:
        return nonsense(rng, held_out=held_out)
    if shape < 0.8:
        return f"{_name(rng, held_out)} {rng.randint(2, 99)}"
    return f"{_name(rng, held_out)} {_name(rng, held_out)}"


def _listed(name: str, made_up: float) -> Callable[[Random, bool], str]:
    def value(rng: Random, held_out: bool) -> str:
        if rng.random() < made_up:
            return _name(rng, held_out)
        text = pick(rng, name, held_out=held_out)
        return text.lower() if rng.random() < 0.06 else text

    return value


def _full_name(rng: Random, held_out: bool) -> str:
    return f"{pick(rng, 'tool_people', held_out=held_out)} {_name(rng, held_out)}"


def _company(rng: Random, held_out: bool) -> str:
    ends = ("", "", " Inc", " Ltd", " AG", " Group", " Labs")
    return _name(rng, held_out) + rng.choice(ends)


def _date(rng: Random, _: bool) -> str:
    return f"{rng.randint(1990, 2039)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _time(rng: Random, _: bool) -> str:
    shape = rng.random()
    if shape < 0.75:
        return f"{rng.randint(0, 23):02}:{rng.choice((0, 5, 10, 15, 20, 30, 40, 45, 50)):02}"
    return f"{rng.randint(1, 12)}{rng.choice((' am', ' pm', 'am', 'pm'))}"


def _id(rng: Random, _: bool) -> str:
    head = "".join(rng.choices(_LETTERS, k=rng.choice((1, 1, 2, 3))))
    number = str(rng.randint(1, 10 ** rng.choice((2, 3, 4, 5)) - 1))
    return rng.choice((f"{head}-{number}", f"{head}-{number}", head + number, f"{head}_{number}"))


def _email(rng: Random, held_out: bool) -> str:
    first = pick(rng, "tool_people", held_out=held_out).lower()
    host = nonsense(rng, held_out=held_out)
    return (
        f"{first}@{rng.choice((host, host, 'example'))}.{rng.choice(('com', 'org', 'net', 'io'))}"
    )


def _path(rng: Random, held_out: bool) -> str:
    stem = rng.choice(
        (nonsense(rng, held_out=held_out), pick(rng, "tool_nouns", held_out=held_out))
    )
    name = f"{stem}.{rng.choice(_ENDINGS.split())}"
    folder = pick(rng, "tool_nouns", held_out=held_out) + "s"
    return rng.choice((name, name, f"{folder}/{name}", f"/home/{folder}/{name}", f"/tmp/{name}"))  # noqa: S108 - a text


def _url(rng: Random, held_out: bool) -> str:
    host = f"{nonsense(rng, held_out=held_out)}.{rng.choice(('com', 'org', 'net', 'io'))}"
    page = rng.choice(("", "", "/" + pick(rng, "tool_nouns", held_out=held_out)))
    return f"{rng.choice(('https://', 'https://', 'https://www.', 'http://'))}{host}{page}"


def _integer(rng: Random, _: bool) -> int:
    return rng.randint(1, 10 ** rng.choice((1, 2, 2, 3, 4, 5)) - 1)


def _decimal(rng: Random, _: bool) -> float:
    if rng.random() < 0.4:
        return rng.randint(1, 999)
    tenths = rng.random() < 0.5
    whole, fraction = rng.randint(0, 199), rng.randint(1, 9) if tenths else rng.randint(11, 99)
    return float(f"{whole}.{fraction}")


def _topic(rng: Random, held_out: bool) -> str:
    """A few words that one could search for."""
    noun = pick(rng, "tool_nouns", held_out=held_out)
    other = pick(rng, "tool_nouns", held_out=held_out)
    adjective = pick(rng, "tool_adjectives", held_out=held_out)
    return rng.choice(
        (
            f"{adjective} {noun}s",
            f"{noun}s in {pick(rng, 'tool_cities', held_out=held_out)}",
            f"{noun} {other}",
            f"how to {pick(rng, 'tool_verbs', held_out=held_out)} a {noun}",
            f"{_name(rng, held_out)} {noun}",
            f"history of the {noun}",
            f"best {noun} for {other}s",
            _name(rng, held_out),
            f"{noun}s",
        )
    )


def _sentence(rng: Random, held_out: bool) -> str:
    noun = pick(rng, "tool_nouns", held_out=held_out)
    verb = pick(rng, "tool_verbs", held_out=held_out)
    person = pick(rng, "tool_people", held_out=held_out)
    adjective = pick(rng, "tool_adjectives", held_out=held_out)
    return rng.choice(
        (
            f"{verb} the {noun}",
            f"{verb} the {adjective} {noun}",
            f"call {person} about the {noun}",
            f"meet {person} at {_time(rng, held_out)}",
            f"buy {rng.randint(2, 20)} {noun}s",
            f"the {noun} is {adjective}",
            f"The {noun} is ready",
            "I will be late",
            f"see you at {_time(rng, held_out)}",
            f"bring the {noun} to {person}",
            f"do not forget the {noun}",
            f"{person} likes the {adjective} {noun}",
            f"thanks for the {noun}",
            f"Dear {person}, the {noun} is {adjective}",
        )
    )


def _address(rng: Random, held_out: bool) -> str:
    street = _name(rng, held_out)
    kind = rng.choice(("St", "Street", "Road", "Avenue", "Boulevard", "Lane"))
    city = pick(rng, "tool_cities", held_out=held_out)
    state = rng.choice(("", "", " MA", " TX", " NY", " CA"))
    return f"{rng.randint(1, 399)} {street} {kind} in {city}{state}"


def _heading(rng: Random, held_out: bool) -> str:
    noun = pick(rng, "tool_nouns", held_out=held_out)
    return rng.choice(
        (
            f"{pick(rng, 'tool_adjectives', held_out=held_out)} {noun}".capitalize(),
            noun.capitalize(),
            f"{_name(rng, held_out)} {noun}",
            f"The {noun} of {_name(rng, held_out)}",
            f"{noun} {rng.randint(2, 99)}",
        )
    )


def _noun_phrase(rng: Random, held_out: bool) -> str:
    noun = pick(rng, "tool_nouns", held_out=held_out)
    if rng.random() < 0.4:
        return f"{pick(rng, 'tool_adjectives', held_out=held_out)} {noun}"
    return noun


_KINDS: dict[str, Callable[[Random, bool], Any]] = {
    "city": _listed("tool_cities", 0.35),
    "country": _listed("tool_countries", 0.35),
    "language": _listed("tool_languages", 0.35),
    "person": _listed("tool_people", 0.35),
    "fullname": _full_name,
    "company": _company,
    "name": _any_name,
    "word": lambda rng, held_out: rng.choice(
        (nonsense(rng, held_out=held_out), pick(rng, "tool_adjectives", held_out=held_out))
    ),
    "thing": _noun_phrase,
    "date": _date,
    "day": lambda rng, held_out: (
        _date(rng, held_out) if rng.random() < 0.4 else rng.choice(_DAYS.split())
    ),
    "time": _time,
    "id": _id,
    "email": _email,
    "path": _path,
    "url": _url,
    "int": _integer,
    "small": lambda rng, _: rng.randint(2, 60),
    "spelled": lambda rng, _: rng.randrange(len(_SPELLED)),
    "decimal": _decimal,
    "currency": lambda rng, _: rng.choice(_CURRENCIES.split()),
    "topic": _topic,
    "text": _sentence,
    "quoted": _sentence,
    "heading": _heading,
    "address": _address,
    "option": lambda rng, held_out: pick(rng, "tool_options", held_out=held_out),
    "flag": lambda rng, _: rng.random() < 0.5,
    "with": lambda rng, _: rng.random() < 0.6,
    "sky": lambda rng, _: rng.choice(_SKIES),
    "airport": lambda rng, _: "".join(rng.choices(_LETTERS, k=3)),
    "zone": lambda rng, held_out: (
        rng.choice(("Europe/", "America/", "Asia/", "Africa/"))
        + pick(rng, "tool_cities", held_out=held_out).replace(" ", "_")
    ),
    "sum": lambda rng, _: f"{rng.randint(1, 999)} {rng.choice('+-*/')} {rng.randint(1, 99)}",
    "symbol": lambda rng, _: "".join(rng.choices(_LETTERS, k=rng.choice((3, 4, 4)))),
}
_TYPES = {
    "int": "integer",
    "small": "integer",
    "spelled": "integer",
    "decimal": "number",
    "flag": "boolean",
    "with": "boolean",
}
_MAY_BE_QUOTED = ("name", "word", "heading", "path", "topic", "thing")
