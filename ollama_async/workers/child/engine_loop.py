"""The step thread: one batch after the other for all running requests.

A turn of the loop reads the mailbox (so a cancel frees its slot before the next step), gives free
slots to waiting requests, makes one engine step and says what came of it. What a step should carry
is decided by :mod:`.batching`, what need not be computed by :mod:`.slots`.

Two choices of ours, where Ollama leaves it open. ``num_predict`` 0 produces nothing and evaluates
nothing: the request ends at once with ``length``. And a request with a seed (>= 0) reuses no
prefix and, as long as it is alone, gets its prompt in chunks of a fixed size: floating-point sums
depend on how a prompt is cut, so only then is the same text the answer to the same request.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from ollama_async.core.conversation import Usage
from ollama_async.core.errors import EngineFailed
from ollama_async.workers.child.batching import CHEAP_MASK_S, Batching, choose_masks
from ollama_async.workers.child.engines.engine import Engine, EngineError, Row
from ollama_async.workers.child.mailbox import Mailbox, Work
from ollama_async.workers.child.output_buffer import Outbox
from ollama_async.workers.child.prefix_cache import Slots
from ollama_async.workers.child.sequence import Running, claim_of
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

HEARTBEAT_PERIOD_S = 1.0

End = Literal["stop", "length", "cancel"]


class Loop:
    """See the module. Everything is called by the step thread, except :meth:`stop`."""

    def __init__(
        self,
        engine: Engine,
        mailbox: Mailbox,
        send: Callable[[Sequence[ToParent]], None],
        batching: Batching,
        *,
        repetition_limit: int = 0,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._engine = engine
        self._mailbox = mailbox
        self._outbox = Outbox(send)
        self._batching = batching
        self._repetition_limit = repetition_limit
        self._clock_ns = clock_ns
        self._slots = Slots(engine)
        self._waiting: deque[Work] = deque()
        self._filling: list[Running] = []  # in order of arrival
        self._decoding: list[Running] = []
        self._turns: dict[str, int] = {}  # of clients whose prompts are read, by step
        self._steps = 0
        self._heartbeat_at_s = 0.0
        self._is_stopped = False

    def run(self) -> None:
        """Until :meth:`stop`; running requests get no further word.

        :raises PipeClosed: there is nobody left to talk to.
        """
        while not self._is_stopped:
            self.turn()

    def stop(self) -> None:
        """Make :meth:`run` return after the step that it is in. Any thread."""
        self._is_stopped = True
        self._mailbox.wake()

    def turn(self, idle_s: float = HEARTBEAT_PERIOD_S) -> None:
        """Once round; sleeps up to ``idle_s`` if there is nothing to do."""
        for entry in self._mailbox.take():
            self._accept(entry)
        if self._waiting:
            self._admit()
        if self._filling or self._decoding:
            self._step()
        now_s = self._clock_ns() / 1e9
        if now_s >= self._heartbeat_at_s:
            self._report(now_s)
        if self._filling or self._decoding:
            self._outbox.flush_if_due(now_s)
        else:
            self._outbox.flush(now_s)
            self._mailbox.wait(min(idle_s, max(0.0, self._heartbeat_at_s - now_s)))

    # What the other threads say

    def _accept(self, entry: Work | Cancel | ToParent) -> None:
        if isinstance(entry, Work):
            if entry.limit:
                self._waiting.append(entry)
            else:
                self._outbox.say(Started(entry.id))
                usage = Usage(prompt=len(entry.tokens))
                context = entry.tokens if entry.wants_context else []
                self._outbox.say(Done(entry.id, "length", usage, context))
        elif isinstance(entry, Cancel):
            self._cancel(entry.id)
        else:
            self._outbox.say(entry)

    def _cancel(self, request_id: int) -> None:
        """Nothing happens if the request has ended: the two messages crossed."""
        for work in self._waiting:
            if work.id == request_id:
                self._waiting.remove(work)
                self._outbox.say(Done(request_id, "cancel", Usage(prompt=len(work.tokens))))
                return
        for running in [*self._filling, *self._decoding]:
            if running.id == request_id:
                running.answered_ns = self._clock_ns()
                self._end(running, "cancel")
                return

    def _admit(self) -> None:
        while self._waiting:
            work = self._waiting[0]
            slot = self._slots.take(claim_of(work))
            if slot is None:
                return
            self._waiting.popleft()
            self._filling.append(
                Running(work, slot, self._engine.piece, repetition_limit=self._repetition_limit)
            )
            self._outbox.say(Started(work.id))

    # One step

    def _step(self) -> None:
        decoding = self._choose_streams()
        streams = len(decoding)
        filled = self._plan(streams) if self._filling else []
        rows = [running.row for running in decoding]
        if not rows and not filled:
            return  # every prompt failed to begin
        for running, chunk in filled:
            begin = running.filled
            tokens = running.work.tokens[begin : begin + chunk]
            rows.append(Row(running.slot.index, tokens, begin, chunk == running.missing))
        begun_ns = self._clock_ns()
        try:
            sampled = self._engine.step(rows)
        except EngineError as error:
            self._fail([*decoding, *(running for running, _ in filled)], error)
            return
        ended_ns = self._clock_ns()
        prompt_tokens = sum(chunk for _, chunk in filled)
        self._batching.costs.observe(streams, prompt_tokens, (ended_ns - begun_ns) / 1e9)
        self._steps += 1
        if streams:
            self._decode(decoding, sampled, ended_ns)
        if filled:
            self._advance(filled, sampled[streams:], begun_ns, ended_ns)

    def _choose_streams(self) -> list[Running]:
        """All that decode, without those that must leave the step's time to others."""
        dear = [running for running in self._decoding if running.mask_s > CHEAP_MASK_S]
        if len(dear) < 2:
            return self._decoding
        dear.sort(key=lambda running: running.stepped)
        count = choose_masks([running.mask_s for running in dear])
        for running in dear[:count]:
            running.stepped = self._steps
        left_out = set(map(id, dear[count:]))
        return [running for running in self._decoding if id(running) not in left_out]

    def _plan(self, streams: int) -> list[tuple[Running, int]]:
        """Which prompts go on in this step, and by how many tokens."""
        ready = [running for running in self._in_turn() if self._is_begun(running)]
        is_alone = not streams and len(self._filling) == 1
        chunks = self._batching.plan(
            streams,
            [running.missing for running in ready],
            fixed=is_alone and bool(ready) and ready[0].is_seeded,
            crowd=len(self._turns) if self._is_shared() else 0,
            is_shared=len(self._turns) > 1,
        )
        filled = [(running, chunk) for running, chunk in zip(ready, chunks, strict=True) if chunk]
        for running, _ in filled:
            self._turns[running.work.client] = self._steps + 1
        return filled

    def _is_shared(self) -> bool:
        """Whether there is more than one client."""
        clients = {running.work.client for running in self._decoding}
        return len(clients.union(self._turns)) > 1

    def _in_turn(self) -> list[Running]:
        """The prompts, first those of the client who has waited for longest since its last part of
        a step, or since it came; those of one client in order of arrival.
        """
        now = self._steps
        clients = {running.work.client for running in self._filling}
        self._turns = {client: self._turns.get(client, now) for client in clients}
        return sorted(self._filling, key=lambda running: self._turns[running.work.client])

    def _is_begun(self, running: Running) -> bool:
        """Begin the request unless it should wait for a prompt with the same beginning."""
        if running.filled >= 0:
            return True
        before = [other.claim for other in self._filling if other.filled >= 0]
        if before and self._slots.expects_more(running.claim, before):
            return False
        work = running.work
        try:
            running.cached = self._slots.prepare(running.slot, running.claim)
            self._engine.begin(running.slot.index, work.sampling, work.tokens, running.constraint)
        except EngineError as error:
            self._fail([running], error)
            return False
        running.filled = running.cached
        return True

    def _decode(self, decoding: list[Running], sampled: list[int], now_ns: int) -> None:
        """The hot path: the work of a token beside the engine's."""
        items, is_end = self._outbox.items, self._engine.is_end
        for running, token in zip(decoding, sampled, strict=False):  # prompts' tokens follow
            row = running.row
            running.slot.tokens.append(running.last[0])
            row.position += 1
            running.answered += 1
            if is_end(token):
                running.answered_ns = now_ns
                self._finish(running, "stop")
                continue
            text = running.feed(running.piece_of(token))
            if text:
                if running.meaning is None:
                    items.append((running.id, text))
                else:
                    self._tell(running, running.meaning.feed(text))
            running.last[0] = token
            if running.repetition is not None:
                running.repetition.add(token)
            if (
                running.answered >= running.limit
                or row.position >= running.work.num_ctx
                or running.is_stopped
                or (running.constraint is not None and running.constraint.is_over)
            ):
                running.answered_ns = now_ns
                self._meet_limit(running)

    def _advance(
        self,
        filled: list[tuple[Running, int]],
        sampled: list[int],
        begun_ns: int,
        ended_ns: int,
    ) -> None:
        """Prompts after a step; those that are complete have their first token."""
        tokens = iter(sampled)
        for running, chunk in filled:
            running.begun_ns = running.begun_ns or begun_ns
            prompt = running.work.tokens
            running.slot.tokens += prompt[running.filled : running.filled + chunk]
            running.filled += chunk
            if running.missing:
                continue
            running.filled_ns = ended_ns
            self._filling.remove(running)
            self._decoding.append(running)
            self._say_first(running, next(tokens), ended_ns)

    def _say_first(self, running: Running, token: int, now_ns: int) -> None:
        """As :meth:`_decode`, but nothing of the answer is in the slot yet."""
        row = running.row
        row.position = len(running.work.tokens)
        running.last[0] = token
        running.answered_ns = now_ns
        running.answered = 1
        if self._engine.is_end(token):
            self._finish(running, "stop")
            return
        if running.repetition is not None:
            running.repetition.add(token)
        self._say(running, running.feed(running.piece_of(token)))
        if (
            running.answered >= running.limit
            or row.position >= running.work.num_ctx
            or running.is_stopped
            or (running.constraint is not None and running.constraint.is_over)
        ):
            self._meet_limit(running)

    def _say(self, running: Running, text: str) -> None:
        """Some of an answer's text; "" says nothing."""
        if text:
            meaning = running.meaning
            self._tell(running, [text] if meaning is None else meaning.feed(text))

    def _tell(self, running: Running, pieces: Sequence[Delta]) -> None:
        self._outbox.items += [(running.id, piece) for piece in pieces]

    # How requests end

    def _meet_limit(self, running: Running) -> None:
        """A stop string, a complete form, enough tokens, tokens that only repeat others, or a full
        context, which may be shifted instead.
        """
        work = running.work
        if running.is_stopped or (running.constraint is not None and running.constraint.is_over):
            self._finish(running, "stop", unevaluated=True)
        elif running.answered >= running.limit and not running.may_go_on():
            self._finish(running, "length", unevaluated=True)
        elif running.row.position < work.num_ctx:
            pass
        elif work.shift and self._engine.facts.can_shift:
            discard = max(1, (running.row.position - work.keep) // 2)
            try:
                self._slots.shift(running.slot, work.keep, discard)
            except EngineError as error:
                self._fail([running], error)
            else:
                running.row.position -= discard
        else:
            self._finish(running, "length", unevaluated=True)

    def _finish(self, running: Running, reason: End, *, unevaluated: bool = False) -> None:
        """The answer is complete: say what was held back, then the end."""
        if running.constraint is not None and running.constraint.failure:
            self._fail([running], EngineError(running.constraint.failure))
            return
        self._say(running, "" if running.is_stopped else running.flush())
        if running.meaning is not None:
            self._tell(running, running.meaning.finish())
        self._end(running, "stop" if running.is_stopped else reason, unevaluated=unevaluated)

    def _end(self, running: Running, reason: End, *, unevaluated: bool = False) -> None:
        context: list[int] = []
        if running.work.wants_context and reason != "cancel":
            context = running.slot.tokens[-CONTEXT_LIMIT:]
            if unevaluated:
                context.append(running.last[0])
            self._cut_stop(context, running)
        if running.repeated:
            _log_repetition(running)
        self._leave(running)
        done = Done(running.id, reason, running.usage(), context, bool(running.repeated))
        self._outbox.say(done)

    def _cut_stop(self, context: list[int], running: Running) -> None:
        """Take the tokens off again that hold nothing but a stop string."""
        left = running.count_undelivered()
        while left > 0 and context:
            left -= len(running.piece_of(context[-1]).decode(errors="replace"))
            if left >= 0:
                context.pop()

    def _fail(self, failed: list[Running], error: EngineError) -> None:
        """Nobody knows what these slots hold now."""
        for running in failed:
            self._leave(running)
            self._slots.empty(running.slot)
            self._outbox.say(Failed(running.id, EngineFailed.code, str(error)))

    def _leave(self, running: Running) -> None:
        """Free the slot. Lists are replaced, not changed: a step may be going through them."""
        self._filling = [other for other in self._filling if other is not running]
        self._decoding = [other for other in self._decoding if other is not running]
        if running.filled >= 0:
            self._engine.end(running.slot.index)
        self._slots.release(running.slot)

    def _report(self, now_s: float) -> None:
        self._heartbeat_at_s = now_s + HEARTBEAT_PERIOD_S
        busy_slots = len(self._filling) + len(self._decoding)
        self._outbox.say(Heartbeat(busy_slots, self._slots.used_share))
        self._outbox.flush(now_s)


def _log_repetition(running: Running) -> None:
    length = f"after {running.answered} tokens, by repeating {running.repeated} of them"
    print(f"request {running.id}: the answer was ended {length}", file=sys.stderr)  # noqa: T201  # stderr is the log
