"""``keep_alive`` as clients send it: a number of seconds, or a Go duration in a string."""

from __future__ import annotations

import math
from typing import Any

from ollama_async.gocompat import durations


def seconds(value: Any) -> float | None:
    """Seconds to stay loaded; ``inf`` for any negative value; None if the client said nothing.

    :raises ValueError: with Go's text (``time: missing unit in duration "300"``) or Ollama's
        (``Unsupported type: 'bool'``).
    """
    if value is None:
        return None
    if isinstance(value, str):
        nanoseconds = durations.parse(value)
        return math.inf if nanoseconds < 0 else nanoseconds / 1e9
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"Unsupported type: '{_GO_NAMES[type(value)]}'")  # noqa: TRY004  # a bad value of a request
    if value < 0 or value >= _MOST_S:
        return math.inf
    return float(value)


_MOST_S = 2**63 / 1e9  # beyond it Go's nanoseconds overflow; nobody means that
_GO_NAMES = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}
