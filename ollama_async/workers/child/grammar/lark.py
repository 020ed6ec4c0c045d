"""The rules of a grammar while it is written, in llguidance's variant of Lark."""

from __future__ import annotations

from collections.abc import Sequence

from ollama_async.core.errors import BadRequest

PERMUTED_LIMIT = 6
"""Members whose every order is a way through the grammar; each more would double its rules."""

WAYS_LIMIT = 6000
"""Of all orders in one grammar together, counted by the members that may come next."""

GRAMMAR_LIMIT = 1 << 19
"""Characters. Writing and compiling so many takes about a second."""

Member = tuple[str, bool]
"""What matches it, and whether it has to be there."""


class Rules:
    """Rules by name. Rules of one text are one rule.

    :raises BadRequest: whatever adds to them does, once they are too many.
    """

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._ways = 0
        self._size = 0

    def add(self, text: str) -> str:
        """The name of a rule for ``text``."""
        if text not in self._names:
            self._names[text] = self.reserve()
            self.define(self._names[text], text)
        return self._names[text]

    def add_lazy(self, text: str) -> str:
        """As :meth:`add`; what the rule matches is as short as possible."""
        if text not in self._names:
            self._names[text] = f"lazy_{len(self._rules)}"
            self.define(f"{self._names[text]}[lazy]", text)
        return self._names[text]

    def reserve(self) -> str:
        """The name of a rule that is still to be defined, and may be used before."""
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
        """What matches ``members``, each at most once, with ``separator`` between two of them, and
        as many of ``others`` as there may be.

        Models write arguments in whatever order they like, and whoever could not go back would lose
        one. Where there are too many to follow each order, those that need not be there may come
        more than once; where too many have to be there, these come in their own order.
        """
        named = [(self.add(member), is_needed) for member, is_needed in members]
        if self._can_permute(len(named), others):
            return self._permuted(named, separator, others)
        needed = [member for member in named if member[1]]
        free = [name for name, is_needed in named if not is_needed] + ([others] if others else [])
        rest = self.add(" | ".join(free)) if free else None
        if self._can_permute(len(needed), rest):
            return self._permuted(needed, separator, rest)
        return self._in_order([name for name, _ in needed], separator, rest)

    def _can_permute(self, count: int, others: str | None) -> bool:
        """Whether every order of so many members can be followed; it is counted, then."""
        ways = (count + 2 * bool(others)) << max(0, count - 1)
        if count > PERMUTED_LIMIT or self._ways + ways > WAYS_LIMIT:
            return False
        self._ways += ways
        return True

    def _permuted(self, members: Sequence[Member], separator: str, others: str | None) -> str:
        names = [name for name, _ in members]
        needed = sum(1 << place for place, (_, is_needed) in enumerate(members) if is_needed)
        everything = (1 << len(members)) - 1
        rests = {left: self.reserve() for left in range(everything + 1)}
        for left, rest in rests.items():
            more = self._ways_on(names, rests, left, others)
            self.define(rest, _maybe(more and f"{separator} ({more})", needed & left))
        return _maybe(self._ways_on(names, rests, everything, others), needed)

    def _in_order(self, names: Sequence[str], separator: str, others: str | None) -> str:
        """All of ``names`` in their order, with any of ``others`` around them."""
        before = f"({others} {separator})*" if others else ""
        after = f"({separator} {others})*" if others else ""
        return f" {separator} ".join(f"{before} {name}" for name in names) + f" {after}"

    @staticmethod
    def _ways_on(names: Sequence[str], rests: dict[int, str], left: int, others: str | None) -> str:
        """The members ``left``, each with what may follow it."""
        ways = [
            f"{name} {rests[left & ~(1 << place)]}"
            for place, name in enumerate(names)
            if left >> place & 1
        ]
        if others:
            ways.append(f"{others} {rests[left]}")
        return " | ".join(ways)


def _maybe(text: str, is_needed: int) -> str:
    if not text:
        return '""'
    return f"({text})" if is_needed else f"({text})?"
