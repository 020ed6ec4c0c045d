r"""Families of questions (``questions/*.txt``): many wordings of one thing, and its one answer.

    = sky.blue                            the name, unique over all files
    after: sky.why                        optional: asked after this family's question and answer
    system: You are terse.                optional: the system message; of several lines, any one
    think: First … So …                   optional: what is thought when thinking is on
    ? Why is the sky blue?                the first wording: canonical, taken as it is
    ? {why|how come} is {|really} …       more wordings; braces hold alternatives, not nested
    ! The sky is blue because …           the answer, in one line (``\n`` is a new line)

``rows: capitals`` makes one family for each line of ``rows/capitals.txt`` (``France | Paris``): a
``[1]`` stands for its first column, ``[2]`` for the second, and the name gets the first as an end.
Lines that start with ``#`` and blank lines are skipped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random

import msgspec

from demo.words import is_held_out

_FOLDER = Path(__file__).with_name("questions")
_MOST_EXPANSIONS = 400
"""Of one line; a line with more gets this many of them, always the same ones."""

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_GROUP = re.compile(r"\{([^{}]*)\}")
_COLUMN = re.compile(r"\[([1-9])\]")
_DIRECTIVES = ("after", "rows", "system", "think")
_PREFIX = re.compile(r"(hi|hello|hey|good day|ok|so|please|can you please) +(?=\w)")
_SUFFIX = re.compile(r"(?<=\w) +(please|thanks|thank you)$")


class Malformed(Exception):
    """A question file cannot be read; the message starts with ``FILE:LINE:``."""


class Family(msgspec.Struct, frozen=True):
    """``wordings`` are the lines as written; below are their expansions, split once and for all.

    Any one of ``systems`` comes first; the first one is the canonical one. A family ``of_table``
    shares its wordings with others (see ``rows:``).
    ``trained`` keeps them line by line. ``held_out_paraphrases`` are expansions of lines that are
    trained otherwise, ``held_out_wordings`` those of lines of which nothing is trained. However
    much case, punctuation and politeness vary, no held-out text turns into a trained one.
    """

    name: str
    wordings: tuple[str, ...]
    answer: str
    systems: tuple[str, ...]
    after: str
    think: str
    of_table: bool
    trained: tuple[tuple[str, ...], ...]
    held_out_paraphrases: tuple[str, ...]
    held_out_wordings: tuple[str, ...]


@cache
def families() -> dict[str, Family]:
    """All families of the corpus by name. Raises ``Malformed``."""
    return read(_FOLDER)


def read(folder: Path) -> dict[str, Family]:
    """The families of all ``*.txt`` in ``folder``, in the order of the files' names and lines."""
    drafts: dict[str, _Draft] = {}
    for path in sorted(folder.glob("*.txt")):
        for draft in _drafts(path):
            if draft.name in drafts:
                raise Malformed(
                    f"{draft.where}: family {draft.name} is also at {drafts[draft.name].where}"
                )
            drafts[draft.name] = draft
    for draft in drafts.values():
        _check_chain(draft, drafts)
    return {name: _split(draft) for name, draft in drafts.items()}


def conversation(family: Family, known: dict[str, Family]) -> list[Family]:
    """The families asked before ``family`` (see ``after:``), first one first, and itself."""
    before = conversation(known[family.after], known) if family.after else []
    return [*before, family]


def plain(text: str) -> str:
    """What is left of a wording without case, punctuation, greeting and politeness."""
    rest = " ".join(re.findall(r"\w+", text.lower()))
    while match := _PREFIX.match(rest):
        rest = rest[match.end() :]
    while match := _SUFFIX.search(rest):
        rest = rest[: match.start()]
    return rest


def expand(line: str) -> list[str]:
    """The combinations of a line's alternatives, at most 400 of them."""
    parts = _GROUP.split(line)
    choices = [part.split("|") if at % 2 else [part] for at, part in enumerate(parts)]
    total = math.prod(len(options) for options in choices)
    picked = (
        range(total)
        if total <= _MOST_EXPANSIONS
        else sorted(Random(line).sample(range(total), _MOST_EXPANSIONS))
    )
    return list(dict.fromkeys(_combination(choices, number) for number in picked))


def _combination(choices: list[list[str]], number: int) -> str:
    chosen = []
    for options in choices:
        number, at = divmod(number, len(options))
        chosen.append(options[at])
    text = " ".join("".join(chosen).split())
    return re.sub(r" (?=[?!.,])", "", text)


class _Wording(msgspec.Struct, frozen=True):
    """``line`` with its row filled in; whether it is held out is the same for all rows."""

    line: str
    held_out: bool


class _Draft(msgspec.Struct):
    """A family as far as it is read; ``where`` is the ``FILE:LINE`` of its name."""

    where: str
    name: str
    wordings: list[_Wording] = []
    answer: str = ""
    systems: list[str] = []
    directives: dict[str, str] = {}


def _drafts(path: Path) -> Iterator[_Draft]:
    for draft in _parse(path.name, path.read_text(encoding="utf-8")):
        if rows := draft.directives.get("rows"):
            yield from _filled(draft, path.parent / "rows" / f"{rows}.txt")
        else:
            yield draft


