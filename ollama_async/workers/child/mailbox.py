"""What the step thread is told by the other threads, and where it sleeps."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping

import msgspec

from ollama_async.conversation import Sampling
from ollama_async.workers.child.engines.port import Constraint
from ollama_async.workers.child.meaning import Meaning
from ollama_async.workers.messages import Cancel, ToParent

LIMIT = 1024
"""Entries that may lie here. The parent sends no more requests than there are slots; whoever sends
more waits, and so in the end its ring fills."""


class Work(msgspec.Struct, frozen=True):
    """A request that is ready for a slot.

    ``tokens``: the prompt, at least one token and fewer than ``num_ctx``, the number of tokens that
    prompt and answer together may have in the slot. ``keep``: how many of the first tokens survive
    when the middle is forgotten. ``limit``: tokens of the answer at most.
    ``meaning`` takes the answer's text apart; None: all of it is content. ``special``: the text of
    control tokens that ``meaning`` wants to see, which otherwise have none. ``constraint``: what
    the answer must look like.
    """

    id: int
    tokens: list[int]
    sampling: Sampling
    num_ctx: int
    keep: int
    limit: int
    shift: bool
    wants_context: bool
    meaning: Meaning | None = None
    special: Mapping[int, bytes] = {}
    constraint: Constraint | None = None


class Mailbox:
    """Entries for the step thread: work, cancellations, and what it is to say to the parent."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._entries: deque[Work | Cancel | ToParent] = deque()
        self._changed = threading.Condition()
        self._is_woken = False

    def put(self, entry: Work | Cancel | ToParent) -> None:
        """Blocks while the mailbox is full. Any thread but the step thread."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._entries) < self._limit)
            self._entries.append(entry)
            self._changed.notify_all()

    def take(self) -> list[Work | Cancel | ToParent]:
        """All entries, in order; never waits. Step thread only."""
        if not self._entries:
            return []
        with self._changed:
            entries = list(self._entries)
            self._entries.clear()
            self._changed.notify_all()
        return entries

    def wait(self, timeout_s: float) -> None:
        """Until there is an entry, :meth:`wake` is called, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._entries or self._is_woken, timeout_s)

    def wake(self) -> None:
        """From now on nobody waits here any more: the step thread is to end."""
        with self._changed:
            self._is_woken = True
            self._limit = 1 << 30
            self._changed.notify_all()
