"""The prompt cache: states of slots that lost their cells of the KV cache, to be restored later.

A state is restored into any slot at the speed of memory, in milliseconds, where computing it again
takes seconds. Only the step thread calls it. :mod:`.host_prompt_cache` implements it.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from ollama_async.workers.child.prefix_query import PrefixQuery


class CachedPrefix(msgspec.Struct, frozen=True):
    """An entry that has the first ``length`` tokens of a prompt. Restoring it takes ``size`` cells,
    at least ``length``. ``key`` is the cache's own.
    """

    key: int
    length: int
    size: int


class PromptCache(Protocol):
    """Saves and restores slots of one engine; see :meth:`Engine.save` and ``restore``."""

    def keep(self, slot: int, tokens: list[int], owner: str) -> None:
        """The slot holds ``tokens``, computed for ``owner``, and is about to be cleared: save it if
        that pays. Never raises.
        """

    def find(self, query: PrefixQuery) -> CachedPrefix | None:
        """The entry with the longest prefix that the query may reuse; None: there is none."""

    def restore(self, match: CachedPrefix, slot: int) -> bool:
        """Make the slot hold all tokens of the entry; the caller trims it. False: it is gone or
        does not fit, and the slot is empty.
        """


class NoPromptCache:
    """Keeps nothing."""

    def keep(self, slot: int, tokens: list[int], owner: str) -> None:
        pass

    def find(self, query: PrefixQuery) -> CachedPrefix | None:  # noqa: ARG002  # there is nothing
        return None

    def restore(self, match: CachedPrefix, slot: int) -> bool:  # noqa: ARG002  # as above
        return False
