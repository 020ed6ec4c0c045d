"""The step thread of an embedding model: one batch after the other, of the inputs of many requests.

Each iteration reads the mailbox (so a cancel drops a request's inputs before the next batch), takes
inputs for one batch, round-robin between clients, and sends their results. So a client with a
thousand inputs delays another's single one by one batch. A long batch goes on reading the mailbox,
and ends early once all its requests are cancelled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from ollama_async.core.conversation import Usage, Vector
from ollama_async.core.errors import EngineFailed
from ollama_async.core.round_robin import RoundRobin
from ollama_async.workers.child.engines.embedding import EmbeddingEngine
from ollama_async.workers.child.engines.engine import EngineError
from ollama_async.workers.child.mailbox import Mailbox, PreparedEmbedding
from ollama_async.workers.child.step_loop import HEARTBEAT_PERIOD_S, StepLoop
from ollama_async.workers.messages import (
    Cancel,
    Delta,
    Deltas,
    Done,
    Failed,
    Heartbeat,
    Started,
    ToParent,
)

_ATTENTION_PERIOD_S = 0.02
"""How often a long batch looks for messages."""

_DELTAS_BYTES = 64 << 10
"""Of the vectors in one message, if there are several."""


class _Running(msgspec.Struct):
    """A request with inputs that have no result yet. ``begun_ns``: 0 before its first batch."""

    id: int
    inputs: list[list[int]]
    missing: int
    begun_ns: int = 0


class _Input(msgspec.Struct, frozen=True):
    request: _Running
    index: int

    @property
    def tokens(self) -> list[int]:
        return self.request.inputs[self.index]


class EmbeddingLoop(StepLoop[PreparedEmbedding]):
    """See the module. A step is a batch."""

    def __init__(
        self,
        engine: EmbeddingEngine,
        mailbox: Mailbox[PreparedEmbedding],
        send: Callable[[Sequence[ToParent]], None],
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__(mailbox, send, clock_ns)
        self._engine = engine
        self._running: dict[int, _Running] = {}
        self._waiting: RoundRobin[tuple[int, int], _Input] = RoundRobin()
        self._attention_at_s = 0.0

    def iterate(self, idle_s: float = HEARTBEAT_PERIOD_S) -> None:
        self._receive_all()
        if self._waiting:
            self._embed(self._take_batch())
        now_s = self._clock_ns() / 1e9
        self._send(now_s)
        if not self._waiting:
            self._wait(idle_s, now_s)

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(len(self._running), 0.0)

    def _send(self, now_s: float) -> None:
        """What there is, with a heartbeat if it is due."""
        self._add_heartbeat(now_s)
        self._output.flush(now_s)

    def _receive_all(self) -> None:
        for entry in self._mailbox.take():
            self._receive(entry)

    def _receive(self, entry: PreparedEmbedding | Cancel | ToParent) -> None:
        if isinstance(entry, Cancel):
            self._cancel(entry.id)
        elif isinstance(entry, PreparedEmbedding):
            request = _Running(entry.id, entry.inputs, len(entry.inputs))
            self._running[entry.id] = request
            for index in range(len(entry.inputs)):
                self._waiting.put(entry.client, (entry.id, index), _Input(request, index))
        else:
            self._output.add(entry)

    def _cancel(self, request_id: int) -> None:
        """Does nothing if the request has ended: the two messages crossed."""
        request = self._running.get(request_id)
        if request is not None:
            self._forget(request)
            self._output.add(Done(request_id, "cancel", self._usage(request)))

    # One batch

    def _take_batch(self) -> list[_Input]:
        """The next inputs that fit together, at least one."""
        facts = self._engine.facts
        batch: list[_Input] = []
        space = facts.batch_tokens
        while self._waiting and len(batch) < facts.batch_inputs:
            size = len(next(self._waiting.heads()).tokens)
            if batch and size > space:
                break
            batch.append(self._waiting.take())
            space -= size
        return batch

    def _embed(self, batch: list[_Input]) -> None:
        """If the batch fails, its inputs are tried one by one, so that none fails for another."""
        self._begin(batch)
        try:
            results = self._engine.embed(
                [each.tokens for each in batch], lambda: self._attend(batch)
            )
        except EngineError as error:
            for each in batch:
                if self._attend([each]):
                    continue
                if len(batch) == 1:
                    self._fail(each.request, error)
                else:
                    self._embed([each])
            return
        pairs = zip(batch, results, strict=True)
        done = [(each, data) for each, data in pairs if self._is_wanted(each)]
        self._add_vectors(done)
        for each, _ in done:
            each.request.missing -= 1
            if not each.request.missing:
                self._forget(each.request)
                self._output.add(Done(each.request.id, "stop", self._usage(each.request)))

    def _is_wanted(self, one: _Input) -> bool:
        return one.request.id in self._running and not self._is_stopped

    def _attend(self, batch: Sequence[_Input]) -> bool:
        """Receive and send, now and then, before a batch has ended. Whether nobody waits for it any
        more.
        """
        now_s = self._clock_ns() / 1e9
        if now_s >= self._attention_at_s:
            self._attention_at_s = now_s + _ATTENTION_PERIOD_S
            self._receive_all()
            self._send(now_s)
        return not any(map(self._is_wanted, batch))

    def _begin(self, batch: Sequence[_Input]) -> None:
        for each in batch:
            request = each.request
            if not request.begun_ns:
                request.begun_ns = self._clock_ns()
                self._output.add(Started(request.id, sum(map(len, request.inputs))))

    def _add_vectors(self, done: Sequence[tuple[_Input, bytes]]) -> None:
        """In messages that fit into a frame."""
        items: list[tuple[int, Delta]] = [
            (each.request.id, Vector(each.index, data, len(each.tokens))) for each, data in done
        ]
        per_message = max(1, _DELTAS_BYTES // len(done[0][1])) if done else 1
        for begin in range(0, len(items), per_message):
            self._output.add(Deltas(items[begin : begin + per_message]))

    # How requests end

    def _fail(self, request: _Running, error: EngineError) -> None:
        self._forget(request)
        self._output.add(Failed(request.id, EngineFailed.code, str(error)))

    def _forget(self, request: _Running) -> None:
        del self._running[request.id]
        for index in range(len(request.inputs)):
            self._waiting.remove((request.id, index))

    def _usage(self, request: _Running) -> Usage:
        tokens = sum(map(len, request.inputs))
        took_ns = self._clock_ns() - request.begun_ns if request.begun_ns else 0
        return Usage(prompt=tokens, prompt_ns=took_ns)
