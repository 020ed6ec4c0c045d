"""The preprocessor: receives requests, and prepares them on two threads.

There are two queues, quick and heavy, each round-robin between clients. Requests in the quick queue
are tried with a few tens of milliseconds each. Whatever needs more (a long text, a history that is
rendered many times, a template or grammar that is not cached) is given up with :class:`.OverBudget`
and moves to the heavy queue. So a heavy request delays another client's plain one only by that
first try, and heavy ones of other clients by one of its kind.

Prepared requests are handed over to the step thread. A request cancelled before that ends here.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from ollama_async.core.conversation import (
    Detokenize,
    Embedding,
    Inference,
    Sampling,
    Tokenize,
)
from ollama_async.core.errors import BadRequest, Busy, NotSupported, ServerError
from ollama_async.core.round_robin import RoundRobin
from ollama_async.workers.child import tokenizing
from ollama_async.workers.child.engines.engine import Constraint, Engine
from ollama_async.workers.child.grammar.constraints import ConstraintFactory
from ollama_async.workers.child.mailbox import LIMIT, Mailbox, PreparedRequest
from ollama_async.workers.child.media import MediaReader
from ollama_async.workers.child.prompt_encoder import (
    ChatFormatCache,
    EncodedPrompt,
    PromptEncoder,
)
from ollama_async.workers.child.resource_limits import MakeRun, OverBudget, PreparationBudget
from ollama_async.workers.child.tokenizing import answer_text
from ollama_async.workers.messages import CONTEXT_LIMIT, Cancel, Failed, Submit, ToParent

ANSWER_CONTEXTS = 10
"""An answer without a limit ends after so many contexts, as in Ollama."""

MIN_NUM_CTX = 4

MIN_WINDOW = 2048
"""Tokens that a slot holds before a context shift, if it is large enough, even for a request with a
smaller context. A shift goes through the caches of all slots, so a request that shifted at every
token would delay everybody's."""

CANNOT_EMBED = "This server does not support embeddings. Start it with `--embeddings`"
CANNOT_RANK = "This server does not support reranking. Start it with `--reranking`"
"""What Ollama passes on from its worker."""

COUNTED_CHARACTERS = 4 << 20
"""Of a prompt whose tokens are only counted. It is not cut before it is tokenized, as one that is
answered, and the largest bodies would take a minute, while others wait."""

STOPS_LIMIT = 256
STOP_CHARACTERS_LIMIT = 1 << 16
BIASES_LIMIT = 1024
BIAS_LIMIT = 100.0

_ERROR_CHARACTERS = 2000

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)


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
        reader = None if engine.projector is None else MediaReader(engine.projector, make_run)
        self._encoder = PromptEncoder(engine, chat_formats, reader)
        self._constraints = ConstraintFactory(engine)
        self._make_run = make_run
        self._guards_calls = guards_calls
        self._shares_prefixes = shares_prefixes

    def prepare(self, request: Submit, *, is_quick: bool) -> Sequence[PreparedRequest | ToParent]:
        """A request for the step thread, or the answer.

        :raises OverBudget: it ``is_quick``, but takes longer.
        :raises ServerError: the request cannot be served.
        """
        budget = PreparationBudget(self._make_run, is_quick=is_quick)
        match request.task:
            case Tokenize() | Detokenize() as task:
                return tokenizing.answer(self._engine, request.id, task, budget)
            case Embedding() as task:
                raise NotSupported(CANNOT_EMBED if task.query is None else CANNOT_RANK)
            case Inference(counts_only=True) as task:
                budget = PreparationBudget(
                    self._make_run, is_quick=is_quick, most_characters=COUNTED_CHARACTERS
                )
                budget.check_prompt(task.prompt)
                return self._count_only(request, task, budget)
            case Inference(renders_only=True) as task:
                budget.check_prompt(task.prompt)
                return self._render_only(request, task, budget)
            case Inference() as task:
                budget.check_prompt(task.prompt)
                return [self._prepare(request, task, budget)]

    def _prepare(
        self, request: Submit, inference: Inference, budget: PreparationBudget
    ) -> PreparedRequest:
        sampling = inference.sampling
        self._check_sampling(sampling)
        num_ctx, keep = self._find_context(inference)
        owner = self._owner_of(request)
        encoded = self._encoder.encode(inference, num_ctx, keep, budget, owner)
        tokens = encoded.tokens
        if not tokens:
            raise BadRequest("the prompt is empty")
        constraint = self._constrain(inference, encoded, budget)
        shift = inference.shift and not encoded.spans  # it would cut images
        window = num_ctx  # without a shift, the answer ends there
        if shift and self._facts.can_shift:
            window = max(num_ctx, min(MIN_WINDOW, self._facts.num_ctx))
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
            shift=shift,
            returns_context=inference.returns_context,
            parser=encoded.parser,
            special=encoded.special,
            constraint=constraint,
            client=request.client,
            owner=owner,
            public_tokens=public_tokens,
            logprobs=inference.logprobs,
            spans=encoded.spans,
        )

    def _check_sampling(self, sampling: Sampling) -> None:
        """:raises BadRequest: too many stop strings or biases, or a bias that is out of range."""
        stops, bias = sampling.stop, sampling.logit_bias
        # each character of the answer is compared with each of them
        if len(stops) > STOPS_LIMIT or sum(map(len, stops)) > STOP_CHARACTERS_LIMIT:
            limits = f"{STOPS_LIMIT} strings or {STOP_CHARACTERS_LIMIT} characters"
            raise BadRequest(f"stop: more than {limits}")
        if len(bias) > BIASES_LIMIT:
            raise BadRequest(f"logit_bias: more than {BIASES_LIMIT} tokens")
        for token, value in bias.items():
            if not 0 <= token < self._facts.vocab_size:
                raise BadRequest(f"logit_bias: this model has no token {token}")
            if not -BIAS_LIMIT <= value <= BIAS_LIMIT:
                raise BadRequest(f"logit_bias: {value} is not between -100 and 100")

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

    def _owner_of(self, request: Submit) -> str:
        """Whose cached tokens and images the request may reuse."""
        return "" if self._shares_prefixes else request.client

    def _render_only(
        self, request: Submit, inference: Inference, budget: PreparationBudget
    ) -> list[ToParent]:
        num_ctx, keep = self._find_context(inference)
        owner = self._owner_of(request)
        encoded = self._encoder.encode(inference, num_ctx, keep, budget, owner)
        text = self._encoder.text_of(encoded, inference.prompt)
        return answer_text(request.id, text, prompt_tokens=len(encoded.tokens))

    def _count_only(
        self, request: Submit, inference: Inference, budget: PreparationBudget
    ) -> list[ToParent]:
        prompt = msgspec.structs.replace(inference.prompt, truncate=False)
        whole = msgspec.structs.replace(inference, prompt=prompt)
        owner = self._owner_of(request)
        encoded = self._encoder.encode(whole, CONTEXT_LIMIT, 0, budget, owner)
        return answer_text(request.id, "", prompt_tokens=len(encoded.tokens))

    def _find_context(self, inference: Inference) -> tuple[int, int]:
        """The context length, and how many of the first tokens are never dropped: ``num_keep``
        (negative: all) and a BOS.
        """
        most = self._facts.num_ctx
        num_ctx = min(max(inference.num_ctx or most, MIN_NUM_CTX), most)
        num_keep = inference.sampling.num_keep
        keep = num_keep + self._facts.adds_bos if num_keep >= 0 else num_ctx
        return num_ctx, min(keep, num_ctx - 2)


