"""The step thread: continuous batching of all running requests.

Each iteration reads the mailbox (so a cancel frees its slot before the next step), gives free slots
to waiting requests, makes one engine step, and sends what came of it. :mod:`.batching` decides what
goes into a step, :mod:`.kv_pool` what need not be computed again.

Ollama leaves two choices open. ``num_predict`` 0 evaluates nothing: the request ends at once with
``length``. And a request with a seed (>= 0) reuses no prefix and, as long as it is alone, gets its
prompt in chunks of a fixed size: sums depend on how a prompt is split, so only then does the same
request give the same text.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from ollama_async.core.conversation import Logprobs, Thought, TokenLogprob, Usage
from ollama_async.core.errors import EngineFailed
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.drafting import PromptLookup
from ollama_async.workers.child.engines.engine import MAX_STREAMS, Engine, EngineError, Row
from ollama_async.workers.child.kv_pool import KVPool
from ollama_async.workers.child.mailbox import Mailbox, PreparedRequest
from ollama_async.workers.child.media import MediaEncoder, MediaSpan
from ollama_async.workers.child.prefix_query import PrefixQuery
from ollama_async.workers.child.sequence import RunningSequence
from ollama_async.workers.child.step_loop import HEARTBEAT_PERIOD_S, StepLoop
from ollama_async.workers.messages import (
    CONTEXT_LIMIT,
    Cancel,
    Delta,
    Done,
    Failed,
    Heartbeat,
    Started,
    ToParent,
)

DoneReason = Literal["stop", "length", "cancel"]


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
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__(mailbox, send, clock_ns)
        self.slots = KVPool(engine)
        self._engine = engine
        self._planner = planner
        self._encoder = encoder
        self._repetition_limit = repetition_limit
        self._waiting: deque[PreparedRequest] = deque()
        # a step replaces both lists and does not change them: it uses those that it began with
        self._prefilling: list[RunningSequence] = []  # in order of arrival
        self._decoding: list[RunningSequence] = []
        self._logprob_requests = 0  # that have a slot
        self._lookup = PromptLookup()

    def iterate(self, idle_s: float = HEARTBEAT_PERIOD_S) -> None:
        for entry in self._mailbox.take():
            self._receive(entry)
        if self._waiting:
            self._assign_slots()
        is_active = bool(self._prefilling or self._decoding) and self._step()
        now_s = self._clock_ns() / 1e9
        if self._add_heartbeat(now_s):
            self._output.flush(now_s)
        if is_active and (self._prefilling or self._decoding):
            self._output.flush_if_due(now_s)
        else:
            self._output.flush(now_s)
            self._wait(idle_s, now_s)

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(len(self._prefilling) + len(self._decoding), self.slots.used_share)

    # Requests and cancellations

    def _receive(self, entry: PreparedRequest | Cancel | ToParent) -> None:
        if isinstance(entry, Cancel):
            self._cancel(entry.id)
        elif not isinstance(entry, PreparedRequest):
            self._output.add(entry)
        elif entry.max_tokens:
            self._waiting.append(entry)
        else:
            self._output.add(Started(entry.id, len(entry.tokens)))
            context = entry.without_media(entry.tokens) if entry.returns_context else []
            self._output.add(Done(entry.id, "length", Usage(prompt=len(entry.tokens)), context))

    def _cancel(self, request_id: int) -> None:
        """Does nothing if the request has ended: the two messages crossed."""
        for request in self._waiting:
            if request.id == request_id:
                self._waiting.remove(request)
                usage = Usage(prompt=len(request.tokens))
                self._output.add(Done(request_id, "cancel", usage))
                return
        for sequence in [*self._prefilling, *self._decoding]:
            if sequence.id == request_id:
                sequence.last_token_ns = self._clock_ns()
                self._end(sequence, "cancel")
                return

    def _assign_slots(self) -> None:
        while self._waiting:
            request = self._waiting[0]
            query = PrefixQuery(
                *(request.tokens, request.owner, request.public_tokens, request.sampling.seed < 0),
                [(at, span.length) for at, span in request.spans.items()],
            )
            slot = self.slots.take(query)
            if slot is None:
                return
            self._waiting.popleft()
            self._logprob_requests += request.logprobs >= 0
            self._prefilling.append(
                RunningSequence(request, query, slot, self._engine, self._repetition_limit)
            )

    # One step

    def _step(self) -> bool:
        """False if there is nothing to do until embeddings have been made."""
        decoding = self._planner.choose_decoding(self._decoding)
        if drafts := self._draft(decoding):
            self._verify(decoding, drafts)
            return True
        chunks: list[tuple[RunningSequence, int]] = []
        is_waiting = False
        if self._prefilling:
            ordered = self._planner.order(self._prefilling)
            begun = [each for each in ordered if self._begin(each) and self._can_go_on(each)]
            late = [each for each in begun if not each.is_encoded]
            if late:
                self._demand_embeddings(late)  # some may be cached
            ready = [each for each in begun if each.is_encoded]
            is_waiting = len(ready) < len(begun)
            is_alone = not decoding and len(self._prefilling) == 1
            if ready and ready[0].next_span is not None:
                self._read_span(ready[0], *ready[0].next_span, len(decoding), is_alone=is_alone)
                is_waiting = False
            else:
                ready = [each for each in ready if each.next_span is None]
                chunks = self._planner.plan_prefill(
                    len(decoding), ready, self._decoding, is_alone=is_alone
                )
        rows = [sequence.row for sequence in decoding]
        prompt_tokens = 0
        for sequence, size in chunks:
            begin = sequence.prefilled
            tokens = sequence.request.tokens[begin : begin + size]
            rows.append(Row(sequence.slot.index, tokens, begin, size == sequence.missing))
            prompt_tokens += size
        if not rows:  # every prompt waits for embeddings, failed to begin, or was a span
            return not is_waiting
        begun_ns = self._clock_ns()
        try:
            sampled = self._engine.step(rows)
        except EngineError as error:
            self._fail([*decoding, *(sequence for sequence, _ in chunks)], error)
            return True
        ended_ns = self._clock_ns()
        self._planner.observe(len(decoding), prompt_tokens, (ended_ns - begun_ns) / 1e9)
        if not chunks:
            self._lookup.observe(len(decoding), 0, 0, (ended_ns - begun_ns) / 1e9)
        if chunks:
            decoding = [*decoding, *self._advance_prefill(chunks, begun_ns, ended_ns)]
        self._accept_tokens(decoding, sampled, ended_ns)
        return True

    def _draft(self, decoding: list[RunningSequence]) -> list[list[int]]:
        """Drafts for a step of these streams; [] if it has none."""
        is_small = 0 < len(decoding) <= MAX_STREAMS and not self._prefilling
        return self._lookup.draft(decoding) if is_small and self._engine.facts.can_draft else []

    def _verify(self, decoding: list[RunningSequence], drafts: list[list[int]]) -> None:
        """A step with drafts: what they turn out to be counts as if it had come one by one."""
        rows = [
            Row(row.slot, [*row.tokens, *tokens], row.position, samples=True, drafts=len(tokens))
            for row, tokens in zip((each.row for each in decoding), drafts, strict=True)
        ]
        begun_ns = self._clock_ns()
        try:
            sampled = self._engine.verify(rows)
        except EngineError as error:
            self._fail(decoding, error)
            return
        evaluated_ns = self._clock_ns()
        accepted = 0
        for sequence, row, tokens in zip(decoding, rows, sampled, strict=True):
            count = 0
            for token in tokens:
                self._accept_tokens([sequence], [token], evaluated_ns)
                count += 1
                if sequence not in self._decoding:
                    break
            accepted += count - 1
            if count <= row.drafts:
                self._engine.trim(row.slot, len(sequence.slot.tokens))
        took_s = (self._clock_ns() - begun_ns) / 1e9
        self._lookup.observe(len(decoding), sum(map(len, drafts)), accepted, took_s)

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
            self._fail([sequence], EngineError(error))
            return False
        return True

    def _read_span(
        self,
        sequence: RunningSequence,
        span: MediaSpan,
        offset: int,
        streams: int,
        *,
        is_alone: bool,
    ) -> None:
        """Evaluate a span of an image or a recording in a pass of its own, or as much of it as
        would be of a text.
        """
        embeddings, size = span.embeddings, span.length
        if embeddings.is_causal:
            size = self._planner.plan_part(
                sequence, streams, span.length - offset, is_alone=is_alone
            )
            embeddings = embeddings.part(offset, size)
        begin = sequence.prefilled
        tokens = sequence.request.tokens[begin : begin + size]
        row = Row(sequence.slot.index, tokens, begin, size == sequence.missing, embeddings)
        begun_ns = self._clock_ns()
        try:
            sampled = self._engine.step([row])
        except EngineError as error:
            self._fail([sequence], error)
            return
        ended_ns = self._clock_ns()
        self._planner.end_turn(sequence)
        self._planner.observe(0, size, (ended_ns - begun_ns) / 1e9)
        complete = self._advance_prefill([(sequence, size)], begun_ns, ended_ns)
        if self._encoder is not None:
            self._encoder.free_before(sequence.prefilled, sequence.request.spans)
        self._accept_tokens(complete, sampled, ended_ns)

    def _begin(self, sequence: RunningSequence) -> bool:
        """Begin the prefill, unless it should wait for a prompt with the same prefix. It does not
        wait for images of another client, whose turn to be encoded may come later than its own.
        """
        if sequence.prefilled >= 0:
            return True
        client = sequence.request.client
        others = [
            each.query
            for each in self._prefilling
            if each.prefilled >= 0 and (each.is_encoded or each.request.client == client)
        ]
        if others and self.slots.should_wait(sequence.query, others):
            return False
        request = sequence.request
        try:
            sequence.cached = self.slots.prepare(sequence.slot, sequence.query)
            self._engine.begin(
                *(sequence.slot.index, request.sampling),
                request.without_media(request.tokens),
                request.constraint,
            )
        except EngineError as error:
            self._fail([sequence], error)
            return False
        sequence.prefilled = sequence.cached
        if self._encoder is not None:
            self._encoder.request_after(sequence.prefilled, request.spans, request.client)
        self._output.add(Started(request.id, len(request.tokens), sequence.cached))
        return True

    def _advance_prefill(
        self, chunks: list[tuple[RunningSequence, int]], begun_ns: int, ended_ns: int
    ) -> list[RunningSequence]:
        """Update prompts after a step. Returns the complete ones, which have their first token."""
        complete = []
        for sequence, size in chunks:
            sequence.begun_ns = sequence.begun_ns or begun_ns
            prompt = sequence.request.tokens
            sequence.slot.tokens += prompt[sequence.prefilled : sequence.prefilled + size]
            sequence.prefilled += size
            if sequence.missing:
                continue
            sequence.first_token_ns = ended_ns
            self._prefilling = [each for each in self._prefilling if each is not sequence]
            self._decoding = [*self._decoding, sequence]
            # as if the last token of the prompt had been decoded in this step
            sequence.last[0] = sequence.slot.tokens.pop()
            sequence.row.position = len(prompt) - 1
            complete.append(sequence)
        return complete

    def _add_logprobs(self, sequences: list[RunningSequence], sampled: list[int]) -> None:
        """Of the tokens whose requests ask for them, except an end, which has no text. They come
        before the text of the same step.
        """
        engine, deltas = self._engine, self._output.deltas
        for sequence, token in zip(sequences, sampled, strict=True):
            top, constraint = sequence.request.logprobs, sequence.constraint
            if top < 0 or engine.is_end(token) or (constraint is not None and constraint.failure):
                continue
            logprob, ranked = engine.logprobs(sequence.slot.index, token, top)
            best = [(sequence.name_of(each), value) for each, value in ranked]
            named = TokenLogprob(sequence.name_of(token), logprob, best)
            deltas.append((sequence.id, Logprobs([named])))

    def _accept_tokens(
        self, sequences: list[RunningSequence], sampled: list[int], now_ns: int
    ) -> None:
        """The hot path: what a token costs besides the engine."""
        if self._logprob_requests:
            self._add_logprobs(sequences, sampled)
        deltas, is_end = self._output.deltas, self._engine.is_end
        for sequence, token in zip(sequences, sampled, strict=True):
            row, last = sequence.row, sequence.last
            sequence.slot.tokens.append(last[0])
            row.position += 1
            sequence.generated += 1
            if is_end(token):
                sequence.last_token_ns = now_ns
                self._finish(sequence, "stop")
                continue
            text = sequence.decode(sequence.piece_of(token))
            if sequence.finder is not None:
                text = sequence.scan(text, sequence.finder)
            if text:
                if sequence.parser is None:
                    deltas.append((sequence.id, text))
                else:
                    self._add_deltas(sequence, sequence.parser.feed(text))
                    if sequence.parser.is_over:
                        sequence.is_stopped = True
            last[0] = token
            if sequence.repetition is not None:
                sequence.repetition.add(token)
            if (
                sequence.generated >= sequence.limit
                or row.position >= sequence.num_ctx
                or sequence.is_stopped
                or (sequence.constraint is not None and sequence.constraint.is_over)
            ):
                sequence.last_token_ns = now_ns
                self._handle_limit(sequence)

    def _add_deltas(self, sequence: RunningSequence, deltas: Sequence[Delta]) -> None:
        if deltas and isinstance(deltas[-1], Thought):
            sequence.thinking = sequence.generated
        self._output.deltas += [(sequence.id, delta) for delta in deltas]

    # How requests end

    def _handle_limit(self, sequence: RunningSequence) -> None:
        """A stop string, the only call, a complete form, enough tokens, endless repetition, or a
        full context, which may be shifted instead.
        """
        request, constraint = sequence.request, sequence.constraint
        if sequence.is_stopped or (constraint is not None and constraint.is_over):
            self._finish(sequence, "stop", unevaluated=True)
        elif sequence.generated >= sequence.limit and not sequence.extend_limit():
            self._finish(sequence, "length", unevaluated=True)
        elif sequence.row.position < sequence.num_ctx:
            pass
        elif request.shift and self._engine.facts.can_shift:
            discard = max(1, (sequence.row.position - request.keep) // 2)
            try:
                self.slots.shift(sequence.slot, request.keep, discard)
            except EngineError as error:
                self._fail([sequence], error)
            else:
                sequence.row.position -= discard
        else:
            self._finish(sequence, "length", unevaluated=True)

    def _finish(
        self, sequence: RunningSequence, reason: DoneReason, *, unevaluated: bool = False
    ) -> None:
        """The answer is complete: send what was held back, then the end.

        ``unevaluated``: its last token is not in the slot.
        """
        constraint, parser = sequence.constraint, sequence.parser
        if constraint is not None and constraint.failure:
            self._fail([sequence], EngineError(constraint.failure))
            return
        text = "" if sequence.is_stopped else sequence.flush()
        if parser is not None:
            self._add_deltas(sequence, [*(parser.feed(text) if text else ()), *parser.finish()])
        elif text:
            self._add_deltas(sequence, [text])
        self._end(sequence, "stop" if sequence.is_stopped else reason, unevaluated=unevaluated)

    def _end(
        self, sequence: RunningSequence, reason: DoneReason, *, unevaluated: bool = False
    ) -> None:
        context: list[int] = []
        if sequence.request.returns_context and reason != "cancel":
            context = sequence.slot.tokens[-CONTEXT_LIMIT:]
            if unevaluated:
                context.append(sequence.last[0])
            context = sequence.request.without_media(context)
            sequence.remove_stop_string(context)
        repeated = sequence.repeated
        if repeated:
            length = f"after {sequence.generated} tokens, by repeating {repeated} of them"
            print(f"request {sequence.id}: the answer was ended {length}", file=sys.stderr)  # noqa: T201  # stderr is the log
        self._release(sequence)
        self._output.add(
            Done(
                *(sequence.id, reason, sequence.usage(), context, bool(repeated)),
                stop_string=sequence.stop_string,
            )
        )

    def _fail(self, failed: list[RunningSequence], error: EngineError) -> None:
        """The contents of these slots are unknown now."""
        for sequence in failed:
            self._release(sequence)
            self.slots.clear(sequence.slot)
            self._output.add(Failed(sequence.id, EngineFailed.code, str(error)))

    def _release(self, sequence: RunningSequence) -> None:
        """Free the slot."""
        self._prefilling = [each for each in self._prefilling if each is not sequence]
        self._decoding = [each for each in self._decoding if each is not sequence]
        self._logprob_requests -= sequence.request.logprobs >= 0
        if sequence.prefilled >= 0:
            self._engine.end(sequence.slot.index)
        sequence.slot.is_busy = False
        if self._encoder is not None:
            self._encoder.call_off(sequence.request.spans)
