"""Writes logprobs as JSON, in the shape that Ollama and OpenAI's chat have in common.

Each token of an answer may have twenty-one of them, and the same tokens come again and again. What
a token contributes is cached, which divides the time by five.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from ollama_async.api.encode import to_json
from ollama_async.core.conversation import TokenLogprob

_CACHED_TOKENS = 1 << 13
_CACHED_BYTES = 64  # of a token; a worker that was taken over may send long ones


def logprob_json(logprob: TokenLogprob, *, lists_none: bool) -> msgspec.Raw:
    """``{"token", "logprob", "bytes", "top_logprobs"}``. ``lists_none``: write an empty list of the
    most likely tokens, too.
    """
    data = _entry(logprob.token, logprob.logprob)
    if logprob.top or lists_none:
        top = b"},".join([_entry(token, value) for token, value in logprob.top])
        data += b',"top_logprobs":[%b%b]' % (top, b"}" if logprob.top else b"")
    return msgspec.Raw(data + b"}")


def _entry(token: bytes, logprob: float) -> bytes:
    """Without the brace at the end."""
    parts = _parts if len(token) <= _CACHED_BYTES else _write_parts
    before, after = parts(token)
    return before + to_json(logprob) + after


def _write_parts(token: bytes) -> tuple[bytes, bytes]:
    """What stands before the logprob, and after it."""
    text = to_json(token.decode(errors="replace"))
    return b'{"token":%b,"logprob":' % text, b',"bytes":' + to_json(list(token))


_parts = lru_cache(_CACHED_TOKENS)(_write_parts)
