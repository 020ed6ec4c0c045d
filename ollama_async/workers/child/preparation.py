"""Prepares requests for the step thread: prompt tokens, constraint, parser and limits."""

from __future__ import annotations

from ollama_async.core.conversation import Inference, Sampling, Usage
from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.chat_formats import ChatFormatCache
from ollama_async.workers.child.engines.engine import Constraint, Engine
from ollama_async.workers.child.grammar.constraints import ConstraintFactory
from ollama_async.workers.child.mailbox import PreparedRequest
from ollama_async.workers.child.prompt_encoder import EncodedPrompt, PromptEncoder, shorten
from ollama_async.workers.child.resource_limits import MakeRun, PreparationBudget
from ollama_async.workers.messages import (
    Deltas,
    Detokenize,
    Done,
    Started,
    Submit,
    Text,
    Tokenize,
    Tokens,
    ToParent,
)

ANSWER_CONTEXTS = 10
"""An answer without a limit ends after so many contexts, as in Ollama."""

MIN_NUM_CTX = 4

MIN_WINDOW = 2048
"""Tokens that a slot holds before a context shift, if it is large enough, even for a request with a
smaller context. A shift goes through the caches of all slots, so a request that shifted at every
token would delay everybody's."""

STOPS_LIMIT = 256
STOP_CHARACTERS_LIMIT = 1 << 16

_TOKENS_LIMIT = 1 << 21  # about 10 MB in the pipe, which takes 16 MiB
_TEXT_LIMIT = 3 << 20  # characters, at most 12 MiB

Request = Submit | Tokenize | Detokenize


