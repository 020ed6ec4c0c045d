"""Several works of one transfer at once, that succeed or end together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def together(works: list[Coroutine[Any, Any, None]]) -> None:
    """Run them; the first failure, or our own end, ends all of them before it goes on."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
