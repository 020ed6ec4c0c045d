"""Where long work posts how far it is, for any number of readers who come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from ollama_async.core.errors import ServerError

Status = dict[str, Any]

PERIOD_S = 0.06
"""Between two looks of a reader: what changed in between is one status, the last."""


class Board:
    """One line for each digest and for each text without one; the newest content of a line counts.

    So it holds what a latecomer must know, and a slow reader costs nothing.
    """

    def __init__(self) -> None:
        self._lines: dict[str, tuple[int, Status]] = {}
        self._version = 0
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._error: BaseException | None = None

    def post(self, status: Status) -> None:
        self._version += 1
        key = str(status.get("digest") or status["status"])
        self._lines[key] = (self._version, status)
        self._changed.set()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more will be posted; readers get ``error`` after the last line."""
        self._error = error
        self._ended.set()
        self._changed.set()

    async def follow(self) -> AsyncGenerator[Status, None]:
        """Every line, then those that change, in the order of their changes, until the end.

        :raises ServerError: what ended the work.
        """
        seen = 0
        while not self._ended.is_set():
            if self._version == seen:
                self._changed.clear()
                await self._changed.wait()
            for version, status in self._since(seen):
                seen = version
                yield status
            await self._pause()
        for _, status in self._since(seen):
            yield status
        if isinstance(self._error, ServerError):
            raise type(self._error)(self._error.message)
        if self._error is not None:
            raise self._error

    def _since(self, seen: int) -> list[tuple[int, Status]]:
        news = [line for line in self._lines.values() if line[0] > seen]
        return sorted(news, key=lambda line: line[0])

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(PERIOD_S):
                await self._ended.wait()
        except TimeoutError:
            pass
