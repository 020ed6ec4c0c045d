"""Admission: gives waiting requests slots and cells.

:mod:`.admission_queue` says whose turn it is, :mod:`.kv_pool` whether there are cells and what need
not be computed again.

A request with a seed (>= 0) should give the same text each time. An engine that is invariant
(:attr:`EngineFacts.is_invariant`) does that by itself. With others, sums depend on how a prompt is
split, so such a request reuses no prefix.
"""

from __future__ import annotations

from ollama_async.core.errors import EngineFailed
from ollama_async.workers.child.admission_queue import AdmissionQueue, Outcome, WaitingRequest
from ollama_async.workers.child.engines.engine import EngineError
from ollama_async.workers.child.kv_pool import Slot
from ollama_async.workers.child.mailbox import PreparedRequest
from ollama_async.workers.child.prefix_query import PrefixQuery
from ollama_async.workers.child.running_requests import LoopState
from ollama_async.workers.child.sequence import RunningSequence
from ollama_async.workers.messages import Failed, Started


class Admission:
    """Step thread only. ``repetition_limit``: see :class:`RunningSequence`; 0 = none."""

    def __init__(self, state: LoopState, repetition_limit: int) -> None:
        self._engine, self._pool = state.engine, state.pool
        self._running, self._output = state.running, state.output
        self._repetition_limit = repetition_limit
        self._queue = AdmissionQueue()

    @property
    def has_waiting(self) -> bool:
        return bool(self._queue)

    def put(self, request: PreparedRequest) -> None:
        self._queue.put(request, self._query(request))
        self._running.may_admit = True

    def remove(self, request_id: int) -> PreparedRequest | None:
        """The request, which waits no more; None: it does not wait here."""
        request = self._queue.remove(request_id)
        self._running.may_admit |= request is not None
        return request

    def admit(self) -> None:
        """Begin the waiting requests whose turn it is, as far as there are slots and cells."""
        self._queue.admit(self._begin)

    def _query(self, request: PreparedRequest) -> PrefixQuery:
        return PrefixQuery(
            *(request.tokens, request.owner, request.public_tokens),
            reuses=self._engine.facts.is_invariant or request.sampling.seed < 0,
            spans=[(at, span.length) for at, span in request.spans.items()],
        )

    def _begin(self, waiting: WaitingRequest) -> Outcome:
        """Begin the prefill, if it is time."""
        if self._should_wait(waiting):
            return Outcome.WAITS_FOR_PREFIX
        request, query = waiting
        try:
            slot = self._pool.admit(query, request.num_ctx, request.max_tokens)
            if slot is None:
                return Outcome.LACKS_CELLS
            self._begin_sampling(slot, request)
        except EngineError as error:
            self._output.add(Failed(request.id, EngineFailed.code, str(error)))
            return Outcome.BEGUN
        sequence = RunningSequence(request, query, slot, self._engine, self._repetition_limit)
        self._running.add(sequence)
        self._output.add(Started(request.id, len(request.tokens), sequence.cached))
        return Outcome.BEGUN

    def _should_wait(self, waiting: WaitingRequest) -> bool:
        """For a prompt with the same prefix; but not for images of another client, whose turn to be
        encoded may come later than its own.
        """
        client = waiting.request.client
        others = [
            each.query
            for each in self._running.prefilling
            if each.is_encoded or each.request.client == client
        ]
        return bool(others) and self._pool.should_wait(waiting.query, others)

    def _begin_sampling(self, slot: Slot, request: PreparedRequest) -> None:
        """:raises EngineError: it failed; the slot is free again."""
        try:
            self._engine.begin(
                *(slot.index, request.sampling),
                request.without_media(request.tokens),
                request.constraint,
                needs_logits=request.logprobs >= 0,
            )
        except EngineError:
            self._pool.clear(slot)
            self._pool.release(slot)
            raise
