"""How much work and text one render may cost, whatever the template says."""

from __future__ import annotations

from ollama_async.core.errors import TemplateFailed

STEPS_LIMIT = 1_000_000
"""Commands run, turns of loops, and for every text that is made its length divided by
:data:`CHARACTERS_A_STEP`: some seconds at most."""

CHARACTERS_A_STEP = 32

TEXT_LIMIT = 8 << 20
"""Characters that one piece of text, or the whole output, may have."""

DEPTH_LIMIT = 200
"""Blocks and parentheses inside one another while running, those of called templates included;
each takes a few calls of Python's."""


class RenderBudget:
    """Of one render, which may try several shapes of the conversation.

    :raises TemplateFailed: from every method, once there is nothing left.
    """

    def __init__(self) -> None:
        self._steps = STEPS_LIMIT
        self._depth = 0

    def step(self, count: int = 1) -> None:
        self._steps -= count
        if self._steps < 0:
            raise TemplateFailed("the template takes too long to render")

    def text(self, length: int) -> None:
        """Some text of ``length`` characters is looked at or made."""
        self.step(length // CHARACTERS_A_STEP)

    def characters(self, count: int) -> None:
        """So many characters are looked at one by one."""
        self.step(count // 4)

    def enter(self) -> None:
        """One level deeper, unless this fails; :meth:`leave` when it is done or has failed."""
        if self._depth >= DEPTH_LIMIT:
            raise TemplateFailed("the template is nested too deeply, or calls itself too often")
        self._depth += 1

    def leave(self) -> None:
        self._depth -= 1


class TextBuffer:
    """Text that grows piece by piece, and is paid for as it grows."""

    def __init__(self, budget: RenderBudget) -> None:
        self.budget = budget
        self._pieces: list[str] = []
        self._length = 0

    def write(self, piece: str) -> None:
        """:raises TemplateFailed: it is too much."""
        self._length += len(piece)
        if self._length > TEXT_LIMIT:
            raise TemplateFailed(f"the template makes more than {TEXT_LIMIT >> 20} MiB of text")
        self.budget.step(1 + len(piece) // CHARACTERS_A_STEP)
        self._pieces.append(piece)

    def text(self) -> str:
        return "".join(self._pieces)
