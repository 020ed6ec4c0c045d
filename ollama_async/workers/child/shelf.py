"""The shelf: conversations that lost their cells of the KV cache, kept elsewhere to be restored.

Restoring takes milliseconds where computing again takes seconds. Only the step thread calls it.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from ollama_async.workers.child.prefix_query import PrefixQuery


class ShelfMatch(msgspec.Struct, frozen=True):
    """An entry that has the first ``length`` tokens of a prompt. Restoring it takes ``size`` cells,
    at least ``length``. ``key`` is the shelf's own.
    """

    key: int
    length: int
    size: int


class Shelf(Protocol):
    """Saves and restores slots of one engine; see :meth:`Engine.save` and ``restore``."""

    def keep(self, slot: int, tokens: list[int], owner: str) -> None:
        """The slot holds ``tokens``, computed for ``owner``, and is about to be cleared: save it if
        that pays. Never raises.
        """

    def find(self, query: PrefixQuery) -> ShelfMatch | None:
        """The entry with the longest prefix that the query may reuse; None: there is none."""

    def restore(self, match: ShelfMatch, slot: int) -> bool:
        """Make the slot hold all tokens of the entry; the caller trims it. False: it is gone or
        does not fit, and the slot is empty.
        """


class NoShelf:
    """Keeps nothing."""

    def keep(self, slot: int, tokens: list[int], owner: str) -> None:
        pass

    def find(self, query: PrefixQuery) -> ShelfMatch | None:  # noqa: ARG002  # there is nothing
        return None

    def restore(self, match: ShelfMatch, slot: int) -> bool:  # noqa: ARG002  # as above
        return False