class RequestQueue:
    """Requests that wait for one thread, round-robin between clients; at most ``limit``.

    Any thread may call anything; only :meth:`take` waits.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: RoundRobin[int, Submit] = RoundRobin()
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, request: Submit) -> bool:
        """Queue the request behind its client's others. False if the queue is full."""
        with self._changed:
            if len(self._waiting) >= self._limit:
                return False
            self._waiting.put(request.client, request.id, request)
            self._changed.notify()
        return True

    def take(self) -> Submit | None:
        """Wait for the next request; None if the queue is empty and closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return self._waiting.take() if self._waiting else None

    def remove(self, request_id: int) -> None:
        """Does nothing if it is not here."""
        with self._changed:
            self._waiting.remove(request_id)

    def close(self) -> None:
        """Make :meth:`take` return None instead of waiting."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class Preparer(Protocol[P_co]):
    """Prepares requests; see :class:`RequestPreparer`."""

    def prepare(self, request: Submit, *, is_quick: bool) -> Sequence[P_co | ToParent]: ...


class Preprocessor(Generic[P]):
    """See the module. ``put``, ``cancel`` and ``close`` are for the receiving thread."""

    def __init__(self, preparer: Preparer[P], mailbox: Mailbox[P]) -> None:
        self._preparer = preparer
        self._mailbox = mailbox
        self._quick = RequestQueue(LIMIT)
        self._heavy = RequestQueue(LIMIT)

    def put(self, request: Submit) -> None:
        """Queue a request, or refuse it: the parent sends fewer than the queue holds."""
        self._mailbox.expect(request.id)
        self._put(self._quick, request)

    def cancel(self, cancel: Cancel) -> None:
        """End the request, wherever it is."""
        self._mailbox.cancel(cancel)
        self._quick.remove(cancel.id)
        self._heavy.remove(cancel.id)

    def close(self) -> None:
        """Make :meth:`run` return once its queue is empty."""
        self._quick.close()
        self._heavy.close()

    def run(self, *, is_quick: bool) -> None:
        """Prepare the requests of one queue, until :meth:`close`."""
        queue = self._quick if is_quick else self._heavy
        while (request := queue.take()) is not None:
            self.prepare(request, is_quick=is_quick)

    def prepare(self, request: Submit, *, is_quick: bool) -> None:
        """Answer one request or hand it over; a quick try may move it to the heavy queue."""
        if not self._mailbox.is_expected(request.id):
            return  # cancelled while it was queued
        results: Sequence[P | ToParent]
        try:
            results = self._preparer.prepare(request, is_quick=is_quick)
        except OverBudget:
            self._put(self._heavy, request)
            return
        except ServerError as error:
            results = [Failed(request.id, error.code, error.message[:_ERROR_CHARACTERS])]
        except Exception as error:  # noqa: BLE001  # the boundary of a request
            traceback.print_exc()
            text = f"worker: {error!r}"[:_ERROR_CHARACTERS]
            results = [Failed(request.id, ServerError.code, text)]
        self._mailbox.hand_over(request.id, results)

    def _put(self, queue: RequestQueue, request: Submit) -> None:
        if not queue.put(request):
            reason = "too many requests wait to be prepared"
            refusal = Failed(request.id, Busy.code, reason)
            self._mailbox.hand_over(request.id, [refusal], waits=False)
