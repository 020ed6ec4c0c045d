"""Binding to ``llguidance``, which computes the tokens that may come next; only this file uses it.

The library's Python classes hold the interpreter lock while they copy a vocabulary: half a second
to two in which no other thread runs and every stream stands still. The same shared object exports
the C interface of ``llguidance.h``, and ``ctypes`` can call that without the lock.

Struct layouts may grow. ``TokenizerInit`` states its size. ``ConstraintInit`` does not, so the
library itself fills it in, and it has spare space for fields of newer versions.

Text is never forced on the model, and so never tokenized for it. The model may spell a key with any
tokens, and a blank that a SentencePiece tokenizer puts in front of a text does not matter. What it
will probably say, because nothing else is allowed, can be guessed: words and marks in tokens of
their own, as long as possible, with a blank after a comma or a colon.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from llguidance import _lib
from numpy.typing import NDArray

from ollama_async.core.errors import BadRequest

_LIMITS = {
    "max_items_in_row": 20_000,  # about four for each property that may come next
    "initial_lexer_fuel": 1_000_000,  # 20 ms
    "step_lexer_fuel": 200_000,  # 14 ms
    "step_max_items": 50_000,  # 3 ms
    "max_lexer_states": 50_000,  # 100 MB
    "max_grammar_size": 500_000,
    "verbose_errors": False,
}
_ERROR_CHARACTERS = 500
_SPECIAL = b"\xff"  # in the library's vocabulary, marks a token that is not text
_NO_TOKEN = 0xFFFFFFFF
_FEW = 64
"""Allowed tokens, at most, that may all begin the same text."""
_FORCED_S = 0.001
_REST = 32  # calls, after one that took longer
_BLANKS = b" \t\r\n"
_POINTER, _SIZE, _TOKENS = ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_uint32)
_TEXT, _STATUS = ctypes.c_char_p, ctypes.c_int32


class TokenizerInit(ctypes.Structure):
    """``LlgTokenizerInitV2``."""

    _fields_ = (
        ("struct_size", _SIZE),
        ("vocab_size", ctypes.c_uint32),
        ("tok_eos", ctypes.c_uint32),
        ("token_lens", _TOKENS),
        ("token_bytes", ctypes.c_char_p),
        ("tokenizer_json", ctypes.c_char_p),
        ("tokenize_assumes_string", ctypes.c_bool),
        ("tokenize_fn", _POINTER),
        ("use_approximate_greedy_tokenize_fn", ctypes.c_bool),
        ("tokenize_user_data", _POINTER),
        ("slices", _POINTER),
        ("tok_eos_extra", _TOKENS),
        ("tok_eos_extra_count", ctypes.c_uint32),
    )


class ConstraintInit(ctypes.Structure):
    """``LlgConstraintInit`` with its ``LlgParserLimits``."""

    _fields_ = (
        ("tokenizer", _POINTER),
        ("log_buffer_level", ctypes.c_uint32),
        ("log_stderr_level", ctypes.c_uint32),
        ("ff_tokens_ok", ctypes.c_bool),
        ("backtrack_ok", ctypes.c_bool),
        ("max_items_in_row", _SIZE),
        ("initial_lexer_fuel", ctypes.c_uint64),
        ("step_lexer_fuel", ctypes.c_uint64),
        ("step_max_items", _SIZE),
        ("max_lexer_states", _SIZE),
        ("max_grammar_size", _SIZE),
        ("precompute_large_lexemes", ctypes.c_bool),
        ("verbose_errors", ctypes.c_bool),
        ("reserved", ctypes.c_byte * 256),
    )


_unlocked = ctypes.CDLL(_lib.__file__)  # for calls that may take long
_locked = ctypes.PyDLL(_lib.__file__)  # for calls that are cheaper than releasing the lock


def _bind(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, f"llg_{name}")
    function.restype, function.argtypes = result, arguments
    return function


_TOKENIZER_INIT, _INIT = ctypes.POINTER(TokenizerInit), ctypes.POINTER(ConstraintInit)

_new_tokenizer = _bind(_unlocked, "new_tokenizer_v2", _POINTER, _TOKENIZER_INIT, _TEXT, _SIZE)
_free_tokenizer = _bind(_unlocked, "free_tokenizer", None, _POINTER)
_tokenize_bytes = _bind(_locked, "tokenize_bytes", _SIZE, _POINTER, _TEXT, _SIZE, _TOKENS, _SIZE)
set_defaults = _bind(_locked, "constraint_init_set_defaults", None, _INIT, _POINTER)
_new_matcher = _bind(_unlocked, "new_matcher", _POINTER, _INIT, _TEXT, _TEXT)
_clone_matcher = _bind(_unlocked, "clone_matcher", _POINTER, _POINTER)
_free_matcher = _bind(_unlocked, "free_matcher", None, _POINTER)
_reset = _bind(_locked, "matcher_reset", _STATUS, _POINTER)
_compute_mask = _bind(_unlocked, "matcher_compute_mask_into", _STATUS, _POINTER, _POINTER, _SIZE)
_validate = _bind(_locked, "matcher_validate_tokens", _STATUS, _POINTER, _TOKENS, _SIZE)
_consume = _bind(_locked, "matcher_consume_token", _STATUS, _POINTER, ctypes.c_uint32)
_is_stopped = _bind(_locked, "matcher_is_stopped", ctypes.c_bool, _POINTER)
_get_error = _bind(_locked, "matcher_get_error", _TEXT, _POINTER)


class GrammarTokenizer:
    """The library's copy of a model's ``size`` tokens; ``piece`` and ``is_end`` are the engine's.

    One thread compiles grammars; any thread may look up tokens. Other threads run while the copy is
    made.
    """

    def __init__(
        self, size: int, piece: Callable[[int], bytes], is_end: Callable[[int], bool]
    ) -> None:
        self._size = size
        self._piece = piece
        pieces = [piece(token) or b"%b<%d>" % (_SPECIAL, token) for token in range(size)]
        ends = [token for token in range(size) if is_end(token)]
        for token in ends:
            pieces[token] = b"%b<%d>" % (_SPECIAL, token)
        init = TokenizerInit()
        init.struct_size = ctypes.sizeof(init)
        init.vocab_size = size
        init.token_lens = (ctypes.c_uint32 * size)(*map(len, pieces))
        init.token_bytes = b"".join(pieces)
        init.use_approximate_greedy_tokenize_fn = True  # required, but never called: see the module
        init.tok_eos = ends[0] if ends else _NO_TOKEN
        init.tok_eos_extra = (ctypes.c_uint32 * len(ends[1:]))(*ends[1:])
        init.tok_eos_extra_count = len(ends[1:])
        reason = ctypes.create_string_buffer(_ERROR_CHARACTERS)
        tokenizer: int | None = _new_tokenizer(init, reason, len(reason))
        if tokenizer is None:
            raise BadRequest(f"format: {reason.value.decode(errors='replace')}")
        self._tokenizer = tokenizer

    def __del__(self, free: Callable[[int], None] = _free_tokenizer) -> None:
        if hasattr(self, "_tokenizer"):
            free(self._tokenizer)

    def compile(self, text: str) -> GrammarMatcher:
        """Compile a grammar in the library's variant of Lark.

        :raises BadRequest: the grammar is invalid or too large, or matches no answer.
        """
        init = ConstraintInit()
        set_defaults(init, self._tokenizer)
        init.log_stderr_level = 0
        for name, limit in _LIMITS.items():
            setattr(init, name, limit)
        created: int = _new_matcher(init, b"lark", text.encode())
        matcher = GrammarMatcher(created, self._size, self._piece)
        if error := matcher.error():
            raise BadRequest(f"format: {_explain(error)}")
        if not len(matcher.allowed()) or matcher.is_complete():
            raise BadRequest("format: no answer can have this form")
        return matcher

    def tokenize(self, data: bytes) -> list[int]:
        """Tokens that spell ``data``, longest match first; the model might choose others."""
        tokens = (ctypes.c_uint32 * len(data))()
        count = _tokenize_bytes(self._tokenizer, data, len(data), tokens, len(data))
        return tokens[:count]

    def prefixes(self, token: int) -> Iterator[int]:
        """The tokens whose bytes are a proper prefix of ``token``'s, longest first."""
        data = self._piece(token)
        for length in range(len(data) - 1, 0, -1):
            tokens = self.tokenize(data[:length])
            if len(tokens) == 1:
                yield tokens[0]