class RequestPreparer:
    """For one model. Any number of threads prepare with a quick budget, one with the full budget.

    ``guards_calls``: tool calls must obey their schemas. ``shares_prefixes``: cached tokens of one
    client serve all.
    """

    def __init__(
        self,
        engine: Engine,
        chat_formats: ChatFormatCache,
        make_run: MakeRun,
        *,
        guards_calls: bool = True,
        shares_prefixes: bool = True,
    ) -> None:
        self._engine = engine
        self._facts = engine.facts
        self._encoder = PromptEncoder(engine, chat_formats)
        self._constraints = ConstraintFactory(engine)
        self._make_run = make_run
        self._guards_calls = guards_calls
        self._shares_prefixes = shares_prefixes

    def prepare(self, request: Request, *, is_quick: bool) -> list[PreparedRequest | ToParent]:
        """A request for the step thread, or the answer.

        :raises OverBudget: it ``is_quick``, but takes longer.
        :raises ServerError: the request cannot be served.
        """
        budget = PreparationBudget(self._make_run, is_quick=is_quick)
        if isinstance(request, Tokenize):
            return [self._tokenize(request, budget)]
        if isinstance(request, Detokenize):
            return [self._detokenize(request, budget)]
        budget.check_prompt(request.inference.prompt)
        if request.inference.renders_only:
            return self._show(request.id, request.inference, budget)
        return [self._prepare(request, budget)]

    def _prepare(self, request: Submit, budget: PreparationBudget) -> PreparedRequest:
        inference = request.inference
        sampling = inference.sampling
        _check_stops(sampling)
        num_ctx, keep = self._find_context(inference)
        encoded = self._encoder.encode(inference, num_ctx, budget)
        tokens = shorten(encoded.tokens, inference, num_ctx, keep)
        if not tokens:
            raise BadRequest("the prompt is empty")
        constraint = self._constrain(inference, encoded, budget)
        window = self._find_window(num_ctx, can_shift=inference.shift)
        most, predict = ANSWER_CONTEXTS * num_ctx, sampling.num_predict
        public_tokens = 0
        if not self._shares_prefixes:
            public_tokens = self._encoder.count_public(inference.prompt, tokens, num_ctx, budget)
        return PreparedRequest(
            id=request.id,
            tokens=tokens,
            sampling=sampling,
            num_ctx=window,
            keep=min(keep, window // 2),
            max_tokens=predict if 0 <= predict <= most else most,
            shift=inference.shift,
            wants_context=inference.wants_context,
            parser=encoded.parser,
            special=encoded.special,
            constraint=constraint,
            client=request.client,
            owner="" if self._shares_prefixes else request.client,
            public_tokens=public_tokens,
        )

    def _constrain(
        self, inference: Inference, encoded: EncodedPrompt, budget: PreparationBudget
    ) -> Constraint | None:
        """The constraint on the answer, or on its tool calls.

        :raises BadRequest: the form cannot be enforced.
        """
        delimiters, special, parser = encoded.delimiters, encoded.special, encoded.parser
        constraint = self._constraints.constrain(
            inference, encoded.text, delimiters, special, budget.allow_build
        )
        if constraint is not None or parser is None or not self._guards_calls:
            return constraint
        tools = inference.prompt.tools if inference.prompt.tool_choice != "none" else []
        guard = self._constraints.guard(tools, delimiters, special, budget.allow_build)
        if guard is not None:
            parser.set_guard(guard)
        return guard

    def _show(
        self, request_id: int, inference: Inference, budget: PreparationBudget
    ) -> list[PreparedRequest | ToParent]:
        """An answer that is the prompt itself."""
        num_ctx, keep = self._find_context(inference)
        encoded = self._encoder.encode(inference, num_ctx, budget)
        tokens = shorten(encoded.tokens, inference, num_ctx, keep)
        text = self._encoder.show(encoded, tokens, inference.prompt)
        _check_text(text)
        deltas: list[ToParent] = [Deltas([(request_id, text)])] if text else []
        return [Started(request_id), *deltas, Done(request_id, "stop", Usage(prompt=len(tokens)))]

    def _find_context(self, inference: Inference) -> tuple[int, int]:
        """The context length, and how many of the first tokens are never dropped: ``num_keep``
        (negative: all) and a BOS.
        """
        most = self._facts.num_ctx
        num_ctx = min(max(inference.num_ctx or most, MIN_NUM_CTX), most)
        num_keep = inference.sampling.num_keep
        keep = num_keep + self._facts.adds_bos if num_keep >= 0 else num_ctx
        return num_ctx, min(keep, num_ctx - 2)

    def _find_window(self, num_ctx: int, *, can_shift: bool) -> int:
        """Tokens that the slot may hold; without a shift, the answer ends at ``num_ctx``."""
        if not can_shift or not self._facts.can_shift:
            return num_ctx
        return max(num_ctx, min(MIN_WINDOW, self._facts.num_ctx))

    def _tokenize(self, request: Tokenize, budget: PreparationBudget) -> Tokens:
        budget.charge_tokenizing(len(request.text))
        tokens = self._engine.tokenize(
            request.text, add_special=request.add_special, parse_special=request.parse_special
        )
        if len(tokens) > _TOKENS_LIMIT:
            raise BadRequest(f"the text has more than {_TOKENS_LIMIT} tokens")
        return Tokens(request.id, tokens)

    def _detokenize(self, request: Detokenize, budget: PreparationBudget) -> Text:
        budget.charge_tokenizing(len(request.tokens))
        pieces = map(self._engine.piece, self._encoder.check_tokens(request.tokens))
        text = b"".join(pieces).decode(errors="replace")
        _check_text(text)
        return Text(request.id, text)


def _check_text(text: str) -> None:
    if len(text) > _TEXT_LIMIT:
        raise BadRequest(f"the text has more than {_TEXT_LIMIT} characters")


def _check_stops(sampling: Sampling) -> None:
    """Each character of an answer is compared with each stop string."""
    stops = sampling.stop
    if len(stops) > STOPS_LIMIT or sum(map(len, stops)) > STOP_CHARACTERS_LIMIT:
        raise BadRequest(
            f"stop: more than {STOPS_LIMIT} strings or {STOP_CHARACTERS_LIMIT} characters"
        )
