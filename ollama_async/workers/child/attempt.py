"""How much preparing one request may cost: there are two ways to go about it.

Patiently, a request gets all the time that it may have. Quickly, as most are done in a few
milliseconds, it is given up as :class:`TooHeavy` as soon as it turns out to be none of these: what
is kept from one request to the next is not made, long texts are not even begun with, and templates
are interrupted early.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from ollama_async.core.conversation import Prompt
from ollama_async.core.errors import TemplateFailed
from ollama_async.workers.child.resource_limits import CPU_LIMIT_S

T = TypeVar("T")

QUICK_S = 0.03
"""CPU time of the renderings of a request that is prepared quickly."""

QUICK_CHARACTERS = 1 << 15
"""Such a request has at most so many, all renderings of a history together: to tokenize them takes
8 ms, and 50 where they are nothing but marks of control tokens."""

QUICK_TURNS = 1 << 12
"""And its history has at most so many messages."""

BROUGHT_S = 0.05
"""CPU time of all that is rendered with a template that the request brings."""


class Run(Protocol):
    """Runs foreign code on a leash; see :meth:`.Deadline.run`."""

    def __call__(self, action: Callable[[], T], /) -> T: ...


def run_freely(action: Callable[[], T]) -> T:
    """A :class:`Run` without a leash."""
    return action()


class Limited(Protocol):
    """Makes a runner for the renderings of one request: so many seconds of CPU time, then the
    exception that ``error`` makes of the reason.
    """

    def __call__(self, cpu_limit_s: float, error: Callable[[str], Exception], /) -> Run: ...


class TooHeavy(Exception):
    """The request is none of those that can be prepared quickly."""


class Attempt:
    """What preparing one request may cost."""

    def __init__(self, limited: Limited, *, is_quick: bool) -> None:
        self.is_quick = is_quick
        self._limited = limited
        self._characters = 0

    def leash(self, *, is_brought: bool = False) -> Run:
        """``is_brought``: the request brings the template."""
        if self.is_quick:
            return self._limited(QUICK_S, TooHeavy)
        return self._limited(BROUGHT_S if is_brought else CPU_LIMIT_S, TemplateFailed)

    def tokenize(self, characters: int) -> None:
        """So many more are to be tokenized. :raises TooHeavy: quickly that cannot be done."""
        self._characters += characters
        if self.is_quick and self._characters > QUICK_CHARACTERS:
            raise TooHeavy

    def weigh(self, prompt: Prompt) -> None:
        """:raises TooHeavy: its length alone says that it takes long, whatever renders it."""
        is_long = len(prompt.messages) > QUICK_TURNS or _count(prompt) > QUICK_CHARACTERS
        if self.is_quick and is_long:
            raise TooHeavy

    def make(self) -> None:
        """Something is not there yet. :raises TooHeavy: quickly it cannot be made."""
        if self.is_quick:
            raise TooHeavy


def _count(prompt: Prompt) -> int:
    """Characters, and tokens of the context."""
    turns = sum(len(message.content) for message in prompt.messages)
    return len(prompt.raw or "") + len(prompt.context) + turns
