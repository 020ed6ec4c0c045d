"""Messages of other threads to the step thread, which waits here while it is idle."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from ollama_async.core.conversation import Sampling, Usage
from ollama_async.workers.child.engines.engine import Constraint
from ollama_async.workers.child.media import MediaSpan
from ollama_async.workers.child.output_parser import OutputParser
from ollama_async.workers.messages import Cancel, Done, ToParent

LIMIT = 1024
"""Entries in the mailbox. The parent sends no more requests than there are slots."""


class PreparedRequest(msgspec.Struct, frozen=True):
    """A request that is ready for a slot.

    - ``tokens``: the prompt; at least one token, fewer than ``num_ctx``.
    - ``num_ctx``: tokens that prompt and answer may have in the slot.
    - ``keep``: first tokens that survive a context shift, at most half of ``num_ctx``.
    - ``max_tokens``: tokens of the answer at most.
    - ``parser``: splits the answer into content, thoughts and calls; None: all is content.
    - ``special``: text of control tokens that ``parser`` reads, which otherwise have none.
    - ``constraint``: restricts the tokens of the answer.
    - ``logprobs``: as in :class:`~ollama_async.core.conversation.Inference`.
    - ``client``: whose turn it is. ``owner``: whose cached tokens may be reused; of those of other
      owners only the first ``public_tokens`` may, which the model itself contributes.
    - ``spans``: of images and recordings, by the places where they begin in ``tokens``, in order.
    """

    id: int
    tokens: list[int]
    sampling: Sampling
    num_ctx: int
    keep: int
    max_tokens: int
    shift: bool
    returns_context: bool
    parser: OutputParser | None = None
    special: Mapping[int, bytes] = {}
    constraint: Constraint | None = None
    client: str = ""
    owner: str = ""
    public_tokens: int = 0
    logprobs: int = -1
    spans: Mapping[int, MediaSpan] = {}

    def without_media(self, tokens: list[int]) -> list[int]:
        """``tokens`` without the places of images and recordings, whose numbers are negative."""
        return [token for token in tokens if token >= 0] if self.spans else tokens


P = TypeVar("P")


class PreparedEmbedding(msgspec.Struct, frozen=True):
    """An embedding that is ready to be computed. ``inputs``: at least one, each with at least one
    token and at most ``num_ctx``, special ones included. ``client``: whose turn it is.
    """

    id: int
    inputs: list[list[int]]
    client: str = ""


class Mailbox(Generic[P]):
    """Prepared requests (``P``), cancellations and messages to the parent, for the step thread.

    One lock decides where a request is, with the preprocessor or the step thread, so that its
    cancellation finds it: :meth:`expect`, then either :meth:`hand_over` or :meth:`cancel`.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._entries: deque[P | Cancel | ToParent] = deque()
        self._expected: set[int] = set()
        self._changed = threading.Condition()
        self._is_woken = self._is_notified = False

    # The receiving thread, which never waits here

    def expect(self, request_id: int) -> None:
        """The preprocessor has the request until it is handed over or cancelled."""
        with self._changed:
            self._expected.add(request_id)

    def cancel(self, cancel: Cancel) -> None:
        """End the request here if the preprocessor still has it, else notify the step thread.

        Adds at most one entry per request, whatever the limit.
        """
        with self._changed:
            is_expected = cancel.id in self._expected
            self._expected.discard(cancel.id)
            self._entries.append(Done(cancel.id, "cancel", Usage()) if is_expected else cancel)
            self._changed.notify_all()

    # The preprocessor's threads

    def is_expected(self, request_id: int) -> bool:
        return request_id in self._expected

    def hand_over(
        self, request_id: int, entries: Sequence[P | ToParent], *, waits: bool = True
    ) -> None:
        """The result of an expected request; dropped if it was cancelled meanwhile.

        Blocks while the mailbox is full if it ``waits``.
        """
        with self._changed:
            if waits:
                self._wait_for_space()
            if request_id in self._expected:
                self._expected.discard(request_id)
                self._entries.extend(entries)
                self._changed.notify_all()

    def _wait_for_space(self) -> None:
        self._changed.wait_for(lambda: len(self._entries) < self._limit)

    # The step thread

    def take(self) -> list[P | Cancel | ToParent]:
        """All entries, in order; never waits."""
        if not self._entries:
            return []
        with self._changed:
            entries = list(self._entries)
            self._entries.clear()
            self._changed.notify_all()
        return entries

    def wait(self, timeout_s: float) -> None:
        """Until there is an entry, :meth:`notify` or :meth:`wake` is called, or the timeout has
        passed.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._entries or self._is_notified or self._is_woken, timeout_s
            )
            self._is_notified = False

    def notify(self) -> None:
        """End the next wait, or the present one: the step thread may be able to go on."""
        with self._changed:
            self._is_notified = True
            self._changed.notify_all()

    def wake(self) -> None:
        """From now on no thread waits here: the step thread is about to end."""
        with self._changed:
            self._is_woken = True
            self._limit = 1 << 30
            self._changed.notify_all()
