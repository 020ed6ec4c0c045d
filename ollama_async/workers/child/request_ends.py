"""How requests end: complete, cancelled, or failed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

from ollama_async.core.conversation import Thought
from ollama_async.core.errors import EngineFailed
from ollama_async.workers.child.engines.engine import EngineError
from ollama_async.workers.child.running_requests import LoopState
from ollama_async.workers.child.sequence import RunningSequence
from ollama_async.workers.messages import CONTEXT_LIMIT, Delta, Done, Failed

DoneReason = Literal["stop", "length", "cancel"]


class RequestEnds:
    """Frees slots, and sends the end of each request. Step thread only."""

    def __init__(self, state: LoopState) -> None:
        self._engine, self._pool = state.engine, state.pool
        self._running, self._output = state.running, state.output

    def check(self, sequence: RunningSequence) -> None:
        """End the answer if a stop string, the only call or a complete form, enough tokens, endless
        repetition or a full context says so; the latter may be shifted instead.
        """
        request, constraint = sequence.request, sequence.constraint
        if sequence.is_stopped or (constraint is not None and constraint.is_over):
            self.finish(sequence, "stop", unevaluated=True)
        elif sequence.generated >= sequence.limit and not sequence.extend_limit():
            self.finish(sequence, "length", unevaluated=True)
        elif sequence.row.position < sequence.num_ctx:
            pass
        elif request.shift and self._engine.facts.can_shift:
            self._running.full = [*self._running.full, sequence]
        else:
            self.finish(sequence, "length", unevaluated=True)

    def finish(
        self, sequence: RunningSequence, reason: DoneReason, *, unevaluated: bool = False
    ) -> None:
        """The answer is complete: send what was held back, then the end.

        ``unevaluated``: its last token is not in the slot.
        """
        constraint, parser = sequence.constraint, sequence.parser
        if constraint is not None and constraint.failure:
            self.fail([sequence], EngineError(constraint.failure))
            return
        text = "" if sequence.is_stopped else sequence.flush()
        if parser is not None:
            self.add_deltas(sequence, [*(parser.feed(text) if text else ()), *parser.finish()])
        elif text:
            self.add_deltas(sequence, [text])
        self._end(sequence, "stop" if sequence.is_stopped else reason, unevaluated=unevaluated)

    def cancel(self, sequence: RunningSequence) -> None:
        self._end(sequence, "cancel")

    def fail(self, failed: list[RunningSequence], error: EngineError) -> None:
        """The contents of these slots are unknown now."""
        for sequence in failed:
            self._release(sequence)
            self._pool.clear(sequence.slot)
            self._output.add(Failed(sequence.id, EngineFailed.code, str(error)))

    def add_deltas(self, sequence: RunningSequence, deltas: Sequence[Delta]) -> None:
        """Parts of the answer, after the token that was generated last."""
        if deltas and isinstance(deltas[-1], Thought):
            sequence.thinking = sequence.generated
        self._output.deltas += [(sequence.id, delta) for delta in deltas]

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

    def _release(self, sequence: RunningSequence) -> None:
        """Free the slot."""
        self._running.end(sequence)
        self._engine.end(sequence.slot.index)
        self._pool.release(sequence.slot)
