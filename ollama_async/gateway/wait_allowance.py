"""How long one client may make us wait in all, while it sends or takes bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class WaitAllowance:
    """``grace_s``, plus a second for every ``bytes_per_s`` bytes that moved; never more than
    ``grace_s`` at a time.
    """

    def __init__(self, grace_s: float, bytes_per_s: float) -> None:
        self._grace_s = grace_s
        self._bytes_per_s = bytes_per_s
        self._left_s = grace_s

    async def wait(self, moving: Awaitable[T]) -> T:
        """What ``moving`` returns. :raises TimeoutError: it takes longer than is left."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(self._left_s):
            moved = await moving
        self._left_s -= loop.time() - began
        return moved

    def earn(self, size: int) -> None:
        """So many bytes moved."""
        self._left_s = min(self._grace_s, self._left_s + size / self._bytes_per_s)
