"""What is left of a prompt that is still too long when its history has been cut."""

from __future__ import annotations

from collections.abc import Sequence


def cut_middle(tokens: Sequence[int], *, num_ctx: int, keep: int) -> list[int]:
    """The first ``keep`` tokens and as many of the last as leave half of the rest free.

    This is Ollama's rule: the result has ``num_ctx - max((num_ctx - keep) // 2, 1)`` tokens.
    A negative ``keep`` means all, and at least two tokens of the context are never kept, so that
    the end of the prompt always has a place. ``num_ctx`` is at least 3; ``tokens`` are longer.
    """
    keep = min(keep if keep >= 0 else num_ctx, num_ctx - 2)
    length = num_ctx - max((num_ctx - keep) // 2, 1)
    return [*tokens[:keep], *tokens[len(tokens) - (length - keep) :]]
