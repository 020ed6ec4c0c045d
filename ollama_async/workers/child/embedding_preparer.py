"""Turns the inputs of an embedding into tokens, or pairs of a query and each input.

Special tokens (BOS or CLS in front, EOS or SEP at the end, as the vocabulary has them) are added to
texts, and names of control tokens in a text become these, as in Ollama. Token ids are taken as they
are. A text that is too long loses tokens at its end, but never the special ones.

Only as much of a long text is tokenized as can matter, in steps: a model may need few tokens for
many characters (spaces, or a word that it does not know).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from ollama_async.core.conversation import Detokenize, Embedding, Inference, Tokenize, Usage
from ollama_async.core.errors import BadRequest, ContextExceeded, NotSupported, from_code
from ollama_async.workers.child import tokenizing
from ollama_async.workers.child.engines.embedding import EmbeddingEngine
from ollama_async.workers.child.mailbox import PreparedEmbedding
from ollama_async.workers.child.preprocessor import CANNOT_RANK
from ollama_async.workers.child.prompt_encoder import LONGEST_TOKEN
from ollama_async.workers.child.resource_limits import MakeRun, PreparationBudget
from ollama_async.workers.child.tokenizing import check_tokens
from ollama_async.workers.messages import Done, Started, Submit, ToParent

TOO_LONG = "the input length exceeds the context length"
NO_SPACE = "input after truncation exceeds maximum context length"
NO_POOLING = "Pooling type 'none' is not OAI compatible. Please use a different pooling type"
"""Ollama's sentences, the last of them its worker's."""

CHARACTERS_LIMIT = 4 << 20
"""Of a text; what follows is cut off. Tokenizing so many takes a second."""

_PLACEHOLDER = re.compile(r"\{(query|document)\}")
_PROBE = "a"
_TRIES = 6


class EmbeddingPreparer:
    """For one model. Any number of threads prepare with a quick budget, one with the full one."""

    def __init__(self, engine: EmbeddingEngine, make_run: MakeRun) -> None:
        self._engine = engine
        self._facts = engine.facts
        self._make_run = make_run
        self._front, self._end = _special_tokens(engine)

    def prepare(self, request: Submit, *, is_quick: bool) -> Sequence[PreparedEmbedding | ToParent]:
        """A request for the step thread, or the answer.

        :raises OverBudget: it ``is_quick``, but takes longer.
        :raises ServerError: the request cannot be served.
        """
        budget = PreparationBudget(self._make_run, is_quick=is_quick)
        match request.task:
            case Tokenize() | Detokenize() as task:
                return tokenizing.answer(self._engine, request.id, task, budget)
            case Inference():
                raise NotSupported("this model computes embeddings and does not generate text")
            case Embedding() as task:
                inputs = self._encode(task, budget)
                if not inputs:
                    return [Started(request.id), Done(request.id, "stop", Usage())]
                return [PreparedEmbedding(request.id, inputs, request.client)]

    def _encode(self, task: Embedding, budget: PreparationBudget) -> list[list[int]]:
        self._check_kind(task)
        most = self._facts.num_ctx
        limit = min(task.num_ctx or most, most)
        encoder = _Encoder(self._engine, self._front, self._end, limit, task.truncate, budget)
        encode: Callable[[str | list[int]], list[int]] = encoder.encode
        if task.query is not None:
            encode = partial(encoder.encode_pair, task.query)
        encoded: list[list[int]] = []
        for index, given in enumerate(task.inputs, task.first):
            try:
                encoded.append(_checked(encode(given)))
            except BadRequest as error:
                if task.first < 0:
                    raise
                raise from_code(error.code, f"{error.message} (input {index})") from None
        return encoded

    def _check_kind(self, task: Embedding) -> None:
        match self._facts.result:
            case "none":
                raise BadRequest(NO_POOLING)
            case "score" if task.query is None:
                raise BadRequest("this model ranks documents for a query and does not embed")
            case "vector" if task.query is not None:
                raise NotSupported(CANNOT_RANK)


class _Encoder:
    """For one request. ``limit``: tokens of an input at most, with ``front`` and ``end``."""

    def __init__(
        self,
        engine: EmbeddingEngine,
        front: list[int],
        end: list[int],
        limit: int,
        truncate: bool,
        budget: PreparationBudget,
    ) -> None:
        self._engine = engine
        self._front = front
        self._end = end
        self._limit = limit
        self._truncate = truncate
        self._budget = budget

    def encode(self, given: str | list[int]) -> list[int]:
        """:raises BadRequest: it is too long, or this model does not have a token of it."""
        if isinstance(given, str):
            return self._wrap(given)
        tokens = check_tokens(given, self._engine.facts.vocab_size, "input")
        if len(tokens) > self._limit:
            self._refuse_unless_truncated()
        return tokens[: self._limit]

    def _wrap(self, text: str) -> list[int]:
        space = self._limit - len(self._front) - len(self._end)
        tokens = self._tokenize(text, space, parse_special=True)
        if len(tokens) > space:
            self._refuse_unless_truncated()
            if space <= 0:
                raise BadRequest(NO_SPACE)
        return [*self._front, *tokens[:space], *self._end]

    def encode_pair(self, query: str, document: str | list[int]) -> list[int]:
        """The document is cut if the pair is too long.

        :raises BadRequest: the query alone is too long, the document is and must not be cut, or it
            is no text.
        """
        if not isinstance(document, str):
            raise BadRequest("a document must be a text")
        pair = self._engine.facts.pair_format
        if pair.template:
            return self._fill_template(pair.template, query, document)
        asked = self._tokenize(query, self._limit, parse_special=False)
        fixed = [*pair.front, *asked, *pair.between]
        space = self._limit - len(fixed) - len(pair.end)
        if space < 0:
            raise ContextExceeded(TOO_LONG)
        tokens = self._tokenize(document, space, parse_special=False)
        if len(tokens) > space:
            self._refuse_unless_truncated()
        return [*fixed, *tokens[:space], *pair.end]

    def _fill_template(self, template: str, query: str, document: str) -> list[int]:
        """Tokens of ``template``, without others. How much of a document fits is known only when it
        is tokenized within the template, so this may take some tries.
        """
        for attempt in range(_TRIES):
            text = _fill(template, query, document)
            tokens = self._tokenize(text, self._limit, parse_special=True)
            excess = len(tokens) - self._limit
            if excess <= 0:
                return tokens
            self._refuse_unless_truncated()
            document = self._shorten(document, excess + attempt)
        raise ContextExceeded(TOO_LONG)

    def _shorten(self, document: str, excess: int) -> str:
        """Without the last ``excess`` tokens of its beginning, which alone can matter; one fewer if
        the tokenizer puts a blank in front of texts.
        """
        tokens = self._tokenize(document, self._limit, parse_special=False)
        kept = map(self._engine.piece_with_control, tokens[: max(0, len(tokens) - excess)])
        return document[: len(b"".join(kept).decode(errors="ignore"))]

    def _tokenize(self, text: str, limit: int, *, parse_special: bool) -> list[int]:
        """All tokens of ``text``, or of a beginning that has more than ``limit``, or is long.

        :raises ContextExceeded: it is so long, and must not be cut.
        """
        if len(text) > CHARACTERS_LIMIT:
            self._refuse_unless_truncated()
        tokens: list[int] = []
        for size in (max(1, limit) * LONGEST_TOKEN, CHARACTERS_LIMIT):
            part = text[:size]
            self._budget.charge_tokenizing(len(part))
            tokens = self._engine.tokenize(part, add_special=False, parse_special=parse_special)
            if len(tokens) > limit or len(part) == len(text):
                break
        return tokens

    def _refuse_unless_truncated(self) -> None:
        if not self._truncate:
            raise ContextExceeded(TOO_LONG)


def _checked(tokens: list[int]) -> list[int]:
    """:raises BadRequest: there are none, so that there would be no result."""
    if not tokens:
        raise BadRequest("the input is empty: it has no tokens")
    return tokens


def _fill(template: str, query: str, document: str) -> str:
    """In one pass: a query may contain the name of the other placeholder."""
    words = {"query": query, "document": document}
    return _PLACEHOLDER.sub(lambda found: words[found[1]], template)


def _special_tokens(engine: EmbeddingEngine) -> tuple[list[int], list[int]]:
    """What the model's tokenizer puts in front of a text, and behind it."""
    plain = engine.tokenize(_PROBE, add_special=False, parse_special=False)
    whole = engine.tokenize(_PROBE, add_special=True, parse_special=False)
    for begin in range(len(whole) - len(plain) + 1):
        if whole[begin : begin + len(plain)] == plain:
            return whole[:begin], whole[begin + len(plain) :]
    return [], []
