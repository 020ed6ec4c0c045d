"""All requests that have a slot, by what they wait for; and what else the loop's parts share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ollama_async.workers.child.engines.engine import Engine
from ollama_async.workers.child.kv_pool import KVPool
from ollama_async.workers.child.media import MediaEncoder
from ollama_async.workers.child.message_batch import MessageBatch
from ollama_async.workers.child.sequence import RunningSequence


class RunningRequests:
    """Step thread only.

    - ``prefilling``: their prompts are not in their slots yet; in order of arrival.
    - ``decoding``: they get a token in each step.
    - ``preempted``: they lost their cells and wait for others; oldest first.
    - ``full``: those of ``decoding`` whose context must be shifted first. One that has ended may
      still be among them.
    - ``logprobs``: how many ask for them.
    - ``may_admit``: slots or cells may have become free, or a prefix that somebody waits for may be
      computed, since waiting requests were tried last.

    Lists are replaced and never changed, so a step can use those that it began with.
    """

    def __init__(self, encoder: MediaEncoder | None = None) -> None:
        self.prefilling: list[RunningSequence] = []
        self.decoding: list[RunningSequence] = []
        self.preempted: list[RunningSequence] = []
        self.full: list[RunningSequence] = []
        self.logprobs = 0
        self.may_admit = False
        self._encoder = encoder

    def __len__(self) -> int:
        return len(self.prefilling) + len(self.decoding) + len(self.preempted)

    def find(self, request_id: int) -> RunningSequence | None:
        for sequence in (*self.prefilling, *self.decoding, *self.preempted):
            if sequence.id == request_id:
                return sequence
        return None

    def is_full(self, sequence: RunningSequence) -> bool:
        return any(each is sequence for each in self.full)

    def add(self, sequence: RunningSequence) -> None:
        """It has got its slot, and its prompt is to be read."""
        self.logprobs += sequence.request.logprobs >= 0
        self.prefilling = [*self.prefilling, sequence]
        self._request_embeddings(sequence)

    def start_decoding(self, sequence: RunningSequence) -> None:
        """Its whole prompt is in its slot."""
        self.prefilling = _without(self.prefilling, sequence)
        self.decoding = [*self.decoding, sequence]

    def preempt(self, sequence: RunningSequence) -> None:
        """Its cells are taken."""
        self._remove(sequence)
        self.preempted = sorted([*self.preempted, sequence], key=_id_of)

    def resume(self, sequence: RunningSequence) -> None:
        """It has cells again, and what it lost is to be computed."""
        self.preempted = _without(self.preempted, sequence)
        self.prefilling = sorted([*self.prefilling, sequence], key=_id_of)
        self._request_embeddings(sequence)

    def end(self, sequence: RunningSequence) -> None:
        """It leaves its slot."""
        self._remove(sequence)
        self.preempted = _without(self.preempted, sequence)
        self.logprobs -= sequence.request.logprobs >= 0

    def _remove(self, sequence: RunningSequence) -> None:
        self.prefilling = _without(self.prefilling, sequence)
        self.decoding = _without(self.decoding, sequence)
        self.may_admit = True
        if self._encoder is not None:
            self._encoder.call_off(sequence.request.spans)

    def _request_embeddings(self, sequence: RunningSequence) -> None:
        if self._encoder is not None:
            client = sequence.request.client
            self._encoder.request_after(sequence.prefilled, sequence.spans, client)


class LoopState(NamedTuple):
    """What the parts of the engine loop share. Messages to the parent go to ``output``."""

    engine: Engine
    pool: KVPool
    running: RunningRequests
    output: MessageBatch
    clock_ns: Callable[[], int]


def _id_of(sequence: RunningSequence) -> int:
    return sequence.id


def _without(sequences: list[RunningSequence], left: RunningSequence) -> list[RunningSequence]:
    return [each for each in sequences if each is not left]
