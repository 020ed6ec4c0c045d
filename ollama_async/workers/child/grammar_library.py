"""The C interface of ``llguidance``, as its header ``llguidance.h`` declares it.

The library's Python classes hold the interpreter's lock while they copy a vocabulary: half a second
to two in which no other thread of the process runs and every stream stands still. The same shared
object has the C interface, and ``ctypes`` can call that without the lock.

Layouts that may grow: ``TokenizerInit`` says its size; ``ConstraintInit`` does not, so it is filled
by the library itself, and has room for what a newer one may write.
"""

from __future__ import annotations

import ctypes

from llguidance import _lib

NO_TOKEN = 0xFFFFFFFF
_TOKENS = ctypes.POINTER(ctypes.c_uint32)


class TokenizerInit(ctypes.Structure):
    """``LlgTokenizerInitV2``."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("vocab_size", ctypes.c_uint32),
        ("tok_eos", ctypes.c_uint32),
        ("token_lens", _TOKENS),
        ("token_bytes", ctypes.c_char_p),
        ("tokenizer_json", ctypes.c_char_p),
        ("tokenize_assumes_string", ctypes.c_bool),
        ("tokenize_fn", ctypes.c_void_p),
        ("use_approximate_greedy_tokenize_fn", ctypes.c_bool),
        ("tokenize_user_data", ctypes.c_void_p),
        ("slices", ctypes.c_void_p),
        ("tok_eos_extra", _TOKENS),
        ("tok_eos_extra_count", ctypes.c_uint32),
    )


class ConstraintInit(ctypes.Structure):
    """``LlgConstraintInit`` with its ``LlgParserLimits``."""

    _fields_ = (
        ("tokenizer", ctypes.c_void_p),
        ("log_buffer_level", ctypes.c_uint32),
        ("log_stderr_level", ctypes.c_uint32),
        ("ff_tokens_ok", ctypes.c_bool),
        ("backtrack_ok", ctypes.c_bool),
        ("max_items_in_row", ctypes.c_size_t),
        ("initial_lexer_fuel", ctypes.c_uint64),
        ("step_lexer_fuel", ctypes.c_uint64),
        ("step_max_items", ctypes.c_size_t),
        ("max_lexer_states", ctypes.c_size_t),
        ("max_grammar_size", ctypes.c_size_t),
        ("precompute_large_lexemes", ctypes.c_bool),
        ("verbose_errors", ctypes.c_bool),
        ("to_come", ctypes.c_byte * 256),
    )


_unlocked = ctypes.CDLL(_lib.__file__)  # for what may take long
_locked = ctypes.PyDLL(
    _lib.__file__
)  # for what takes less than to let go of the lock and get it back

new_tokenizer = _unlocked.llg_new_tokenizer_v2
new_tokenizer.argtypes = (ctypes.POINTER(TokenizerInit), ctypes.c_char_p, ctypes.c_size_t)
new_tokenizer.restype = ctypes.c_void_p

free_tokenizer = _unlocked.llg_free_tokenizer
free_tokenizer.argtypes = (ctypes.c_void_p,)
free_tokenizer.restype = None

tokenize_bytes = _locked.llg_tokenize_bytes
tokenize_bytes.argtypes = (
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_size_t,
    _TOKENS,
    ctypes.c_size_t,
)
tokenize_bytes.restype = ctypes.c_size_t

set_defaults = _locked.llg_constraint_init_set_defaults
set_defaults.argtypes = (ctypes.POINTER(ConstraintInit), ctypes.c_void_p)
set_defaults.restype = None

new_matcher = _unlocked.llg_new_matcher
new_matcher.argtypes = (ctypes.POINTER(ConstraintInit), ctypes.c_char_p, ctypes.c_char_p)
new_matcher.restype = ctypes.c_void_p

clone_matcher = _unlocked.llg_clone_matcher
clone_matcher.argtypes = (ctypes.c_void_p,)
clone_matcher.restype = ctypes.c_void_p

reset_matcher = _locked.llg_matcher_reset
reset_matcher.argtypes = (ctypes.c_void_p,)
reset_matcher.restype = ctypes.c_int32

free_matcher = _unlocked.llg_free_matcher
free_matcher.argtypes = (ctypes.c_void_p,)
free_matcher.restype = None

compute_mask_into = _unlocked.llg_matcher_compute_mask_into
compute_mask_into.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
compute_mask_into.restype = ctypes.c_int32

validate_tokens = _locked.llg_matcher_validate_tokens
validate_tokens.argtypes = (ctypes.c_void_p, _TOKENS, ctypes.c_size_t)
validate_tokens.restype = ctypes.c_int32

consume_token = _locked.llg_matcher_consume_token
consume_token.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
consume_token.restype = ctypes.c_int32

is_stopped = _locked.llg_matcher_is_stopped
is_stopped.argtypes = (ctypes.c_void_p,)
is_stopped.restype = ctypes.c_bool

get_error = _locked.llg_matcher_get_error
get_error.argtypes = (ctypes.c_void_p,)
get_error.restype = ctypes.c_char_p
