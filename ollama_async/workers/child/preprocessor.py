"""The preprocessor: where requests arrive, and the two threads that prepare them.

The receiving thread queues requests and passes cancellations on at once; it never waits here. There
are two queues, quick and heavy, each round-robin between clients. Requests in the quick queue are
tried with a few tens of milliseconds each. Whatever needs more (a long text, a history that is
rendered many times, a template or grammar that is not cached) is given up with :class:`.OverBudget`
and moves to the heavy queue, whose thread takes the time. So a heavy request delays another
client's plain one only by that first try, and heavy ones of other clients by one of its kind.

Prepared requests are handed over to the step thread. A request cancelled before that ends here.
"""

from __future__ import annotations

import threading
import traceback

from ollama_async.core.errors import Busy, ServerError
from ollama_async.core.round_robin import RoundRobin
from ollama_async.workers.child.mailbox import LIMIT, Mailbox, PreparedRequest
from ollama_async.workers.child.preparation import Request, RequestPreparer
from ollama_async.workers.child.resource_limits import OverBudget
from ollama_async.workers.messages import Cancel, Failed, Submit, ToParent

_ERROR_CHARACTERS = 2000


class RequestQueue:
    """Requests that wait for one thread, round-robin between clients; at most ``limit``.

    Any thread may call anything; only :meth:`take` waits.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: RoundRobin[int, Request] = RoundRobin()
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, request: Request) -> bool:
        """Queue the request behind its client's others. False if the queue is full."""
        client = request.client if isinstance(request, Submit) else ""
        with self._changed:
            if len(self._waiting) >= self._limit:
                return False
            self._waiting.put(client, request.id, request)
            self._changed.notify()
        return True

    def take(self) -> Request | None:
        """Wait for the next request; None if the queue is empty and closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return self._waiting.take() if self._waiting else None

    def remove(self, request_id: int) -> None:
        """Does nothing if it is not here."""
        with self._changed:
            self._waiting.remove(request_id)

    def close(self) -> None:
        """Make :meth:`take` return None instead of waiting."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class Preprocessor:
    """See the module."""

    def __init__(self, preparer: RequestPreparer, mailbox: Mailbox) -> None:
        self._preparer = preparer
        self._mailbox = mailbox
        self._quick = RequestQueue(LIMIT)
        self._heavy = RequestQueue(LIMIT)

    # The receiving thread

    def put(self, request: Request) -> None:
        """Queue a request, or refuse it: the parent sends fewer than the queue holds."""
        if isinstance(request, Submit):
            self._mailbox.expect(request.id)
        self._put(self._quick, request)

    def cancel(self, cancel: Cancel) -> None:
        """End the request, wherever it is."""
        self._mailbox.cancel(cancel)
        self._quick.remove(cancel.id)
        self._heavy.remove(cancel.id)

    def close(self) -> None:
        """Make both threads return once their queues are empty."""
        self._quick.close()
        self._heavy.close()

    # The preparing threads

    def run(self, *, is_quick: bool) -> None:
        """Prepare the requests of one queue, until :meth:`close`."""
        queue = self._quick if is_quick else self._heavy
        while (request := queue.take()) is not None:
            self.prepare(request, is_quick=is_quick)

    def prepare(self, request: Request, *, is_quick: bool) -> None:
        """Answer one request or hand it over; a quick try may move it to the heavy queue."""
        if isinstance(request, Submit) and not self._mailbox.is_expected(request.id):
            return  # cancelled while it was queued
        results: list[PreparedRequest | ToParent]
        try:
            results = self._preparer.prepare(request, is_quick=is_quick)
        except OverBudget:
            self._put(self._heavy, request)
            return
        except ServerError as error:
            results = [Failed(request.id, error.code, error.message[:_ERROR_CHARACTERS])]
        except Exception as error:  # noqa: BLE001  # the boundary of a request
            traceback.print_exc()
            text = f"worker: {error!r}"[:_ERROR_CHARACTERS]
            results = [Failed(request.id, ServerError.code, text)]
        if isinstance(request, Submit):
            self._mailbox.hand_over(request.id, results)
            return
        for result in results:
            self._mailbox.put(result)

    def _put(self, queue: RequestQueue, request: Request) -> None:
        if not queue.put(request):
            reason = "too many requests wait to be prepared"
            self._mailbox.refuse(Failed(request.id, Busy.code, reason))
