"""What the step thread is told by the other threads, and where it sleeps."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence

import msgspec

from ollama_async.core.conversation import Sampling, Usage
from ollama_async.workers.child.engines.engine import Constraint
from ollama_async.workers.child.output_parser import Meaning
from ollama_async.workers.messages import Cancel, Done, Failed, ToParent

LIMIT = 1024
"""Entries that may lie here. The parent sends no more requests than there are slots."""


class Work(msgspec.Struct, frozen=True):
    """A request that is ready for a slot.

    ``tokens``: the prompt, at least one token and fewer than ``num_ctx``, the number of tokens that
    prompt and answer together may have in the slot. ``keep``: how many of the first tokens survive
    when the middle is forgotten, half of them at most. ``limit``: tokens of the answer at most.
    ``meaning`` takes the answer's text apart; None: all of it is content. ``special``: the text of
    control tokens that ``meaning`` wants to see, which otherwise have none. ``constraint``: what
    the answer must look like.
    ``client`` is who asks. ``owner``: whose what is computed for it will be; requests of other
    owners may use no more of it than the first ``public`` tokens, which the model itself brings.
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
    client: str = ""
    owner: str = ""
    public: int = 0


class Mailbox:
    """Entries for the step thread: work, cancellations, and what it is to say to the parent.

    Where a request is, in the intake or with the step thread, is decided here under one lock, so
    that its cancellation finds it: :meth:`expect`, then either :meth:`hand_over` or :meth:`cancel`.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._entries: deque[Work | Cancel | ToParent] = deque()
        self._expected: set[int] = set()
        self._changed = threading.Condition()
        self._is_woken = False

    # The receiving thread, which never waits here

    def expect(self, request_id: int) -> None:
        """The request has come; the intake has it until it is handed over or cancelled."""
        with self._changed:
            self._expected.add(request_id)

    def cancel(self, cancel: Cancel) -> None:
        """End the request here if the intake still has it, else tell the step thread, behind the
        request itself. Adds at most one entry for each request, whatever the limit.
        """
        with self._changed:
            is_expected = cancel.id in self._expected
            self._expected.discard(cancel.id)
            self._entries.append(Done(cancel.id, "cancel", Usage()) if is_expected else cancel)
            self._changed.notify_all()

    def refuse(self, refusal: Failed) -> None:
        """End what the intake has no room for, unless it is a request that was cancelled. Does not
        wait, as :meth:`cancel`.
        """
        with self._changed:
            if refusal.id < 0 or refusal.id in self._expected:
                self._expected.discard(refusal.id)
                self._entries.append(refusal)
                self._changed.notify_all()

    # The threads of the intake

    def is_expected(self, request_id: int) -> bool:
        return request_id in self._expected

    def hand_over(self, request_id: int, entries: Sequence[Work | ToParent]) -> None:
        """What became of an expected request; nothing if it was cancelled meanwhile.

        Blocks while the mailbox is full.
        """
        with self._changed:
            self._wait_for_room()
            if request_id in self._expected:
                self._expected.discard(request_id)
                self._entries.extend(entries)
                self._changed.notify_all()

    def put(self, entry: Work | Cancel | ToParent) -> None:
        """What nobody can cancel. Blocks while the mailbox is full."""
        with self._changed:
            self._wait_for_room()
            self._entries.append(entry)
            self._changed.notify_all()

    def _wait_for_room(self) -> None:
        self._changed.wait_for(lambda: len(self._entries) < self._limit)

    # The step thread

    def take(self) -> list[Work | Cancel | ToParent]:
        """All entries, in order; never waits."""
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
