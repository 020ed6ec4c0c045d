"""Questions to a child that one coroutine waits for, matched to their answers by number.

The numbers are negative, so that they never meet a request's, and are never used twice: an answer
that comes after its question was given up finds nobody, and that is no error.
"""

from __future__ import annotations

import asyncio
import itertools
import math

from ollama_async.core.errors import EngineFailed, ServerError
from ollama_async.workers.messages import Text, Tokens

Answer = Tokens | Text


class Questions:
    """Those of one child. On the loop only."""

    def __init__(self) -> None:
        self._numbers = itertools.count(-1, -1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}

    def next_number(self) -> int:
        """For the message that asks."""
        return next(self._numbers)

    async def answer_to(self, number: int, *, timeout_s: float) -> Answer:
        """Wait for it. Cancelled or late, the question is forgotten.

        :raises EngineFailed: it took longer than ``timeout_s``.
        :raises ServerError: what :meth:`fail` or :meth:`fail_all` was given.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(None if math.isinf(timeout_s) else timeout_s):
                return await answer
        except TimeoutError:
            raise EngineFailed(f"the worker did not answer in {timeout_s:g} s") from None
        finally:
            del self._waiting[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # lost against a cancellation in the same tick: nobody asks

    def answer(self, answer: Answer) -> bool:
        """Whether anybody waits for it."""
        waiting = self._waiting.get(answer.id)
        if waiting is None or waiting.done():
            return False
        waiting.set_result(answer)
        return True

    def fail(self, number: int, error: ServerError) -> bool:
        """As :meth:`answer`."""
        waiting = self._waiting.get(number)
        if waiting is None or waiting.done():
            return False
        waiting.set_exception(error)
        return True

    def fail_all(self, error: ServerError) -> None:
        for number in self._waiting:
            self.fail(number, error)
