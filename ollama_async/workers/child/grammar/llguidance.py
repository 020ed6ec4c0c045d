"""The library that knows which tokens may come next, ``llguidance``: only this file uses it, by way
of :mod:`.grammar_library`.

Text is never forced on the model and so never tokenized here: it may spell a key with whatever
tokens it likes, and what a tokenizer would put in front of a text, as those of SentencePiece do
with a blank, is of no importance.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child import grammar_library as library

_LIMITS = {
    "max_items_in_row": 20_000,  # some four for each property that may come next
    "initial_lexer_fuel": 1_000_000,  # 20 ms
    "step_lexer_fuel": 200_000,  # 14 ms
    "step_max_items": 50_000,  # 3 ms
    "max_lexer_states": 50_000,  # 100 MB
    "max_grammar_size": 500_000,
    "verbose_errors": False,
}
_ERROR_CHARACTERS = 500
_SPECIAL = b"\xff"  # marks a token that is no text, in the library's vocabulary


class Vocabulary:
    """The library's copy of a model's ``size`` tokens; ``piece`` and ``is_end`` as in the engine.
    Grammars are compiled by one thread only; any thread may ask about tokens. While it is made the
    other threads run.
    """

    def __init__(
        self, size: int, piece: Callable[[int], bytes], is_end: Callable[[int], bool]
    ) -> None:
        self._size = size
        self._piece = piece
        self._tokenizer = _copy(size, piece, is_end)

    def __del__(self, free: Callable[[int], None] = library.free_tokenizer) -> None:
        if hasattr(self, "_tokenizer"):
            free(self._tokenizer)

    def compile(self, text: str) -> Grammar:
        """``text`` is a grammar in the library's variant of Lark.

        :raises BadRequest: what is wrong with it.
        """
        init = library.ConstraintInit()
        library.set_defaults(init, self._tokenizer)
        init.log_stderr_level = 0
        for name, limit in _LIMITS.items():
            setattr(init, name, limit)
        grammar = Grammar(library.new_matcher(init, b"lark", text.encode()), self._size)
        if error := grammar.error():
            raise BadRequest(f"format: {_say(error)}")
        if not len(grammar.allowed()) or grammar.is_complete():
            raise BadRequest("format: no answer can have this form")
        return grammar

    def tokenize(self, text: str) -> list[int]:
        """Tokens that spell ``text``, the longest first; not those that the model would choose."""
        return self._tokenize(text.encode(errors="replace"))

    def prefixes(self, token: int) -> Iterator[int]:
        """The tokens that are a beginning of what ``token`` says, the longest first."""
        data = self._piece(token)
        for length in range(len(data) - 1, 0, -1):
            tokens = self._tokenize(data[:length])
            if len(tokens) == 1:
                yield tokens[0]

    def _tokenize(self, data: bytes) -> list[int]:
        tokens = (ctypes.c_uint32 * len(data))()
        count = library.tokenize_bytes(self._tokenizer, data, len(data), tokens, len(data))
        return tokens[:count]


class Grammar:
    """See :class:`~ollama_async.workers.child.engines.engine.Constraint`. One thread at a time.

    ``matcher`` is the library's pointer; from now on it is this object's.
    """

    __slots__ = ("_matcher", "_size", "_token", "failure", "is_over", "mask_s")

    def __init__(self, matcher: int, vocab_size: int) -> None:
        self._matcher = matcher
        self._size = vocab_size
        self._token = ctypes.c_uint32()
        self.is_over = False
        self.failure = ""
        self.mask_s = 0.0

    def __del__(self, free: Callable[[int], None] = library.free_matcher) -> None:
        free(self._matcher)

    def copy(self) -> Grammar:
        """Another one that begins where this one is."""
        return Grammar(library.clone_matcher(self._matcher), self._size)

    def restart(self, tokens: Sequence[int]) -> bool:
        """Begin anew, with ``tokens`` accepted already. False: they are not allowed."""
        library.reset_matcher(self._matcher)
        self.is_over, self.failure = False, ""
        for token in tokens:
            if self.is_over or not self.allows(token):
                return False
            self.accept(token)
        return not self.failure

    def allows(self, token: int) -> bool:
        self.mask_s /= 2
        self._token.value = token
        return bool(library.validate_tokens(self._matcher, self._token, 1) == 1)

    def allowed(self) -> NDArray[np.intp]:
        mask = np.empty(-(-self._size // 32), np.uint32)
        begun_s = time.thread_time()
        failed = library.compute_mask_into(self._matcher, mask.ctypes.data, mask.nbytes)
        self.mask_s = time.thread_time() - begun_s
        if failed:
            return np.empty(0, np.intp)
        bits = np.unpackbits(mask.view(np.uint8), count=self._size, bitorder="little")
        return np.flatnonzero(bits)

    def accept(self, token: int) -> None:
        if library.consume_token(self._matcher, token) == 0 and not self.is_complete():
            return
        self.is_over = True
        if error := self.error():
            self.failure = f"the format cannot be kept any further: {_say(error)}"

    def is_complete(self) -> bool:
        """Whether nothing can follow."""
        return bool(library.is_stopped(self._matcher))

    def error(self) -> str:
        """Why it is of no use any more; "" if it is."""
        text: bytes | None = library.get_error(self._matcher)
        return (text or b"").decode(errors="replace")


def _copy(size: int, piece: Callable[[int], bytes], is_end: Callable[[int], bool]) -> int:
    """The library's pointer to a copy of the vocabulary."""
    pieces = [piece(token) or b"%b<%d>" % (_SPECIAL, token) for token in range(size)]
    ends = [token for token in range(size) if is_end(token)]
    for token in ends:
        pieces[token] = b"%b<%d>" % (_SPECIAL, token)
    init = library.TokenizerInit()
    init.struct_size = ctypes.sizeof(init)
    init.vocab_size = size
    init.token_lens = (ctypes.c_uint32 * size)(*map(len, pieces))
    init.token_bytes = b"".join(pieces)
    init.use_approximate_greedy_tokenize_fn = True  # and never asked, see the module
    init.tok_eos = ends[0] if ends else library.NO_TOKEN
    init.tok_eos_extra = (ctypes.c_uint32 * len(ends[1:]))(*ends[1:])
    init.tok_eos_extra_count = len(ends[1:])
    reason = ctypes.create_string_buffer(_ERROR_CHARACTERS)
    tokenizer: int | None = library.new_tokenizer(init, reason, len(reason))
    if tokenizer is None:
        raise BadRequest(f"format: {reason.value.decode(errors='replace')}")
    return tokenizer


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
