"""Words of tools: joined to names as programmers do it, and bent as sentences need them."""

from __future__ import annotations

import re
from random import Random
from typing import Literal

Case = Literal["snake", "camel", "kebab", "pascal", "flat"]


def a_case(rng: Random) -> Case:
    """One that a prompt's tools share."""
    cases: tuple[Case, ...] = ("snake", "camel", "kebab", "pascal", "flat")
    return rng.choices(cases, (60, 22, 8, 6, 4))[0]


def join(words: list[str], case: Case) -> str:
    match case:
        case "snake":
            return "_".join(words)
        case "kebab":
            return "-".join(words)
        case "flat":
            return "".join(words)
        case "camel":
            return words[0] + "".join(map(str.capitalize, words[1:]))
        case "pascal":
            return "".join(map(str.capitalize, words))


def argument_case(case: Case) -> Case:
    """Arguments have dashes or a capital at the start nowhere."""
    return "camel" if case in ("camel", "pascal") else "snake"


def plural(noun: str) -> str:
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return noun + "es"
    return noun[:-1] + "ies" if re.search(r"[^aeiou]y$", noun) else noun + "s"


def third_person(verb: str) -> str:
    return plural(verb)


def past(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    return _doubled(verb) + "ed"


def gerund(verb: str) -> str:
    if re.search(r"[^eoy]e$", verb):
        return verb[:-1] + "ing"
    return _doubled(verb) + "ing"


def _doubled(verb: str) -> str:
    short = re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb)
    return verb + verb[-1] if short else verb
