"""Restricts tool calls, once a model has begun one, to the offered tools and their schemas.

Text and thoughts are free: before a call begins, no grammar is consulted. The parser, which reads
the same text, reports when it begins. So a token that opens a call and continues into it has been
sampled already. If it cannot become a valid call, that call stays unguarded.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ollama_async.prompts.call_syntax import UNDECIDED_LIMIT, CallSyntax
from ollama_async.prompts.output_format import Parser

if TYPE_CHECKING:  # the library takes 35 ms to import
    from ollama_async.workers.child.grammar.llguidance import GrammarMatcher, GrammarTokenizer


class CallGuard:
    """A :class:`~ollama_async.workers.child.engines.engine.Constraint` on one answer. Step thread
    only.

    ``grammars``: for each syntax, what may follow the mark that opens a call; owned by this object.
    ``names`` are those of the tools.

    A token that is not allowed is replaced by its longest allowed prefix. Otherwise a model whose
    token ends both a string and an object that lacks a property would continue the string instead.
    """

    def __init__(
        self,
        grammars: Mapping[CallSyntax, GrammarMatcher],
        names: tuple[str, ...],
        tokenizer: GrammarTokenizer,
    ) -> None:
        self._grammars = grammars
        self._names = names
        self._tokenizer = tokenizer
        self._refused = -1
        self._active: GrammarMatcher | None = None
        self._decided = 0  # number of the last call known to be guarded or not
        self.is_over = False
        self.failure = ""

    @property
    def is_free(self) -> bool:
        """Whether any token is allowed now."""
        return self._active is None

    @property
    def mask_s(self) -> float:
        return 0.0 if self._active is None else self._active.mask_s

    def update(self, answer: Parser) -> None:
        """Check whether the answer has begun a call, after more of its text."""
        number = answer.call_number
        if number in (0, self._decided) or self._active is not None:
            return
        call = answer.open_call
        if call is None:
            return
        start = call.syntax.find_start(call.text, self._names)
        if start is None:
            if len(call.text) > UNDECIDED_LIMIT:
                self._decided = number
            return
        self._decided = number
        grammar = self._grammars.get(call.syntax)
        if grammar is not None:
            begun = grammar.restart(self._tokenizer.tokenize(call.text[start:]))
            self._active = grammar if begun and not grammar.is_over else None

    def allows(self, token: int) -> bool:
        if self._active is None or self._active.allows(token):
            return True
        self._refused = token
        return False

    def allowed(self) -> NDArray[np.intp]:
        grammar = self._active
        if grammar is None:
            return np.empty(0, np.intp)
        prefixes = self._tokenizer.prefixes(self._refused) if self._refused >= 0 else ()
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
            if grammar.failure:  # the rest of the call is unguarded
                print(f"a tool call is not guarded: {grammar.failure}", file=sys.stderr)  # noqa: T201  # stderr is the log
