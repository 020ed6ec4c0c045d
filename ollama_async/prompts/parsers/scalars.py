"""Numbers in the texts of models."""

from __future__ import annotations

import re

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
INT64 = 2**63


def number(text: str) -> int | float | str:
    """A number without fraction is whole; one that no number type holds remains text."""
    found = float(text)
    if found in {float("inf"), float("-inf")}:
        return text
    if found.is_integer() and abs(found) < INT64:
        return int(found)
    return found
