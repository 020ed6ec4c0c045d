"""What all conversions have in common: room for the result, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ollama_async.create.quantize import STEP_S
from ollama_async.store.layout import Shelf

Status = dict[str, Any]


def told(shelf: Shelf, text: str, steps: Iterator[tuple[int, int]]) -> Iterator[Status]:
    """Draw ``steps``, the bytes written so far and in all; the statuses to show meanwhile.

    :raises StorageFailed: what is written does not fit onto the disk; after the first step.
    """
    status = {"status": text}
    yield status
    is_first, pause_at = True, time.monotonic() + STEP_S
    for done, total in steps:
        if is_first:
            shelf.make_room(total - done)
            is_first = False
        if time.monotonic() > pause_at:
            yield {**status, "completed": done, "total": total}
            pause_at = time.monotonic() + STEP_S
