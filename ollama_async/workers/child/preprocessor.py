"""Where requests come in, and the two threads that prepare them.

The receiving thread hands requests in and passes cancellations on at once; it never waits here.
Requests stand in two lines, each round-robin between clients. Those in the quick one are tried with
a few tens of milliseconds each; what needs more (:class:`.OverBudget`: a long text, a history that
is rendered many times, a template or a grammar that nobody has used before) is given up and goes
over to the heavy one, and its thread takes the time. So a heavy request delays another client's
plain one by that first try only, and heavy requests of others by one of its kind.

What is ready is handed over to the step thread. A request that is cancelled before ends here.
"""

from __future__ import annotations

import threading
import traceback
from typing import Generic, TypeVar

from ollama_async.core.errors import Busy, ServerError
from ollama_async.core.round_robin import RoundRobin
from ollama_async.workers.child.mailbox import LIMIT, Mailbox, Work
from ollama_async.workers.child.preparation import Asked, Preparation
from ollama_async.workers.child.resource_limits import OverBudget
from ollama_async.workers.messages import Cancel, Failed, Submit, ToParent

_ERROR_CHARACTERS = 2000


class Intake:
    """See the module."""

    def __init__(self, preparation: Preparation, mailbox: Mailbox) -> None:
        self._preparation = preparation
        self._mailbox = mailbox
        self._quick: Line[Asked] = Line(LIMIT)
        self._heavy: Line[Asked] = Line(LIMIT)

    # The receiving thread

    def put(self, asked: Asked) -> None:
        """Take a request in, or refuse it: the parent sends fewer than may stand here."""
        if isinstance(asked, Submit):
            self._mailbox.expect(asked.id)
        if not self._quick.put(_client(asked), asked.id, asked):
            self._refuse(asked)

    def cancel(self, cancel: Cancel) -> None:
        """End the request, wherever it is."""
        self._mailbox.cancel(cancel)
        self._quick.remove(cancel.id)
        self._heavy.remove(cancel.id)

    def close(self) -> None:
        """Make both threads return when nobody stands in their lines."""
        self._quick.close()
        self._heavy.close()

    # The threads of the two lines

    def run_quick(self) -> None:
        while (asked := self._quick.take()) is not None:
            self.try_quickly(asked)

    def run_heavy(self) -> None:
        while (asked := self._heavy.take()) is not None:
            self.work_on(asked)

    def try_quickly(self, asked: Asked) -> None:
        """As :meth:`work_on`, or put the request into the other line."""
        try:
            self._work_on(asked, is_quick=True)
        except OverBudget:
            if not self._heavy.put(_client(asked), asked.id, asked):
                self._refuse(asked)

    def work_on(self, asked: Asked) -> None:
        """Answer one request, or pass it on, however long that takes."""
        self._work_on(asked, is_quick=False)

    def _work_on(self, asked: Asked, *, is_quick: bool) -> None:
        """Errors of a request stay its own."""
        if isinstance(asked, Submit) and not self._mailbox.is_expected(asked.id):
            return  # cancelled while it stood here
        results: list[Work | ToParent]
        try:
            results = self._preparation.prepare(asked, is_quick=is_quick)
        except OverBudget:
            raise
        except ServerError as error:
            results = [Failed(asked.id, error.code, error.message[:_ERROR_CHARACTERS])]
        except Exception as error:  # noqa: BLE001  # the boundary of a request
            traceback.print_exc()
            text = f"worker: {error!r}"[:_ERROR_CHARACTERS]
            results = [Failed(asked.id, ServerError.code, text)]
        if isinstance(asked, Submit):
            self._mailbox.hand_over(asked.id, results)
            return
        for result in results:
            self._mailbox.put(result)

    def _refuse(self, asked: Asked) -> None:
        self._mailbox.refuse(Failed(asked.id, Busy.code, "too many requests wait to be prepared"))


def _client(asked: Asked) -> str:
    return asked.client if isinstance(asked, Submit) else ""


T = TypeVar("T")


class Line(Generic[T]):
    """Any thread may call anything; only :meth:`take` waits. ``limit``: requests at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: RoundRobin[int, T] = RoundRobin()
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, client: str, number: int, item: T) -> bool:
        """Queue the ``client``'s request ``number`` behind its others. False: the line is full."""
        with self._changed:
            if len(self._waiting) >= self._limit:
                return False
            self._waiting.put(client, number, item)
            self._changed.notify()
        return True

    def take(self) -> T | None:
        """Whose turn it is; waits until there is somebody. None: nobody, and the line is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return self._waiting.take() if self._waiting else None

    def remove(self, number: int) -> None:
        """Forget a request; nothing happens if it is not here."""
        with self._changed:
            self._waiting.remove(number)

    def close(self) -> None:
        """Make :meth:`take` return None instead of waiting."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