class GrammarMatcher:
    """A :class:`~ollama_async.workers.child.engines.engine.Constraint`. One thread at a time.

    Owns ``matcher``, a pointer of the library. ``piece``: the bytes of a token.
    """

    __slots__ = (
        *("_last", "_matcher", "_piece", "_rest", "_size", "_token"),
        *("failure", "is_over", "mask_s"),
    )

    def __init__(self, matcher: int, vocab_size: int, piece: Callable[[int], bytes]) -> None:
        self._matcher = matcher
        self._size = vocab_size
        self._piece = piece
        self._last = -1
        self._rest = 0
        self._token = ctypes.c_uint32()
        self.is_over = False
        self.failure = ""
        self.mask_s = 0.0

    def __del__(self, free: Callable[[int], None] = _free_matcher) -> None:
        free(self._matcher)

    def copy(self) -> GrammarMatcher:
        return GrammarMatcher(_clone_matcher(self._matcher), self._size, self._piece)

    def restart(self, tokens: Sequence[int]) -> bool:
        """Reset, then accept ``tokens``. False if they are not allowed."""
        _reset(self._matcher)
        self.is_over, self.failure = False, ""
        for token in tokens:
            if self.is_over or not self.allows(token):
                return False
            self.accept(token)
        return not self.failure

    def allows(self, token: int) -> bool:
        self.mask_s /= 2
        self._token.value = token
        return bool(_validate(self._matcher, self._token, 1) == 1)

    def allowed(self) -> NDArray[np.intp]:
        begun_s = time.thread_time()
        mask = self._mask()
        self.mask_s = time.thread_time() - begun_s
        bits = np.unpackbits(mask.view(np.uint8), count=self._size, bitorder="little")
        return np.flatnonzero(bits)

    def _mask(self) -> NDArray[np.uint32]:
        """A bit for each token; none is set if the matcher failed."""
        mask = np.zeros(-(-self._size // 32), np.uint32)
        failed = _compute_mask(self._matcher, mask.ctypes.data, mask.nbytes)
        return np.zeros_like(mask) if failed else mask

    def forced(self, most: int) -> list[int]:
        self._rest = max(0, self._rest - 1)
        ahead, tokens = self, list[int]()
        begun_s = time.thread_time()
        while not self._rest and len(tokens) < most and not ahead.is_over:
            token = ahead._only_choice()
            if token < 0:
                break
            tokens.append(token)
            ahead = self.copy() if ahead is self else ahead
            ahead.accept(token)
            if time.thread_time() - begun_s > _FORCED_S:
                self._rest = _REST
        return tokens

    def _only_choice(self) -> int:
        """The token that comes next if all that are allowed begin the same text, or are blank; -1
        if they do not.
        """
        mask = self._mask()
        (words,) = mask.nonzero()
        if len(words) > _FEW or np.bitwise_count(mask[words]).sum() > _FEW:
            return -1
        bits = np.unpackbits(mask[words].view(np.uint8), bitorder="little").reshape(-1, 32)
        pieces = {
            32 * int(words[word]) + int(bit): self._piece(32 * int(words[word]) + int(bit))
            for word, bit in zip(*bits.nonzero(), strict=True)
        }
        texts = {token: piece.lstrip(_BLANKS) for token, piece in pieces.items()}
        text = max(texts.values(), key=len, default=b"")
        if not all(text.startswith(each) for each in texts.values()) or not all(pieces.values()):
            return -1
        before = self._piece(self._last) if self._last >= 0 else b""
        blanks = b" " if before.endswith((b",", b":")) else b""
        return max(
            (token for token, each in texts.items() if each),
            key=lambda token: (
                _is_uniform(texts[token]),
                len(texts[token]),
                pieces[token] == blanks + texts[token],
            ),
            default=-1,
        )

    def accept(self, token: int) -> None:
        self._last = token
        if _consume(self._matcher, token) == 0 and not self.is_complete():
            return
        self.is_over = True
        if error := self.error():
            self.failure = f"the format cannot be kept any further: {_explain(error)}"

    def is_complete(self) -> bool:
        return bool(_is_stopped(self._matcher))

    def error(self) -> str:
        """Why the matcher failed; "" if it did not."""
        text: bytes | None = _get_error(self._matcher)
        return (text or b"").decode(errors="replace")


def _is_uniform(text: bytes) -> bool:
    """Whether it consists of nothing but a word, or nothing but marks."""
    return text.isalnum() or not any(text[at : at + 1].isalnum() for at in range(len(text)))


def _explain(error: str) -> str:
    """The library's reason in the client's terms, without positions in our grammar."""
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
