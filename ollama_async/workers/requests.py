"""Requests that were submitted, with their sinks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter_ns

from ollama_async.core.errors import ServerError
from ollama_async.queue.backend import Finish, Job, Sink

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class SubmittedRequest:
    """A job and its sink, until its end. ``submitted_ns`` and ``admitted_ns`` are of perf_counter.
    ``is_detached``: nothing more is passed to the sink.
    """

    id: int
    job: Job
    sink: Sink
    on_cancel: Callable[[SubmittedRequest], None]
    submitted_ns: int = field(default_factory=perf_counter_ns)
    admitted_ns: int = 0
    is_detached: bool = False
    was_started: bool = False

    def cancel(self) -> None:
        """See :class:`~ollama_async.queue.backend.Handle`."""
        self.on_cancel(self)

    def end(self, result: Finish | ServerError) -> None:
        """Pass the end to the sink, once. A fault of the sink is logged."""
        if self.is_detached:
            return
        self.is_detached = True
        try:
            if isinstance(result, Finish):
                self.sink.finished(result)
            else:
                self.sink.failed(result)
        except Exception:
            log.exception("sink of request %d", self.id)

    def try_restart(self) -> bool:
        """Whether another worker may restart it. A fault of the sink is logged."""
        if self.is_detached:
            return False
        try:
            return self.sink.try_restart()
        except Exception:
            log.exception("sink of request %d", self.id)
            return False
