"""Building blocks of grammars in llguidance's variant of Lark: literals, JSON Schemas, rules.

Text matches whatever tokens it comes in. Control tokens within it are named by their ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.grammar.json_schema import prepare

PERMUTED_LIMIT = 6
"""Members that may come in any order exactly once; each more would double the number of rules."""

PATHS_LIMIT = 6000
"""Paths through all permutations in one grammar, counted by the members that may come next."""

GRAMMAR_LIMIT = 1 << 19
"""Characters. Writing and compiling this many takes about a second."""

MAX_CALLS = 16
"""Calls in an answer that must be calls; a model could otherwise go on forever."""

HEAD = '%llguidance {"no_forcing": true}\n'
ANYTHING = "ANYTHING: /(?s:.*)/\n"

SpecialTokens = Mapping[int, bytes]
"""The text of control tokens, by id."""

Member = tuple[str, bool]
"""A pattern, and whether it is required."""


def literal(text: str) -> str:
    """A pattern for ``text`` in ordinary tokens."""
    return json.dumps(text, ensure_ascii=False)


def sequence(text: str, special: SpecialTokens) -> str:
    """A pattern for ``text`` with the control tokens in it."""
    return " ".join(split_special(text, special))


def split_special(text: str, special: SpecialTokens) -> list[str]:
    """``text`` split into literals and control tokens."""
    ids = {each.decode(): token for token, each in special.items()}
    if not ids:
        return [literal(text)]
    longest_first = sorted(ids, key=len, reverse=True)
    parts = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
    return [f"<[{ids[part]}]>" if part in ids else literal(part) for part in parts if part]


def json_rule(form: object, *, lenient: bool = False) -> str:
    """A pattern for JSON of a ``form``: ``"json"`` (an object) or a JSON Schema.

    ``lenient``: leave out what cannot be enforced.

    :raises BadRequest: the form is neither, or cannot be enforced.
    """
    if form == "json":
        form = {"type": "object"}
    if not isinstance(form, (dict, bool)):
        raise BadRequest(
            f'invalid format: {json.dumps(form)}; expected "json" or a valid JSON Schema object'
        )
    return f"%json {prepare(form, lenient=lenient)}"


class RuleSet:
    """The rules of one grammar, by name. Equal texts share a rule.

    :raises BadRequest: from every method that adds rules, once they are too large.
    """

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._paths = 0
        self._size = 0

    def add(self, text: str) -> str:
        """Add a rule and return its name."""
        if text not in self._names:
            self._names[text] = self.reserve()
            self.define(self._names[text], text)
        return self._names[text]

    def add_lazy(self, text: str) -> str:
        """As :meth:`add`, for a rule that matches as little as possible."""
        if text not in self._names:
            self._names[text] = f"lazy_{len(self._rules)}"
            self.define(f"{self._names[text]}[lazy]", text)
        return self._names[text]

    def reserve(self) -> str:
        """A name that may be used before :meth:`define` gives it a rule."""
        name = f"rule_{len(self._rules)}"
        self._rules[name] = ""
        return name

    def define(self, name: str, text: str) -> None:
        self._size += len(text)
        if self._size > GRAMMAR_LIMIT:
            raise BadRequest(f"the tools need a grammar of more than {GRAMMAR_LIMIT} characters")
        self._rules[name] = text

    def text(self) -> str:
        return "".join(f"{name}: {rule}\n" for name, rule in self._rules.items())

    def in_any_order(
        self, members: Sequence[Member], separator: str, others: str | None = None
    ) -> str:
        """A pattern for ``members`` in any order, each at most once, and any number of ``others``.

        Models write arguments in any order, and one that could not go back would lose an argument.
        With too many members to follow every order, optional ones may repeat. With too many
        required ones, these come in the order given.
        """
        named = [(self.add(member), is_required) for member, is_required in members]
        if self._can_permute(len(named), others):
            return self._permuted(named, separator, others)
        required = [member for member in named if member[1]]
        optional = [name for name, is_required in named if not is_required]
        optional += [others] if others else []
        rest = self.add(" | ".join(optional)) if optional else None
        if self._can_permute(len(required), rest):
            return self._permuted(required, separator, rest)
        return _in_order([name for name, _ in required], separator, rest)

    def _can_permute(self, count: int, others: str | None) -> bool:
        paths = (count + 2 * bool(others)) << max(0, count - 1)
        if count > PERMUTED_LIMIT or self._paths + paths > PATHS_LIMIT:
            return False
        self._paths += paths
        return True

    def _permuted(self, members: Sequence[Member], separator: str, others: str | None) -> str:
        """One rule for each set of members that are still to come."""
        names = [name for name, _ in members]
        required = sum(1 << place for place, (_, is_required) in enumerate(members) if is_required)
        everything = (1 << len(members)) - 1
        rests = {left: self.reserve() for left in range(everything + 1)}
        for left, rest in rests.items():
            more = _continuations(names, rests, left, others)
            self.define(rest, _maybe(more and f"{separator} ({more})", required & left))
        return _maybe(_continuations(names, rests, everything, others), required)


def _continuations(
    names: Sequence[str], rests: dict[int, str], left: int, others: str | None
) -> str:
    """Each member of the set ``left``, with what may follow it."""
    ways = [
        f"{name} {rests[left & ~(1 << place)]}"
        for place, name in enumerate(names)
        if left >> place & 1
    ]
    if others:
        ways.append(f"{others} {rests[left]}")
    return " | ".join(ways)


def _in_order(names: Sequence[str], separator: str, others: str | None) -> str:
    """All ``names`` in their order, with any of ``others`` around them."""
    before = f"({others} {separator})*" if others else ""
    after = f"({separator} {others})*" if others else ""
    return f" {separator} ".join(f"{before} {name}" for name in names) + f" {after}"


def _maybe(text: str, is_required: int) -> str:
    if not text:
        return '""'
    return f"({text})" if is_required else f"({text})?"