def _filled(draft: _Draft, path: Path) -> Iterator[_Draft]:
    try:
        rows = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise Malformed(f"{draft.where}: there is no rows/{path.name}") from None
    for number, row in enumerate(rows, start=1):
        if not row.strip() or row.startswith("#"):
            continue
        try:
            yield _with_row(draft, [column.strip() for column in row.split("|")])
        except IndexError:
            raise Malformed(f"{path.name}:{number}: {draft.where} wants more columns") from None


def _with_row(draft: _Draft, columns: list[str]) -> _Draft:
    def fill(text: str) -> str:
        return _COLUMN.sub(lambda match: columns[int(match[1]) - 1], text)

    return _Draft(
        draft.where,
        f"{draft.name}.{plain(columns[0]).replace(' ', '-')}",
        [_Wording(fill(wording.line), wording.held_out) for wording in draft.wordings],
        fill(draft.answer),
        [fill(system) for system in draft.systems],
        {key: fill(value) for key, value in draft.directives.items()},
    )


def _parse(file: str, text: str) -> Iterator[_Draft]:
    draft: _Draft | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{file}:{number}"
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("="):
            if draft is not None:
                yield _finished(draft)
            draft = _Draft(where, _name(where, line[1:].strip()))
        elif draft is None:
            raise Malformed(f"{where}: no family has begun")
        else:
            _add(draft, where, line)
    if draft is not None:
        yield _finished(draft)


def _name(where: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Malformed(f"{where}: {name!r} is no name like group.topic")
    return name


def _add(draft: _Draft, where: str, line: str) -> None:
    if draft.answer:
        raise Malformed(f"{where}: nothing may come after the answer of {draft.name}")
    if line.startswith("?"):
        draft.wordings.append(_wording(draft, where, line[1:].strip()))
    elif line.startswith("!"):
        draft.answer = line[1:].strip().replace("\\n", "\n")
        if not draft.answer:
            raise Malformed(f"{where}: the answer of {draft.name} is empty")
    else:
        _direct(draft, where, line)


def _wording(draft: _Draft, where: str, line: str) -> _Wording:
    if re.search(r"[{}]", _GROUP.sub("", line)):
        raise Malformed(f"{where}: braces are nested or do not match")
    if not draft.wordings and "{" in line:
        raise Malformed(f"{where}: the first wording of {draft.name} has alternatives")
    if not all(expand(line)):
        raise Malformed(f"{where}: a wording is empty")
    return _Wording(line, bool(draft.wordings) and is_held_out(line))


def _direct(draft: _Draft, where: str, line: str) -> None:
    key, colon, value = (part.strip() for part in line.partition(":"))
    if not colon or key not in _DIRECTIVES:
        raise Malformed(f"{where}: a line starts with = ? ! # or one of {', '.join(_DIRECTIVES)}")
    if draft.wordings:
        raise Malformed(f"{where}: {key} comes before the first wording")
    if key in draft.directives or not value:
        raise Malformed(f"{where}: {key} is there twice or empty")
    if key == "system":
        draft.systems.append(value)
    else:
        draft.directives[key] = value


def _finished(draft: _Draft) -> _Draft:
    if not draft.wordings:
        raise Malformed(f"{draft.where}: {draft.name} has no wording")
    if not draft.answer:
        raise Malformed(f"{draft.where}: {draft.name} has no answer")
    return draft


def _check_chain(draft: _Draft, drafts: dict[str, _Draft]) -> None:
    seen = {draft.name}
    at = draft
    while after := at.directives.get("after"):
        if after not in drafts:
            raise Malformed(f"{at.where}: {at.name} is after {after}, which does not exist")
        if after in seen:
            raise Malformed(f"{draft.where}: {draft.name} comes after itself")
        seen.add(after)
        at = drafts[after]


def _split(draft: _Draft) -> Family:
    canonical = plain(draft.wordings[0].line)
    trained: list[tuple[str, ...]] = []
    paraphrases: dict[str, str] = {}
    for wording in draft.wordings:
        if wording.held_out:
            continue
        texts = {text: plain(text) for text in expand(wording.line)}
        held = {key: text for text, key in texts.items() if key != canonical and is_held_out(key)}
        paraphrases |= held
        trained.append(tuple(text for text, key in texts.items() if key not in held))
    taken = {plain(text) for texts in trained for text in texts} | set(paraphrases)
    held_lines = [wording.line for wording in draft.wordings if wording.held_out]
    wordings = {plain(text): text for line in held_lines for text in expand(line)}
    return Family(
        name=draft.name,
        wordings=tuple(wording.line for wording in draft.wordings),
        answer=draft.answer,
        systems=tuple(draft.systems),
        after=draft.directives.get("after", ""),
        think=draft.directives.get("think", ""),
        of_table="rows" in draft.directives,
        trained=tuple(texts for texts in trained if texts),
        held_out_paraphrases=tuple(paraphrases.values()),
        held_out_wordings=tuple(text for key, text in wordings.items() if key not in taken),
    )
