"""Holds tool calls, once a model has begun one, to the tools that were offered.

Text and thoughts are free: until a call begins nothing is compared with any grammar. That it begins
is known from the parser, which reads the same text. So a token that opens a call and goes on within
it has been chosen already; if what it says cannot become a call, this one stays unguarded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ollama_async.prompts.call_syntax import UNDECIDED_LIMIT, CallSyntax, OpenCall
from ollama_async.workers.child.engines.engine import Constraint


class CallGrammar(Constraint, Protocol):
    """What one call must look like, from its mark to its end, when it ``is_over``."""

    def restart(self, tokens: Sequence[int]) -> bool:
        """Begin anew, with ``tokens`` accepted already. False: they are not allowed."""


class Answer(Protocol):
    """What is to be known of an answer; see :class:`~ollama_async.prompts.output_format.Parser`."""

    @property
    def call_number(self) -> int: ...

    @property
    def open_call(self) -> OpenCall | None: ...


class Tokens(Protocol):
    """What is to be known of a vocabulary. Any thread."""

    def tokenize(self, text: str) -> list[int]:
        """Tokens that spell ``text``."""

    def prefixes(self, token: int) -> Iterable[int]:
        """The tokens that are a beginning of what ``token`` says, the longest first."""


class CallGuard:
    """Of one answer; see :class:`~ollama_async.workers.child.engines.engine.Constraint`. Step
    thread only.

    ``grammars``: for each syntax what may follow the mark that opens a call; they are this object's
    alone. ``names`` are those of the tools, ``tokens`` those of the model.

    A token that is not allowed gives way to the longest beginning of it that is. Else a model that
    wants to end a string, and by the same token an object that lacks something, would go on with
    the string: whatever it likes best that does not end the object.
    """

    __slots__ = (
        "_active",
        "_grammars",
        "_names",
        "_refused",
        "_settled",
        "_tokens",
        "failure",
        "is_over",
    )

    def __init__(
        self,
        grammars: Mapping[CallSyntax, CallGrammar],
        names: tuple[str, ...],
        tokens: Tokens,
    ) -> None:
        self._grammars = grammars
        self._names = names
        self._tokens = tokens
        self._refused = -1
        self._active: CallGrammar | None = None
        self._settled = 0  # number of the last call of which it is known what becomes of it
        self.is_over = False
        self.failure = ""

    @property
    def is_free(self) -> bool:
        """Whether the answer may say anything now."""
        return self._active is None

    @property
    def mask_s(self) -> float:
        return 0.0 if self._active is None else self._active.mask_s

    def watch(self, answer: Answer) -> None:
        """Look whether the ``answer`` has begun a call, after some more of its text."""
        number = answer.call_number
        if number in (0, self._settled) or self._active is not None:
            return
        call = answer.open_call
        if call is None:
            return
        start = call.syntax.find_start(call.text, self._names)
        if start is None:
            if len(call.text) > UNDECIDED_LIMIT:
                self._settled = number
            return
        self._settled = number
        grammar = self._grammars.get(call.syntax)
        if (
            grammar
            and grammar.restart(self._tokens.tokenize(call.text[start:]))
            and not grammar.is_over
        ):
            self._active = grammar

    def allows(self, token: int) -> bool:
        if self._active is None or self._active.allows(token):
            return True
        self._refused = token
        return False

    def allowed(self) -> NDArray[np.intp]:
        grammar = self._active
        if grammar is None:
            return np.empty(0, np.intp)
        prefixes = self._tokens.prefixes(self._refused) if self._refused >= 0 else ()
        first = next(filter(grammar.allows, prefixes), None)
        return grammar.allowed() if first is None else np.array([first], np.intp)

    def accept(self, token: int) -> None:
        grammar = self._active
        if grammar is None:
            return
        self._refused = -1
        grammar.accept(token)
        if grammar.is_over:
            self._active = None
            if grammar.failure:  # the answer goes on as if nobody had looked
                print(f"a tool call is not guarded: {grammar.failure}", file=sys.stderr)  # noqa: T201  # stderr is the log
