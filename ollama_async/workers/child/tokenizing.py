"""Answers requests for tokens of a text, or for the text of tokens, of any model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ollama_async.core.conversation import Detokenize, Tokenize, Usage
from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.resource_limits import PreparationBudget
from ollama_async.workers.messages import CONTEXT_LIMIT, Deltas, Done, Started, ToParent

INPUT_LIMIT_BYTES = 4 << 20
"""Of a text in UTF-8; a token may be a byte, and tokenizing so many takes two seconds."""

_TEXT_LIMIT = 3 << 20  # characters, at most 12 MiB
_TOKEN_CHARACTERS = 1024  # with so many per token of the context, the parent takes ten contexts


class TokenizerFacts(Protocol):
    @property
    def vocab_size(self) -> int: ...

    @property
    def num_ctx(self) -> int: ...


class Tokenizer(Protocol):
    """The part of an engine that any thread may call."""

    @property
    def facts(self) -> TokenizerFacts: ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]: ...

    def piece_with_control(self, token: int) -> bytes: ...


def answer(
    tokenizer: Tokenizer,
    request_id: int,
    task: Tokenize | Detokenize,
    budget: PreparationBudget,
) -> list[ToParent]:
    """The answer: its context is the tokens, or its content the text.

    :raises BadRequest: the model does not have all tokens, or there are too many, or the text is
        too long.
    """
    if isinstance(task, Tokenize):
        return _tokenize(tokenizer, request_id, task, budget)
    return _detokenize(tokenizer, request_id, task, budget)


def _tokenize(
    tokenizer: Tokenizer, request_id: int, task: Tokenize, budget: PreparationBudget
) -> list[ToParent]:
    if len(task.text.encode(errors="replace")) > INPUT_LIMIT_BYTES:
        raise BadRequest(f"the text has more than {INPUT_LIMIT_BYTES} bytes")
    budget.charge_tokenizing(len(task.text))
    tokens = tokenizer.tokenize(
        task.text, add_special=task.add_special, parse_special=task.parse_special
    )
    if len(tokens) > CONTEXT_LIMIT:
        raise BadRequest(f"the text has more than {CONTEXT_LIMIT} tokens")
    return [Started(request_id, len(tokens)), Done(request_id, "stop", Usage(), tokens)]


def _detokenize(
    tokenizer: Tokenizer, request_id: int, task: Detokenize, budget: PreparationBudget
) -> list[ToParent]:
    budget.charge_tokenizing(len(task.tokens))
    tokens = check_tokens(task.tokens, tokenizer.facts.vocab_size, "tokens")
    pieces = {token: tokenizer.piece_with_control(token) for token in set(tokens)}
    text = b"".join(map(pieces.__getitem__, tokens)).decode(errors="replace")
    most = _TOKEN_CHARACTERS * tokenizer.facts.num_ctx
    if len(text) > most:
        raise BadRequest(f"the text has more than {most} characters")
    return answer_text(request_id, text)


def answer_text(request_id: int, text: str, prompt_tokens: int = 0) -> list[ToParent]:
    """The answer with this content.

    :raises BadRequest: it is too long.
    """
    if len(text) > _TEXT_LIMIT:
        raise BadRequest(f"the text has more than {_TEXT_LIMIT} characters")
    deltas: list[ToParent] = [Deltas([(request_id, text)])] if text else []
    usage = Usage(prompt=prompt_tokens)
    return [Started(request_id, prompt_tokens), *deltas, Done(request_id, "stop", usage)]


def check_tokens(tokens: Sequence[int], vocab_size: int, name: str) -> list[int]:
    """A copy of ``tokens``, which the request calls ``name``.

    :raises BadRequest: this model does not have all of them.
    """
    if not all(0 <= token < vocab_size for token in tokens):
        raise BadRequest(f"{name}: this model does not have all of these tokens")
    return list(tokens)
