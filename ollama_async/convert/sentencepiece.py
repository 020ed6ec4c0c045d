"""Reads the vocabulary and a few options of ``tokenizer.model``, SentencePiece's file.

::

    message ModelProto    1: SentencePiece (repeated)   2: TrainerSpec   3: NormalizerSpec
    message SentencePiece 1: text   2: score float   3: type (GGUF has the same numbers)
    message TrainerSpec   3: model_type (1 unigram, 2 BPE)   24: treat_whitespace_as_suffix bool
    message NormalizerSpec 2: precompiled_charsmap bytes   3: add_dummy_prefix bool
                           4: remove_extra_whitespaces bool   5: escape_whitespaces bool

Protocol buffers are (key varint, value) pairs, key = number << 3 | kind; kinds are 0 varint,
1 eight bytes, 2 length and bytes, 5 four bytes. Other fields are ignored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ollama_async.convert.vocabulary import MAX_TOKENS, NORMAL, GgufVocabulary, Token
from ollama_async.core.errors import BadRequest

Value = int | bytes
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_FLOAT = struct.Struct("<f")
_PIECE, _TRAINER, _NORMALIZER = 1, 2, 3
_BPE = 2
_MAX_VARINT_BYTES = 10


def read_sentencepiece(data: bytes) -> GgufVocabulary:
    """:raises BadRequest: it is not a SentencePiece model, or not a BPE model."""
    vocabulary = GgufVocabulary(model="llama", tokens={})
    model_type, prefix = 1, True
    for number, value in _pairs(data):
        if number == _PIECE:
            if len(vocabulary.tokens) == MAX_TOKENS:
                raise _invalid("too many tokens")
            vocabulary.tokens[len(vocabulary.tokens)] = _token(_message(value))
        elif number == _TRAINER:
            model_type = _last_number(_message(value), 3, model_type)
        elif number == _NORMALIZER:
            prefix = bool(_last_number(_message(value), 3, prefix))
    if not vocabulary.tokens:
        raise _invalid("it has no tokens")
    if model_type != _BPE:
        raise BadRequest("tokenizer.model is not a BPE model; other kinds are not supported")
    vocabulary.extra = {"pre": "default", "add_space_prefix": prefix}
    return vocabulary


def check_normalizer(data: bytes) -> None:
    """For a model without tokenizer.json: its normalizer must be llama.cpp's.

    :raises BadRequest: it is not, or the file is not a SentencePiece model.
    """
    values = {
        number: b"".join(_message(value) for found, value in _pairs(data) if found == number)
        for number in (_TRAINER, _NORMALIZER)
    }
    charsmap = [value for number, value in _pairs(values[_NORMALIZER]) if number == 2]
    wrong = {
        "precompiled_charsmap": bool(charsmap and charsmap[-1]),
        "remove_extra_whitespaces": bool(_last_number(values[_NORMALIZER], 4, 1)),
        "escape_whitespaces": not _last_number(values[_NORMALIZER], 5, 1),
        "treat_whitespace_as_suffix": bool(_last_number(values[_TRAINER], 24, 0)),
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise BadRequest(
                f'tokenizer.model: "{name}" changes texts in a way that llama.cpp does not'
            )


def _token(data: bytes) -> Token:
    token = Token("", NORMAL)
    for number, value in _pairs(data):
        if number == 1:
            token.text = _message(value).decode(errors="replace")
        elif number == 2 and isinstance(value, bytes) and len(value) == 4:
            token.score = _FLOAT.unpack(value)[0]
        elif number == 3 and isinstance(value, int) and 1 <= value <= 6:
            token.kind = value
    return token


def _message(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise _invalid("a field is a number instead of a text")
    return value


def _last_number(data: bytes, field: int, default: int) -> int:
    found = [value for number, value in _pairs(data) if number == field]
    return next((value for value in reversed(found) if isinstance(value, int)), default)


def _pairs(data: bytes) -> Iterator[tuple[int, Value]]:
    """Number and value of each field: varints as numbers, other kinds as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        length = {_EIGHT: 8, _FOUR: 4}.get(kind)
        if kind == _BYTES:
            length, at = _varint(data, at)
        if length is None or length > len(data) - at:
            raise _invalid("a field goes past the end of the file")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, seven bits per byte, the lowest first; the offset after it."""
    number = 0
    for count, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return number, at + count + 1
    raise _invalid("a number goes past the end of the file")


def _invalid(reason: str) -> BadRequest:
    return BadRequest(f"invalid SentencePiece file tokenizer.model: {reason}")
