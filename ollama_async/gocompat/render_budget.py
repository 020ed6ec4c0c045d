"""Limits the work and the text of one render, whatever the template."""

from __future__ import annotations

from ollama_async.core.errors import TemplateFailed

STEPS_LIMIT = 1_000_000
"""Commands and iterations, and for each text its length divided by :data:`CHARACTERS_A_STEP`.
All of them take some seconds at most."""

CHARACTERS_A_STEP = 32

TEXT_LIMIT = 8 << 20
"""Characters that one piece of text, or the whole output, may have."""

DEPTH_LIMIT = 200
"""Nested blocks and parentheses at run time, including those of called templates; each takes a few
Python calls."""


class RenderBudget:
    """What is left for one render, which may try several shapes of the conversation.

    :raises TemplateFailed: from every method, once nothing is left.
    """

    def __init__(self) -> None:
        self._steps = STEPS_LIMIT
        self._depth = 0

    def step(self, count: int = 1) -> None:
        self._steps -= count
        if self._steps < 0:
            raise TemplateFailed("the template takes too long to render")

    def spend_text(self, length: int) -> None:
        """Spend the steps of ``length`` characters that are read or written at once."""
        self.step(length // CHARACTERS_A_STEP)

    def spend_characters(self, count: int) -> None:
        """Spend the steps of ``count`` characters that are read one by one."""
        self.step(count // 4)

    def enter(self) -> None:
        """Go one level deeper, unless this fails. :meth:`leave` must follow in any case."""
        if self._depth >= DEPTH_LIMIT:
            raise TemplateFailed("the template is nested too deeply, or calls itself too often")
        self._depth += 1

    def leave(self) -> None:
        self._depth -= 1


class TextBuffer:
    """Text that grows within a budget."""

    def __init__(self, budget: RenderBudget) -> None:
        self.budget = budget
        self._pieces: list[str] = []
        self._length = 0

    def write(self, piece: str) -> None:
        """:raises TemplateFailed: a limit is reached."""
        self._length += len(piece)
        if self._length > TEXT_LIMIT:
            raise TemplateFailed(f"the template makes more than {TEXT_LIMIT >> 20} MiB of text")
        self.budget.step(1 + len(piece) // CHARACTERS_A_STEP)
        self._pieces.append(piece)

    def text(self) -> str:
        return "".join(self._pieces)
