"""The tools of daily life in ``words/tool_domains.txt``: their names, arguments and questions."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from random import Random

import msgspec

from demo.families import expand
from demo.skills.tool_names import Case, argument_case, join
from demo.skills.tool_schema import Slot, Tool, places, schema
from demo.words import is_held_out

_FILE = Path(__file__).parent.parent / "words" / "tool_domains.txt"
_KEPT_OPTIONAL = 0.6
_MADE_REQUIRED = 0.15
"""An optional choice, so that the model learns to take the first one if nothing is said."""


class _Argument(msgspec.Struct, frozen=True):
    key: str
    names: tuple[str, ...]
    kind: str
    choices: tuple[str, ...]
    descriptions: tuple[str, ...]
    required: bool


class _Wording(msgspec.Struct, frozen=True):
    text: str
    keys: frozenset[str]


class Domain(msgspec.Struct):
    """What a tool is about, from which a tool is made by choosing names and arguments.

    ``wordings`` are grouped by the line that they come from.
    """

    group: str
    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    arguments: list[_Argument] = []
    wordings: list[list[_Wording]] = []
    topic: str = ""
    results: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()


@cache
def domains(*, held_out: bool) -> list[Domain]:
    """Of the tools, those on one side of the split. Raises ``ValueError`` for a line of no form."""
    return [domain for domain in _read() if is_held_out(domain.group) == held_out]


def daily(rng: Random, case: Case, *, held_out: bool) -> Tool:
    """A tool of daily life. Its ``verb`` is its group, its ``noun`` empty."""
    domain = rng.choice(domains(held_out=held_out))
    kept = [one for one in domain.arguments if one.required or rng.random() < _KEPT_OPTIONAL]
    spelling = rng.random()
    slots = tuple(_slot(rng, one, case, spelling) for one in kept)
    if rng.random() < 0.2:
        slots = tuple(rng.sample(slots, len(slots)))
    name = join(rng.choice(domain.names).split(), case)
    description = rng.choice(domain.descriptions) if rng.random() < 0.92 else ""
    return Tool(
        schema(rng, name, description, slots),
        slots,
        partial(_wording, domain=domain, keys=frozenset(slot.key for slot in slots)),
        domain.group,
        "",
        topic=domain.topic,
        results=domain.results,
        fields=domain.fields,
    )


def _wording(rng: Random, *, domain: Domain, keys: frozenset[str]) -> str:
    lines = domain.wordings
    while True:
        wording = rng.choice(rng.choice(lines))
        if wording.keys <= keys:
            return wording.text


def _slot(rng: Random, argument: _Argument, case: Case, spelling: float) -> Slot:
    """``spelling`` chooses the name, so that ``from_city`` stands beside ``to_city``."""
    words = argument.names[int(spelling * len(argument.names))].split("_")
    name = join(words, argument_case(case))
    description = rng.choice(argument.descriptions) if rng.random() < 0.75 else ""
    return Slot(
        argument.key,
        name,
        argument.kind,
        " ".join(words),
        description,
        required=argument.required or (bool(argument.choices) and rng.random() < _MADE_REQUIRED),
        choices=argument.choices,
    )


@cache
def _read() -> list[Domain]:
    found: list[Domain] = []
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        sign, _, rest = line.partition(" ")
        if sign == "=":
            found.append(_domain(rest))
        else:
            _add(found[-1], sign, rest)
    return found


def _domain(text: str) -> Domain:
    head, *descriptions = text.split(" | ")
    group, _, names = head.partition(": ")
    return Domain(group, tuple(names.split(", ")), tuple(descriptions))


def _add(domain: Domain, sign: str, text: str) -> None:
    match sign:
        case "@":
            domain.arguments.append(_argument(text))
        case "?":
            required = {one.key for one in domain.arguments if one.required and not one.choices}
            found = [_Wording(wording, places(wording)) for wording in expand(text)]
            if bad := [one.text for one in found if not required <= one.keys]:
                raise ValueError(f"{domain.group}: {bad[0]!r} lacks one of {sorted(required)}")
            known = {one.key for one in domain.arguments}
            if bad := [one.text for one in found if not one.keys <= known]:
                raise ValueError(f"{domain.group}: {bad[0]!r} has more than {sorted(known)}")
            domain.wordings.append(found)
        case "!":
            domain.topic, _, results = text.rpartition(" = ")
            domain.results = tuple(results.split(" / "))
        case "&":
            pairs = (field.split("=") for field in text.split())
            domain.fields = tuple((name, kind) for name, kind in pairs)
        case _:
            raise ValueError(f"{domain.group}: a line begins with {sign!r}")


def _argument(text: str) -> _Argument:
    head, *descriptions = text.split(" | ")
    head, _, kind = head.partition(" = ")
    key, _, names = head.partition(": ")
    choices = tuple(kind.split("/")) if "/" in kind else ()
    return _Argument(
        key.removesuffix("?"),
        tuple(names.split(", ")),
        "choice" if choices else kind,
        choices,
        tuple(descriptions),
        required=not key.endswith("?"),
    )
