"""How many parameters a model has, as people say it; ``parameter_size`` on the wire."""

from __future__ import annotations


def human_number(value: int) -> str:
    """Ollama's short notation of parameter counts: ``8.0B``, ``137.50M``, ``260K``, ``12``."""
    for size, letter, digits in ((10**9, "B", 1), (10**6, "M", 2)):
        if value >= size:
            return f"{value / size:.{0 if value % size == 0 else digits}f}{letter}"
    return f"{value / 1000:.0f}K" if value >= 1000 else str(value)
