"""The step thread: continuous batching of all running requests.

Each iteration reads the mailbox (so a cancel frees its slot before the next step), lets preempted
and waiting requests begin, makes one engine step, and sends what came of it. Who begins is said in
:mod:`.admission`, what happens when cells run out in :mod:`.preemption`, what a step does in
:mod:`.step`, what its tokens become in :mod:`.answers`, and how requests end in
:mod:`.request_ends`.

``num_predict`` 0 evaluates nothing: the request ends at once with ``length``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ollama_async.core.conversation import Usage
from ollama_async.workers.child.admission import Admission
from ollama_async.workers.child.answers import Answers
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.drafting import PromptLookup
from ollama_async.workers.child.engines.engine import Engine
from ollama_async.workers.child.host_prompt_cache import HostPromptCache
from ollama_async.workers.child.kv_pool import KVPool
from ollama_async.workers.child.mailbox import Mailbox, PreparedRequest
from ollama_async.workers.child.media import MediaEncoder
from ollama_async.workers.child.preemption import Preemption
from ollama_async.workers.child.prefill import Prefill
from ollama_async.workers.child.request_ends import RequestEnds
from ollama_async.workers.child.running_requests import LoopState, RunningRequests
from ollama_async.workers.child.step import Step
from ollama_async.workers.child.step_loop import HEARTBEAT_PERIOD_S, StepLoop
from ollama_async.workers.messages import Cancel, Done, Heartbeat, Started, ToParent

_SAVE_LIMIT_S = 1.0
"""How long the end of the process may take to save conversations; the parent waits longer."""


class EngineLoop(StepLoop[PreparedRequest]):
    """See the module."""

    def __init__(
        self,
        engine: Engine,
        mailbox: Mailbox[PreparedRequest],
        send: Callable[[Sequence[ToParent]], None],
        planner: BatchPlanner,
        *,
        encoder: MediaEncoder | None = None,
        repetition_limit: int = 0,
        lookup: PromptLookup | None = None,
        prompt_cache: HostPromptCache | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__(mailbox, send, clock_ns)
        self.pool = pool = KVPool(engine, prompt_cache)
        self.running = running = RunningRequests(encoder)
        self._prompt_cache = prompt_cache
        state = LoopState(engine, pool, running, self._output, clock_ns)
        self._ends = ends = RequestEnds(state)
        self._admission = admission = Admission(state, repetition_limit)
        self._preemption = preemption = Preemption(state, ends)
        answers = Answers(state, ends)
        prefill = Prefill(state, planner, admission, preemption, answers, ends, encoder)
        self._step = Step(state, planner, preemption, prefill, answers, ends, lookup)

    def iterate(self, idle_s: float = HEARTBEAT_PERIOD_S) -> None:
        for entry in self._mailbox.take():
            self._receive(entry)
        running = self.running
        if running.may_admit:
            running.may_admit = False
            if self._preemption.resume():
                self._admission.admit()
        is_active = bool(running.prefilling or running.decoding) and self._step.run()
        now_s = self._clock_ns() / 1e9
        if self._add_heartbeat(now_s):
            self._output.flush(now_s)
        if running.may_admit or (is_active and (running.prefilling or running.decoding)):
            self._output.flush_if_due(now_s)
        else:
            self._output.flush(now_s)
            self._wait(idle_s, now_s)

    def run(self) -> None:
        super().run()
        self.pool.save_parked(_SAVE_LIMIT_S)

    def _heartbeat(self) -> Heartbeat:
        beat = Heartbeat(len(self.running), self.pool.used_share)
        cache = self._prompt_cache
        if cache is not None:
            cache.apply_limit()
            beat.stored_bytes, beat.stored_states = cache.used_bytes, cache.count
        return beat

    def _receive(self, entry: PreparedRequest | Cancel | ToParent) -> None:
        if isinstance(entry, Cancel):
            self._cancel(entry.id)
        elif not isinstance(entry, PreparedRequest):
            self._output.add(entry)
        elif entry.max_tokens:
            self._admission.put(entry)
        else:
            self._output.add(Started(entry.id, len(entry.tokens)))
            context = entry.without_media(entry.tokens) if entry.returns_context else []
            self._output.add(Done(entry.id, "length", Usage(prompt=len(entry.tokens)), context))

    def _cancel(self, request_id: int) -> None:
        """Does nothing if the request has ended: the two messages crossed."""
        waiting = self._admission.remove(request_id)
        sequence = self.running.find(request_id)
        if waiting is not None:
            self._output.add(Done(request_id, "cancel", Usage(prompt=len(waiting.tokens))))
        elif sequence is not None:
            sequence.last_token_ns = self._clock_ns()
            self._ends.cancel(sequence)
