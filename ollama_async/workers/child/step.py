"""One step of the engine: a token for each stream, and chunks of prompts or drafts.

:mod:`.batching` decides which streams and how much of prompts, :mod:`.drafting` how many drafts.
"""

from __future__ import annotations

from collections.abc import Iterator

from ollama_async.workers.child.answers import Answers
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.drafting import PromptLookup
from ollama_async.workers.child.engines.engine import MAX_STREAMS, EngineError, Row
from ollama_async.workers.child.preemption import Preemption
from ollama_async.workers.child.prefill import NO_CHUNKS, Prefill
from ollama_async.workers.child.request_ends import RequestEnds
from ollama_async.workers.child.running_requests import LoopState
from ollama_async.workers.child.sequence import RunningSequence


class Step:
    """Step thread only. ``lookup``: None = there are no drafts."""

    def __init__(
        self,
        state: LoopState,
        planner: BatchPlanner,
        preemption: Preemption,
        prefill: Prefill,
        answers: Answers,
        ends: RequestEnds,
        lookup: PromptLookup | None,
    ) -> None:
        self._engine, self._pool, self._running = state.engine, state.pool, state.running
        self._clock_ns = state.clock_ns
        self._planner = planner
        self._preemption = preemption
        self._prefill = prefill
        self._answers = answers
        self._ends = ends
        self._lookup = lookup

    def run(self) -> bool:
        """False if there is nothing to do until embeddings have been made."""
        running = self._running
        if running.full:
            self._preemption.shift_contexts()
        decoding = self._planner.choose_decoding(running.decoding)
        if drafts := self._draft(decoding):
            self._verify(decoding, drafts)
            return True
        chunks, is_waiting = self._prefill.plan(len(decoding)) if running.prefilling else NO_CHUNKS
        if running.preempted:
            decoding = [each for each in decoding if each not in running.preempted]
        rows = [sequence.row for sequence in decoding]
        for sequence, size in chunks:
            begin = sequence.prefilled
            tokens = sequence.prompt[begin : begin + size]
            rows.append(Row(sequence.slot.index, tokens, begin, size == sequence.missing))
        if not rows:  # every prompt waits for embeddings, has failed, or was a span
            return not is_waiting
        prompt_tokens = sum([size for _, size in chunks])
        if not self._preemption.make_room(len(decoding) + prompt_tokens):
            return True
        begun_ns = self._clock_ns()
        try:
            sampled = self._engine.step(rows)
        except EngineError as error:
            self._ends.fail([*decoding, *(sequence for sequence, _ in chunks)], error)
            return True
        ended_ns = self._clock_ns()
        self._pool.add_cells(rows)
        self._planner.observe(len(decoding), prompt_tokens, (ended_ns - begun_ns) / 1e9)
        if not chunks:
            self._observe_drafts(decoding, 0, 0, ended_ns - begun_ns)
        else:
            decoding = [*decoding, *self._prefill.advance(chunks, begun_ns, ended_ns)]
        self._answers.accept(decoding, sampled, ended_ns)
        return True

    def _draft(self, decoding: list[RunningSequence]) -> list[list[int]]:
        """Drafts for a step of these streams; [] if it has none, some streams must wait for their
        turn, or a running request would have to give up cells.
        """
        has_others = self._running.prefilling or len(decoding) < len(self._running.decoding)
        if self._lookup is None or has_others or not 0 < len(decoding) <= MAX_STREAMS:
            return []
        drafts = self._lookup.draft(decoding)
        cells = len(decoding) + sum(map(len, drafts))
        return drafts if drafts and self._pool.make_room(cells) else []

    def _verify(self, decoding: list[RunningSequence], drafts: list[list[int]]) -> None:
        """A step with drafts. Each token that they turn out to be counts as if it had come one by
        one.
        """
        rows = [
            Row(row.slot, [*row.tokens, *tokens], row.position, samples=True, drafts=len(tokens))
            for row, tokens in zip((each.row for each in decoding), drafts, strict=True)
        ]
        begun_ns = self._clock_ns()
        try:
            sampled = self._engine.verify(rows)
        except EngineError as error:
            self._ends.fail(decoding, error)
            return
        self._pool.add_cells(rows)
        evaluated_ns = self._clock_ns()
        accepted = 0
        for sequence, row, tokens in zip(decoding, rows, sampled, strict=True):
            accepted += self._accept_drafts(sequence, row, tokens, evaluated_ns)
        took_ns = self._clock_ns() - begun_ns
        self._observe_drafts(decoding, sum(map(len, drafts)), accepted, took_ns)

    def _accept_drafts(
        self, sequence: RunningSequence, row: Row, tokens: Iterator[int], now_ns: int
    ) -> int:
        """Give the sequence its next tokens, until it ends. Returns how many were drafts."""
        sequence.drafted += row.drafts
        hits = -1
        for hits, token in enumerate(tokens):
            sequence.accepted += hits > 0
            self._answers.accept([sequence], [token], now_ns)
            if sequence not in self._running.decoding:
                break
        if hits < row.drafts:
            self._pool.trim_drafts(sequence.slot)
        return hits

    def _observe_drafts(
        self, decoding: list[RunningSequence], drafts: int, accepted: int, took_ns: int
    ) -> None:
        if self._lookup is not None:
            self._lookup.observe(len(decoding), drafts, accepted, took_ns / 1e9)
