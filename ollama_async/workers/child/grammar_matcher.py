"""The library that knows which tokens may come next, ``llguidance``: only this file speaks to it.

Text is never forced on the model and so never tokenized here: it may spell a key with whatever
tokens it likes, and what a tokenizer would put in front of a text, as those of SentencePiece do
with a blank, is of no importance.
"""

from __future__ import annotations

import llguidance
import numpy as np
from numpy.typing import NDArray

from ollama_async.errors import BadRequest
from ollama_async.workers.child.engines.port import Engine

_LIMITS = llguidance.LLParserLimits(
    max_items_in_row=20_000,  # some four for each property that may come next
    initial_lexer_fuel=1_000_000,  # 20 ms
    step_lexer_fuel=200_000,  # 14 ms
    step_max_items=50_000,  # 3 ms
    max_lexer_states=50_000,  # 100 MB
    max_grammar_size=500_000,
    verbose_errors=False,
)
_ERROR_CHARACTERS = 500
_SPECIAL = b"\xff"  # marks a token that is no text, in the library's vocabulary


class Vocabulary:
    """The library's copy of a model's tokens. Intake thread only."""

    def __init__(self, engine: Engine) -> None:
        self._size = engine.facts.vocab_size
        self._tokenizer = _copy(engine)

    def compile(self, text: str) -> Grammar:
        """``text`` is a grammar in the library's variant of Lark.

        :raises BadRequest: what is wrong with it.
        """
        matcher = llguidance.LLMatcher(self._tokenizer, text, log_level=0, limits=_LIMITS)
        grammar = Grammar(matcher, self._size)
        if matcher.is_error():
            raise BadRequest(f"format: {_say(matcher.get_error())}")
        if not len(grammar.allowed()) or matcher.is_stopped():
            raise BadRequest("format: no answer can have this form")
        return grammar


class Grammar:
    """See :class:`~ollama_async.workers.child.engines.port.Constraint`. Step thread only."""

    __slots__ = ("_matcher", "_size", "failure", "is_over")

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._size = vocab_size
        self.is_over = False
        self.failure = ""

    def allows(self, token: int) -> bool:
        return self._matcher.validate_tokens([token]) == 1

    def allowed(self) -> NDArray[np.intp]:
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():  # the mask then holds the end, although it is not allowed
            return np.empty(0, np.intp)
        return np.flatnonzero(np.unpackbits(mask, count=self._size, bitorder="little"))

    def accept(self, token: int) -> None:
        matcher = self._matcher
        if matcher.consume_token(token) and not matcher.is_stopped():
            return
        self.is_over = True
        if matcher.is_error():
            self.failure = f"the format cannot be kept any further: {_say(matcher.get_error())}"


def _copy(engine: Engine) -> llguidance.LLTokenizer:
    size = engine.facts.vocab_size
    pieces = [engine.piece(token) or b"%b<%d>" % (_SPECIAL, token) for token in range(size)]
    ends = [token for token in range(size) if engine.is_end(token)]
    for token in ends:
        pieces[token] = b"%b<%d>" % (_SPECIAL, token)
    wrapper = llguidance.TokenizerWrapper(_Tokens(pieces, ends[0]))
    return llguidance.LLTokenizer(wrapper, eos_token=ends)


class _Tokens:
    """What the library wants to know of a tokenizer."""

    bos_token_id = None
    special_token_ids: tuple[int, ...] = ()

    def __init__(self, pieces: list[bytes], end: int) -> None:
        self.tokens = pieces
        self.eos_token_id = end

    def __call__(self, text: bytes | str) -> list[int]:
        """Tokens of forced text; see the module for why none are needed."""
        del text
        return []


def _say(error: str) -> str:
    """The library's reason without where in our grammar it was found."""
    head, *more = error.splitlines() or ["unknown"]
    reason = head.rsplit("failed to compile JSON schema: ", maxsplit=1)[-1]
    if reason.startswith("regex parse error"):
        details = [line for line in more if line.startswith("error: ")]
        reason = f'"pattern": {details[0].removeprefix("error: ")}' if details else '"pattern"'
    elif reason.startswith("oneOf"):
        reason = 'the keyword "oneOf" cannot be enforced unless its schemas exclude one another'
    elif reason.startswith("Resource"):
        reason = 'the keyword "$ref" cannot refer to another document'
    elif reason.startswith("NoExtension"):
        reason = "the model has no token for what must come next"
    elif reason.startswith("Pointer"):
        reason = f'"$ref": {reason}'
    return reason[:_ERROR_CHARACTERS]
