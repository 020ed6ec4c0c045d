"""The rules of a grammar while it is written, in llguidance's variant of Lark."""

from __future__ import annotations

from collections.abc import Sequence

from ollama_async.errors import BadRequest

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
        one. Too many members may come more than once, and need not be there.
        """
        names = [self.add(member) for member, _ in members]
        ways = len(members) << max(0, len(members) - 1)
        if len(members) > PERMUTED_LIMIT or self._ways + ways > WAYS_LIMIT:
            return self._with_repetitions([*names, *filter(None, [others])], separator)
        self._ways += ways
        needed = sum(1 << place for place, (_, is_needed) in enumerate(members) if is_needed)
        everything = (1 << len(members)) - 1
        rests = {left: self.reserve() for left in range(everything + 1)}
        for left, rest in rests.items():
            more = self._ways_on(names, rests, left, others)
            self.define(rest, _maybe(more and f"{separator} ({more})", needed & left))
        return _maybe(self._ways_on(names, rests, everything, others), needed)

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

    @staticmethod
    def _with_repetitions(names: Sequence[str], separator: str) -> str:
        each = f"({' | '.join(names)})"
        return f"({each} ({separator} {each}){{0,{2 * len(names)}}})?"


def _maybe(text: str, is_needed: int) -> str:
    if not text:
        return '""'
    return f"({text})" if is_needed else f"({text})?"
