"""Requests with a sink, and calls that a coroutine awaits: what a worker client sends."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import TypeVar

from ollama_async.core.errors import EngineFailed, ServerError
from ollama_async.queue.backend import Finish, Job, Sink
from ollama_async.workers.messages import Detokenize, Text, Tokenize, Tokens

CallResult = Tokens | Text
R = TypeVar("R", Tokens, Text)

_CALL_TIMEOUT_S = 30.0

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


class Calls:
    """Calls to one worker, matched to their results by id. On the loop only.

    Ids are negative, unlike those of requests, and never reused: a late result finds no call.
    """

    def __init__(self, send: Callable[[Tokenize | Detokenize], None]) -> None:
        self._send = send
        self._ids = itertools.count(-1, -1)
        self._waiting: dict[int, asyncio.Future[CallResult]] = {}

    async def tokenize(
        self,
        text: str,
        *,
        add_special: bool = False,
        parse_special: bool = True,
        timeout_s: float = _CALL_TIMEOUT_S,
    ) -> list[int]:
        """Token ids of ``text``.

        :raises EngineFailed: no result in time, or one of another kind.
        :raises ServerError: the worker's own reason, WorkerDied or TooLarge.
        """
        message = Tokenize(next(self._ids), text, add_special, parse_special)
        return (await self._call(message, Tokens, timeout_s)).tokens

    async def detokenize(self, tokens: list[int], *, timeout_s: float = _CALL_TIMEOUT_S) -> str:
        """The text of token ids. Errors as :meth:`tokenize`."""
        message = Detokenize(next(self._ids), tokens)
        return (await self._call(message, Text, timeout_s)).text

    async def _call(self, message: Tokenize | Detokenize, kind: type[R], timeout_s: float) -> R:
        self._send(message)
        waiting: asyncio.Future[CallResult] = asyncio.get_running_loop().create_future()
        self._waiting[message.id] = waiting
        try:
            async with asyncio.timeout(timeout_s):
                answer = await waiting
        except TimeoutError:
            raise EngineFailed(f"the worker did not answer in {timeout_s:g} s") from None
        finally:
            del self._waiting[message.id]
            if waiting.done() and not waiting.cancelled():
                waiting.exception()  # mark as retrieved: it was set beside a cancellation
        if not isinstance(answer, kind):
            raise EngineFailed(f"the worker answered with {type(answer).__name__}")
        return answer

    def end(self, call_id: int, result: CallResult | ServerError) -> bool:
        """Pass on the result; whether a call waits for it."""
        waiting = self._waiting.get(call_id)
        if waiting is None or waiting.done():
            return False
        if isinstance(result, ServerError):
            waiting.set_exception(result)
        else:
            waiting.set_result(result)
        return True

    def fail_all(self, error: ServerError) -> None:
        for call_id in self._waiting:
            self.end(call_id, error)
