"""Preemption: what happens when cells run out in the middle of answers.

The youngest request loses its cells. It keeps all else, its sampler, parser and constraint, and
comes back before any other is admitted: what is not in the prompt cache is computed again, with the
answer so far as part of the prompt. Its client sees a pause. The text may be another from there on
if the engine is not invariant, or if the context had to be shifted in that very step.

A context that is full is shifted before the next step. That may take cells, too.
"""

from __future__ import annotations

from ollama_async.workers.child.engines.engine import EngineError
from ollama_async.workers.child.request_ends import RequestEnds
from ollama_async.workers.child.running_requests import LoopState
from ollama_async.workers.child.sequence import RunningSequence


class Preemption:
    """Step thread only."""

    def __init__(self, state: LoopState, ends: RequestEnds) -> None:
        self._pool, self._running = state.pool, state.running
        self._ends = ends

    def make_room(self, cells: int) -> bool:
        """Whether so many cells are free. False: a request had to be preempted for them, and the
        step must be planned anew.
        """
        if self._pool.make_room(cells):
            return True
        self._preempt_youngest()
        return False

    def resume(self) -> bool:
        """Let preempted requests go on, oldest first. False: cells of one do not fit yet."""
        while self._running.preempted:
            if not self._resume(self._running.preempted[0]):
                return False
        return True

    def shift_contexts(self) -> None:
        """Before the next step, forget a part of the contexts that are full."""
        running = self._running
        while running.full:
            sequence = running.full[0]
            if any(each is sequence for each in running.decoding):  # else it has ended
                while not self._pool.make_room_to_shift(sequence.slot):
                    self._preempt_youngest(spare=sequence)
                self._shift_context(sequence)
            running.full = running.full[1:]

    def _preempt_youngest(self, spare: RunningSequence | None = None) -> None:
        running = (*self._running.prefilling, *self._running.decoding)
        self._preempt(max((each for each in running if each is not spare), key=self._precedence))

    def _precedence(self, sequence: RunningSequence) -> tuple[bool, bool, int]:
        """Of those to preempt: the youngest whose cells can be computed again."""
        is_full = self._running.is_full(sequence)
        return not is_full, not sequence.slot.is_shifted, sequence.id

    def _preempt(self, sequence: RunningSequence) -> None:
        """Take its cells. After a context shift they cannot be computed again, so the request keeps
        their contents itself; one that waits for its shift begins anew with what will be left.
        """
        running = self._running
        sequence.preempt()
        if running.is_full(sequence):
            running.full = [each for each in running.full if each is not sequence]
            sequence.forget_shifted()
        elif sequence.slot.is_shifted:
            sequence.saved = self._pool.save(sequence.slot)
        self._pool.preempt(sequence.slot)
        running.preempt(sequence)

    def _resume(self, sequence: RunningSequence) -> bool:
        slot, query = sequence.slot, sequence.query
        try:
            has_cells = self._pool.readmit(
                slot, query, sequence.num_ctx, sequence.wanted, sequence.saved
            )
        except EngineError as error:
            self._ends.fail([sequence], error)
            return True
        if has_cells:
            sequence.saved = None
            sequence.prefilled = len(slot.tokens)
            self._running.resume(sequence)
        return has_cells

    def _shift_context(self, sequence: RunningSequence) -> None:
        size = sequence.shift_size
        try:
            self._pool.shift(sequence.slot, sequence.request.keep, size)
        except EngineError as error:
            self._ends.fail([sequence], error)
        else:
            self._running.may_admit = True
            sequence.row.position -= size
            sequence.spans = {}  # they are not where they were
