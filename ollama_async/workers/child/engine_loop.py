"""The step thread: continuous batching of all running requests.

Each iteration reads the mailbox (so a cancel frees its slot before the next step), admits waiting
requests, makes one engine step, and sends what came of it. :mod:`.batching` decides what goes into
a step, :mod:`.admission` who is admitted, :mod:`.kv_pool` which slot and cells a request gets, and
what need not be computed again.

**When the cells run out** in the middle of answers, the youngest request loses its cells. It keeps
all else, its sampler, parser and constraint, and comes back before any other is admitted: what is
not in the prompt cache is computed again, with the answer so far as part of the prompt. Its client
sees a pause. If the engine is not invariant, the text may be another from there on.

``num_predict`` 0 evaluates nothing: the request ends at once with ``length``.

A request with a seed (>= 0) should give the same text each time. An engine that is invariant
(:attr:`EngineFacts.is_invariant`) does that by itself. With others, sums depend on how a prompt is
split, so such a request reuses no prefix and, as long as it is alone, gets its prompt in chunks of
a fixed size.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Literal

from ollama_async.core.conversation import Logprobs, Thought, TokenLogprob, Usage
from ollama_async.core.errors import EngineFailed
from ollama_async.workers.child.admission import AdmissionQueue, Outcome, WaitingRequest
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.drafting import PromptLookup
from ollama_async.workers.child.engines.engine import MAX_STREAMS, Engine, EngineError, Row
from ollama_async.workers.child.host_prompt_cache import HostPromptCache
from ollama_async.workers.child.kv_pool import KVPool, Slot
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
        self.pool = KVPool(engine, prompt_cache)
        self._prompt_cache = prompt_cache
        self._engine = engine
        self._planner = planner
        self._encoder = encoder
        self._repetition_limit = repetition_limit
        self._waiting = AdmissionQueue()
        self._may_admit = False  # since something changed
        # a step replaces both lists and does not change them: it uses those that it began with
        self._prefilling: list[RunningSequence] = []  # in order of arrival
        self._decoding: list[RunningSequence] = []
        self._preempted: list[RunningSequence] = []  # oldest first
        self._full: list[RunningSequence] = []  # of which the next step shifts the context
        self._logprob_requests = 0  # that have a slot
        self._lookup = lookup

    def iterate(self, idle_s: float = HEARTBEAT_PERIOD_S) -> None:
        for entry in self._mailbox.take():
            self._receive(entry)
        if self._may_admit:
            self._may_admit = False
            self._admit()
        is_active = bool(self._prefilling or self._decoding) and self._step()
        now_s = self._clock_ns() / 1e9
        if self._add_heartbeat(now_s):
            self._output.flush(now_s)
        if self._may_admit or (is_active and (self._prefilling or self._decoding)):
            self._output.flush_if_due(now_s)
        else:
            self._output.flush(now_s)
            self._wait(idle_s, now_s)

    def run(self) -> None:
        super().run()
        self.pool.save_parked(_SAVE_LIMIT_S)

    def _heartbeat(self) -> Heartbeat:
        beat = Heartbeat(len(self._running), self.pool.used_share)
        cache = self._prompt_cache
        if cache is not None:
            cache.apply_limit()
            beat.stored_bytes, beat.stored_states = cache.used_bytes, cache.count
        return beat

    @property
    def _running(self) -> list[RunningSequence]:
        return [*self._prefilling, *self._decoding, *self._preempted]

    # Requests and cancellations

    def _receive(self, entry: PreparedRequest | Cancel | ToParent) -> None:
        if isinstance(entry, Cancel):
            self._cancel(entry.id)
        elif not isinstance(entry, PreparedRequest):
            self._output.add(entry)
        elif entry.max_tokens:
            self._waiting.put(entry, self._query(entry))
            self._may_admit = True
        else:
            self._output.add(Started(entry.id, len(entry.tokens)))
            context = entry.without_media(entry.tokens) if entry.returns_context else []
            self._output.add(Done(entry.id, "length", Usage(prompt=len(entry.tokens)), context))

    def _cancel(self, request_id: int) -> None:
        """Does nothing if the request has ended: the two messages crossed."""
        waiting = self._waiting.remove(request_id)
        if waiting is not None:
            self._may_admit = True
            self._output.add(Done(request_id, "cancel", Usage(prompt=len(waiting.tokens))))
            return
        for sequence in self._running:
            if sequence.id == request_id:
                sequence.last_token_ns = self._clock_ns()
                self._end(sequence, "cancel")
                return

    # Admission

    def _query(self, request: PreparedRequest) -> PrefixQuery:
        return PrefixQuery(
            *(request.tokens, request.owner, request.public_tokens),
            reuses=self._engine.facts.is_invariant or request.sampling.seed < 0,
            spans=[(at, span.length) for at, span in request.spans.items()],
        )

    def _admit(self) -> None:
        """Give cells to requests that wait for them, those first that had some before."""
        while self._preempted:
            if not self._readmit(self._preempted[0]):
                return
        self._waiting.admit(self._begin)

    def _should_wait(self, waiting: WaitingRequest) -> bool:
        """For a prompt with the same prefix; but not for images of another client, whose turn to be
        encoded may come later than its own.
        """
        client = waiting.request.client
        others = [
            each.query
            for each in self._prefilling
            if each.is_encoded or each.request.client == client
        ]
        return bool(others) and self.pool.should_wait(waiting.query, others)

    def _begin(self, waiting: WaitingRequest) -> Outcome:
        """Begin the prefill, if it is time."""
        if self._should_wait(waiting):
            return Outcome.WAITS_FOR_PREFIX
        request, query = waiting
        try:
            slot = self.pool.admit(query, request.num_ctx, request.max_tokens)
            if slot is None:
                return Outcome.LACKS_CELLS
            self._begin_sampling(slot, request)
        except EngineError as error:
            self._output.add(Failed(request.id, EngineFailed.code, str(error)))
            return Outcome.BEGUN
        sequence = RunningSequence(request, query, slot, self._engine, self._repetition_limit)
        self._logprob_requests += request.logprobs >= 0
        self._prefilling.append(sequence)
        self._request_embeddings(sequence)
        self._output.add(Started(request.id, len(request.tokens), sequence.cached))
        return Outcome.BEGUN

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
            self.pool.clear(slot)
            self.pool.release(slot)
            raise

    def _request_embeddings(self, sequence: RunningSequence) -> None:
        if self._encoder is not None:
            client = sequence.request.client
            self._encoder.request_after(sequence.prefilled, sequence.spans, client)

    # Lack of cells

    def _lacks_cells(self, cells: int) -> bool:
        """Whether a request had to be preempted for so many cells; then plan the step anew."""
        if self.pool.make_room(cells):
            return False
        self._preempt_youngest()
        return True

    def _preempt_youngest(self, spare: RunningSequence | None = None) -> None:
        running = [each for each in (*self._prefilling, *self._decoding) if each is not spare]
        self._preempt(max(running, key=self._precedence))

    def _precedence(self, sequence: RunningSequence) -> tuple[bool, bool, int]:
        """Of those to preempt: the youngest whose cells can be computed again."""
        is_full = any(each is sequence for each in self._full)
        return not is_full, not sequence.slot.is_shifted, sequence.id

    def _preempt(self, sequence: RunningSequence) -> None:
        """Take its cells. After a context shift they cannot be computed again, so the request keeps
        their contents itself; one that waits for its shift begins anew with what will be left.
        """
        self._prefilling = [each for each in self._prefilling if each is not sequence]
        self._decoding = [each for each in self._decoding if each is not sequence]
        self._preempted.append(sequence)
        self._preempted.sort(key=lambda each: each.id)
        self._may_admit = True
        sequence.preempt()
        if any(each is sequence for each in self._full):
            self._full = [each for each in self._full if each is not sequence]
            sequence.forget(sequence.request.keep, self._count_discarded(sequence))
        elif sequence.slot.is_shifted:
            sequence.saved = self.pool.save(sequence.slot)
        self.pool.preempt(sequence.slot)
        if self._encoder is not None:
            self._encoder.call_off(sequence.spans)

    def _readmit(self, sequence: RunningSequence) -> bool:
        """Let a preempted request go on. False: its cells do not fit yet."""
        slot, query = sequence.slot, sequence.query
        try:
            if not self.pool.readmit(
                slot, query, sequence.num_ctx, sequence.wanted, sequence.saved
            ):
                return False
        except EngineError as error:
            self._fail([sequence], error)
            return True
        sequence.saved = None
        sequence.prefilled = len(slot.tokens)
        self._preempted.remove(sequence)
        self._prefilling = sorted([*self._prefilling, sequence], key=lambda each: each.id)
        self._request_embeddings(sequence)
        return True

    # One step

    def _step(self) -> bool:
        """False if there is nothing to do until embeddings have been made."""
        if self._full:
            self._shift_contexts()
        decoding = self._planner.choose_decoding(self._decoding)
        if drafts := self._draft(decoding):
            self._verify(decoding, drafts)
            return True
        chunks, is_waiting = self._plan_prefill(decoding) if self._prefilling else ([], False)
        if self._preempted:
            decoding = [each for each in decoding if each not in self._preempted]
        rows = [sequence.row for sequence in decoding]
        for sequence, size in chunks:
            begin = sequence.prefilled
            tokens = sequence.prompt[begin : begin + size]
            rows.append(Row(sequence.slot.index, tokens, begin, size == sequence.missing))
        if not rows:  # every prompt waits for embeddings, has failed, or was a span
            return not is_waiting
        prompt_tokens = sum(size for _, size in chunks)
        if self._lacks_cells(len(decoding) + prompt_tokens):
            return True
        begun_ns = self._clock_ns()
        try:
            sampled = self._engine.step(rows)
        except EngineError as error:
            self._fail([*decoding, *(sequence for sequence, _ in chunks)], error)
            return True
        ended_ns = self._clock_ns()
        self.pool.add_cells(rows)
        self._planner.observe(len(decoding), prompt_tokens, (ended_ns - begun_ns) / 1e9)
        if not chunks:
            self._observe_drafts(decoding, 0, 0, ended_ns - begun_ns)
        else:
            decoding = [*decoding, *self._advance_prefill(chunks, begun_ns, ended_ns)]
        self._accept_tokens(decoding, sampled, ended_ns)
        return True

    def _plan_prefill(
        self, decoding: list[RunningSequence]
    ) -> tuple[list[tuple[RunningSequence, int]], bool]:
        """The chunks of prompts beside these streams; and whether prompts wait for embeddings, and
        nothing was done. A span whose turn it is is read at once.
        """
        ordered = self._planner.order(self._prefilling)
        begun = [each for each in ordered if self._can_go_on(each)]
        late = [each for each in begun if not each.is_encoded]
        if late:
            self._demand_embeddings(late)  # some may be cached
        ready = [each for each in begun if each.is_encoded]
        is_alone = not decoding and len(self._prefilling) == 1 and not self._waiting
        fixes_seeded = is_alone and not self._engine.facts.is_invariant
        if ready and ready[0].next_span is not None:
            self._read_span(ready[0], *ready[0].next_span, len(decoding), fixes_seeded=fixes_seeded)
            return [], False
        readable = [each for each in ready if each.next_span is None]
        chunks = self._planner.plan_prefill(
            len(decoding), readable, self._decoding, fixes_seeded=fixes_seeded
        )
        return chunks, len(ready) < len(begun)

    def _draft(self, decoding: list[RunningSequence]) -> list[list[int]]:
        """Drafts for a step of these streams; [] if it has none, some streams must wait for their
        turn, or a running request would have to give up cells.
        """
        has_others = self._prefilling or len(decoding) < len(self._decoding)
        if self._lookup is None or has_others or not 0 < len(decoding) <= MAX_STREAMS:
            return []
        drafts = self._lookup.draft(decoding)
        cells = len(decoding) + sum(map(len, drafts))
        return drafts if drafts and self.pool.make_room(cells) else []

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
        self.pool.add_cells(rows)
        evaluated_ns = self._clock_ns()
        accepted = 0
        for sequence, row, tokens in zip(decoding, rows, sampled, strict=True):
            sequence.drafted += row.drafts
            hits = -1
            for hits, token in enumerate(tokens):
                sequence.accepted += hits > 0
                self._accept_tokens([sequence], [token], evaluated_ns)
                if sequence not in self._decoding:
                    break
            accepted += hits
            if hits < row.drafts:
                self.pool.trim_drafts(sequence.slot)
        took_ns = self._clock_ns() - begun_ns
        self._observe_drafts(decoding, sum(map(len, drafts)), accepted, took_ns)

    def _observe_drafts(
        self, decoding: list[RunningSequence], drafts: int, accepted: int, took_ns: int
    ) -> None:
        if self._lookup is not None:
            self._lookup.observe(len(decoding), drafts, accepted, took_ns / 1e9)

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
        if self._lacks_cells(streams + size):
            return
        begin = sequence.prefilled
        tokens = sequence.prompt[begin : begin + size]
        row = Row(sequence.slot.index, tokens, begin, size == sequence.missing, embeddings)
        begun_ns = self._clock_ns()
        try:
            sampled = self._engine.step([row])
        except EngineError as error:
            self._fail([sequence], error)
            return
        ended_ns = self._clock_ns()
        self.pool.add_cells([row])
        self._planner.end_turn(sequence)
        self._planner.observe(0, size, (ended_ns - begun_ns) / 1e9)
        complete = self._advance_prefill([(sequence, size)], begun_ns, ended_ns)
        if self._encoder is not None:
            self._encoder.free_before(sequence.prefilled, sequence.spans)
        self._accept_tokens(complete, sampled, ended_ns)

    def _advance_prefill(
        self, chunks: list[tuple[RunningSequence, int]], begun_ns: int, ended_ns: int
    ) -> list[RunningSequence]:
        """Update prompts after a step. Returns the complete ones, which have their next token."""
        complete = []
        self._may_admit = True  # what waits for these prefixes
        for sequence, size in chunks:
            sequence.begun_ns = sequence.begun_ns or begun_ns
            prompt = sequence.prompt
            added = prompt[sequence.prefilled : sequence.prefilled + size]
            self.pool.add_prompt(sequence.slot, added)
            sequence.prefilled += size
            if sequence.missing:
                continue
            sequence.first_token_ns = sequence.first_token_ns or ended_ns
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
            self._full.append(sequence)
        else:
            self._finish(sequence, "length", unevaluated=True)

    def _shift_contexts(self) -> None:
        """Before the next step, forget a part of the contexts that are full."""
        while self._full:
            sequence = self._full[0]
            if any(each is sequence for each in self._decoding):  # else it has ended
                while not self.pool.make_room_to_shift(sequence.slot):
                    self._preempt_youngest(spare=sequence)
                self._shift_context(sequence)
            self._full.remove(sequence)

    def _shift_context(self, sequence: RunningSequence) -> None:
        discard = self._count_discarded(sequence)
        try:
            self.pool.shift(sequence.slot, sequence.request.keep, discard)
        except EngineError as error:
            self._fail([sequence], error)
        else:
            sequence.row.position -= discard
            sequence.spans = {}  # they are not where they were

    def _count_discarded(self, sequence: RunningSequence) -> int:
        """Tokens that a full context forgets."""
        return max(1, (sequence.row.position - sequence.request.keep) // 2)

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
            self.pool.clear(sequence.slot)
            self._output.add(Failed(sequence.id, EngineFailed.code, str(error)))

    def _release(self, sequence: RunningSequence) -> None:
        """Free the slot."""
        self._prefilling = [each for each in self._prefilling if each is not sequence]
        self._decoding = [each for each in self._decoding if each is not sequence]
        self._preempted = [each for each in self._preempted if each is not sequence]
        self._logprob_requests -= sequence.request.logprobs >= 0
        self._engine.end(sequence.slot.index)
        self.pool.release(sequence.slot)
        self._may_admit = True
        if self._encoder is not None:
            self._encoder.call_off(sequence.request.spans)
