"""From sampled tokens to the text of answers: what a token costs besides the engine."""

from __future__ import annotations

from ollama_async.core.conversation import Logprobs, TokenLogprob
from ollama_async.workers.child.request_ends import RequestEnds
from ollama_async.workers.child.running_requests import LoopState
from ollama_async.workers.child.sequence import RunningSequence


class Answers:
    """Step thread only."""

    def __init__(self, state: LoopState, ends: RequestEnds) -> None:
        self._engine, self._running, self._output = state.engine, state.running, state.output
        self._ends = ends

    def accept(self, sequences: list[RunningSequence], sampled: list[int], now_ns: int) -> None:
        """Each sequence has got its next token, at ``now_ns``; the hot path."""
        if self._running.logprobs:
            self._add_logprobs(sequences, sampled)
        deltas, is_end = self._output.deltas, self._engine.is_end
        for sequence, token in zip(sequences, sampled, strict=True):
            row, last = sequence.row, sequence.last
            sequence.slot.tokens.append(last[0])
            row.position = position = row.position + 1
            sequence.generated = generated = sequence.generated + 1
            if is_end(token):
                sequence.last_token_ns = now_ns
                self._ends.finish(sequence, "stop")
                continue
            text = sequence.decode(sequence.piece_of(token))
            if sequence.finder is not None:
                text = sequence.scan(text, sequence.finder)
            if text:
                if sequence.parser is None:
                    deltas.append((sequence.id, text))
                else:
                    self._ends.add_deltas(sequence, sequence.parser.feed(text))
                    if sequence.parser.is_over:
                        sequence.is_stopped = True
            last[0] = token
            if sequence.repetition is not None:
                sequence.repetition.add(token)
            if (
                generated >= sequence.limit
                or position >= sequence.num_ctx
                or sequence.is_stopped
                or (sequence.constraint is not None and sequence.constraint.is_over)
            ):
                sequence.last_token_ns = now_ns
                self._ends.check(sequence)

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
