"""Prefill: the chunks of prompts that go into a step, and spans of images and recordings.

With an engine that is not invariant, a request with a seed (see :mod:`.admission`) gets its prompt
in chunks of a fixed size as long as it is alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from ollama_async.workers.child.admission import Admission
from ollama_async.workers.child.answers import Answers
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.engines.engine import EngineError, Row
from ollama_async.workers.child.media import MediaEncoder, MediaSpan
from ollama_async.workers.child.preemption import Preemption
from ollama_async.workers.child.request_ends import RequestEnds
from ollama_async.workers.child.running_requests import LoopState
from ollama_async.workers.child.sequence import RunningSequence

Chunks = Sequence[tuple[RunningSequence, int]]
"""Prompts, and how many of their tokens."""

NO_CHUNKS: tuple[Chunks, bool] = (), False
"""A plan without prompts."""


class Prefill:
    """Step thread only."""

    def __init__(
        self,
        state: LoopState,
        planner: BatchPlanner,
        admission: Admission,
        preemption: Preemption,
        answers: Answers,
        ends: RequestEnds,
        encoder: MediaEncoder | None,
    ) -> None:
        self._engine, self._pool, self._running = state.engine, state.pool, state.running
        self._clock_ns = state.clock_ns
        self._planner = planner
        self._admission = admission
        self._preemption = preemption
        self._answers = answers
        self._ends = ends
        self._encoder = encoder

    def plan(self, streams: int) -> tuple[Chunks, bool]:
        """The chunks for a step in which so many streams decode; and whether prompts wait for
        embeddings, and nothing was done. A span whose turn it is is read at once, for which a
        stream may be preempted.
        """
        running = self._running
        ordered = self._planner.order(running.prefilling)
        begun = [each for each in ordered if self._can_go_on(each)]
        late = [each for each in begun if not each.is_encoded]
        if late:
            self._demand_embeddings(late)  # some may be cached
        ready = [each for each in begun if each.is_encoded]
        is_alone = not streams and len(running.prefilling) == 1 and not self._admission.has_waiting
        fixes_seeded = is_alone and not self._engine.facts.is_invariant
        if ready and ready[0].next_span is not None:
            self._read_span(ready[0], *ready[0].next_span, streams, fixes_seeded=fixes_seeded)
            return [], False
        readable = [each for each in ready if each.next_span is None]
        chunks = self._planner.plan_prefill(
            streams, readable, running.decoding, fixes_seeded=fixes_seeded
        )
        return chunks, len(ready) < len(begun)

    def advance(self, chunks: Chunks, begun_ns: int, ended_ns: int) -> list[RunningSequence]:
        """A step has evaluated these. Returns the prompts that are complete, of which it has
        sampled the next token.
        """
        complete = []
        self._running.may_admit = True  # what waits for these prefixes
        for sequence, size in chunks:
            sequence.begun_ns = sequence.begun_ns or begun_ns
            prompt = sequence.prompt
            added = prompt[sequence.prefilled : sequence.prefilled + size]
            self._pool.add_prompt(sequence.slot, added)
            sequence.prefilled += size
            if sequence.missing:
                continue
            sequence.first_token_ns = sequence.first_token_ns or ended_ns
            self._running.start_decoding(sequence)
            # as if the last token of the prompt had been decoded in this step
            sequence.last[0] = sequence.slot.tokens.pop()
            sequence.row.position = len(prompt) - 1
            complete.append(sequence)
        return complete

    def _demand_embeddings(self, sequences: list[RunningSequence]) -> None:
        """Of the spans that come next in prompts that cannot go on without them."""
        if self._encoder is not None:
            self._encoder.set_needed(
                (following[0].media, sequence.request.client)
                for sequence in sequences
                if (following := sequence.next_span) is not None
            )

    def _can_go_on(self, sequence: RunningSequence) -> bool:
        """False if the span that comes next could not be encoded; then the request has failed."""
        following = sequence.next_span
        if following is not None and (error := following[0].media.error):
            self._ends.fail([sequence], EngineError(error))
            return False
        return True

    def _read_span(
        self,
        sequence: RunningSequence,
        span: MediaSpan,
        offset: int,
        streams: int,
        *,
        fixes_seeded: bool,
    ) -> None:
        """Evaluate a span of an image or a recording in a pass of its own, or as much of it as
        would be of a text.
        """
        embeddings, size = span.embeddings, span.length
        if embeddings.is_causal:
            size = self._planner.plan_part(
                sequence, streams, span.length - offset, fixes_seeded=fixes_seeded
            )
            embeddings = embeddings.part(offset, size)
        if not self._preemption.make_room(streams + size):
            return
        begin = sequence.prefilled
        tokens = sequence.prompt[begin : begin + size]
        row = Row(sequence.slot.index, tokens, begin, size == sequence.missing, embeddings)
        begun_ns = self._clock_ns()
        try:
            sampled = self._engine.step([row])
        except EngineError as error:
            self._ends.fail([sequence], error)
            return
        ended_ns = self._clock_ns()
        self._pool.add_cells([row])
        self._planner.end_turn(sequence)
        self._planner.observe(0, size, (ended_ns - begun_ns) / 1e9)
        complete = self.advance([(sequence, size)], begun_ns, ended_ns)
        if self._encoder is not None:
            self._encoder.free_before(sequence.prefilled, sequence.spans)
        self._answers.accept(complete, sampled, ended_ns)
