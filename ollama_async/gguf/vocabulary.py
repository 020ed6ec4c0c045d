"""Whether a model's file has what an engine needs to read text: a vocabulary, and weights for it.

The engine library loads some files without one, and ends its process when it is given a text.
"""

from __future__ import annotations

from ollama_async.gguf.reader import Array, GgufHeader, Value

_KIND, _TOKENS, _EMBEDDINGS = "tokenizer.ggml.model", "tokenizer.ggml.tokens", "token_embd.weight"
_NO_KINDS = ("", "none", "no_vocab")
_SHOWN = 40
"""Characters of a value from the file."""


def lack_of(header: GgufHeader) -> str:
    """What a model's file lacks, by name; "" if it can be run for all that its header says."""
    if not header.tensors:
        return "no weights: it has no tensors" + _beside_tokens(header)
    kind, tokens = header.metadata.get(_KIND), header.metadata.get(_TOKENS)
    fault = _fault(kind, tokens)
    if fault:
        return f"no vocabulary: {fault}"
    assert isinstance(tokens, Array)
    return _disagreement(header, tokens.length)


def _fault(kind: Value | None, tokens: Value | None) -> str:
    if kind is None:
        return f"{_KIND!r} is missing"
    if not isinstance(kind, str) or kind in _NO_KINDS:
        return f"{_KIND!r} is {str(kind)[:_SHOWN]!r}"
    if tokens is None:
        return f"{_TOKENS!r} is missing"
    if not isinstance(tokens, Array) or tokens.values:
        return f"{_TOKENS!r} is no list of texts"
    return "" if tokens.length else f"{_TOKENS!r} is empty"


def _beside_tokens(header: GgufHeader) -> str:
    return ", only a vocabulary" if _TOKENS in header.metadata else ""


def _disagreement(header: GgufHeader, tokens: int) -> str:
    for tensor in header.tensors:
        if tensor.name == _EMBEDDINGS and tensor.shape[1:] != (tokens,):
            return (
                f"no weights that fit its vocabulary: {_EMBEDDINGS!r} has the shape "
                f"{list(tensor.shape)}, for {tokens} tokens"
            )
    return ""
