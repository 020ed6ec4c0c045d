"""Engine ``scripted``: plays the answers of a script, at a given speed, and fails on purpose.

It ships with the product: tests, the benchmark of the gateway alone and chaos runs use it. A prompt
has one token for each byte of UTF-8 (ids 0 to 255), an answer one for each piece of the script;
equal pieces are the same token. It keeps no past text, but checks positions as strictly as a real
KV cache, so a batcher that loses count fails here, too. With ``cells`` in its script the cache is
a pool, with cells that are counted as strictly.

Its logprobs are made up, and always the same: the token that comes has a probability of 1/2, the
tokens with the next ids have 1/4, 1/8 and so on; after the last id comes 0.

With the capability ``vision`` or ``audio`` it reads images or recordings: each takes 16 tokens, and
changes nothing in the answer.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, cycle, repeat
from pathlib import Path

import numpy as np

from ollama_async.core.conversation import Sampling
from ollama_async.core.errors import LoadFailed
from ollama_async.core.scripted_models import Script, read_scripts
from ollama_async.workers.child.engines.engine import (
    Constraint,
    EngineError,
    EngineFacts,
    Layout,
    Pixels,
    Progress,
    Row,
    Samples,
    SavedState,
    SpanEmbeddings,
    SpanShape,
)
from ollama_async.workers.child.engines.kv_layout import KVLayout, pool_of
from ollama_async.workers.load_spec import LoadSpec

_BYTES = 256
_SAMPLE_RATE = 16_000
_MEDIA_TOKENS = 16
_TOKEN_STATE_BYTES = 8
_LOG_HALF = math.log(0.5)
_PROGRESS_PERIOD_S = 0.05
_BEFORE_FAULT_S = 0.002
"""How long the step before a fault takes: enough for earlier output to be sent first."""


def load(spec: LoadSpec, scripts: str, progress: Progress) -> Scripted:
    """Play ``spec.model`` from the file ``scripts``; see :func:`read_script`."""
    script = read_script(spec, scripts, progress)
    return Scripted(script, slots=spec.slots, num_ctx=spec.num_ctx)


def read_script(spec: LoadSpec, scripts: str, progress: Progress) -> Script:
    """The script of ``spec.model`` in the file ``scripts``, after the time that loading takes.

    :raises LoadFailed: there is no such file or script, or the script says to fail.
    """
    if not scripts:
        raise LoadFailed("the scripted engine needs OLLAMA_ASYNC_SCRIPTS")
    script = read_scripts(scripts).get(spec.model)
    if script is None:
        raise LoadFailed(f"no script {spec.model!r} in {scripts!r}")
    if script.ignore_sigterm:
        # not signal.signal, which is for the main thread only
        ctypes.CDLL(None).signal(signal.SIGTERM.value, ctypes.c_void_p(signal.SIG_IGN.value))
    begin_s = time.monotonic()
    while (passed_s := time.monotonic() - begin_s) < script.load_seconds:
        progress(passed_s / script.load_seconds)
        time.sleep(min(_PROGRESS_PERIOD_S, script.load_seconds - passed_s))
    if script.load_error:
        raise LoadFailed(script.load_error)
    return script


class Scripted:
    """See :class:`~ollama_async.workers.child.engines.engine.Engine`."""

    def __init__(self, script: Script, *, slots: int, num_ctx: int) -> None:
        pieces = [piece.encode() for piece in script.pieces()]
        tokens = {piece: _BYTES + token for token, piece in enumerate(dict.fromkeys(pieces))}
        self._script = script
        self._pieces = [*(bytes([byte]) for byte in range(_BYTES)), *tokens, b""]
        self._answer = [tokens[piece] for piece in pieces]
        self._end = len(self._pieces) - 1
        slots, num_ctx = script.slots or slots, script.num_ctx or num_ctx
        layout = KVLayout(slots, slots, slots * num_ctx, is_pooled=False)
        if script.cells:
            layout = pool_of(slots, max(script.cells, num_ctx))
        cells, sequences = layout.cells, layout.sequences
        reads_media = not {"vision", "audio"}.isdisjoint(script.capabilities)
        self.projector = ScriptedProjector(script.capabilities) if reads_media else None
        self.facts = EngineFacts(
            slots=layout.slots,
            sequences=sequences,
            num_ctx=num_ctx,
            cells=cells,
            is_pooled=layout.is_pooled,
            is_invariant=True,
            can_draft=script.drafts,
            vocab_size=len(self._pieces),
            weights_bytes=script.weights_bytes,
            cache_bytes=script.cache_bytes_per_token * cells,
            chat_template=script.template,
        )
        self._lengths = [0] * sequences
        self._cells = _Cells(sequences, cells) if script.cells else None
        self._answers: list[Iterator[int]] = [repeat(self._end)] * sequences
        self._due = [0.0] * sequences

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:  # noqa: ARG002  # no special tokens here
        return list(text.encode(errors="replace"))

    def piece(self, token: int) -> bytes:
        return self._pieces[token]

    piece_with_control = piece  # there are no control tokens

    def is_end(self, token: int) -> bool:
        return token == self._end

    def begin(
        self,
        slot: int,
        sampling: Sampling,  # noqa: ARG002  # chance plays no part
        prompt: Sequence[int],
        constraint: Constraint | None = None,
        *,
        needs_logits: bool = False,  # noqa: ARG002  # they are made up
    ) -> None:
        if self._script.crash_on and self._script.crash_on.encode() in bytes(prompt):
            kill_process(self._script)
        tokens = self._play(list(prompt) if self._script.echo else self._answer)
        self._answers[slot] = tokens if constraint is None else self._constrain(constraint, tokens)
        self._due[slot] = 0.0

    def end(self, slot: int) -> None:
        self._answers[slot] = repeat(self._end)

    def step(self, rows: Sequence[Row]) -> list[int]:
        self._evaluate(rows)
        answers = self._answers
        return [next(answers[row.slot]) for row in rows if row.samples]

    def _evaluate(self, rows: Sequence[Row]) -> None:
        lengths, num_ctx = self._lengths, self.facts.num_ctx
        for row in rows:
            length = row.position + len(row.tokens)
            if lengths[row.slot] != row.position or length > num_ctx:
                raise EngineError(f"slot {row.slot}: no position {row.position}")
            if self._cells is not None:
                self._cells.append(row.slot, len(row.tokens))
            lengths[row.slot] = length
        if self._script.tokens_per_second or self._script.prompt_tokens_per_second:
            self._wait(rows)

    def verify(self, rows: Sequence[Row]) -> list[Iterator[int]]:
        self._evaluate(rows)
        return [self._verify(row) for row in rows]

    def _verify(self, row: Row) -> Iterator[int]:
        for count, draft in enumerate([*row.tokens[len(row.tokens) - row.drafts :], None]):
            if count and self._script.tokens_per_second:
                self._due[row.slot] += 1 / self._script.tokens_per_second
            token = next(self._answers[row.slot])
            yield token
            if token != draft or token == self._end:
                return

    def logprobs(self, slot: int, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:  # noqa: ARG002  # the same in all slots
        size = len(self._pieces)
        ranked = ((token + rank) % size for rank in range(min(top, size)))
        return _LOG_HALF, [(each, _LOG_HALF * rank) for rank, each in enumerate(ranked, 1)]

    def trim(self, slot: int, length: int) -> bool:
        self._lengths[slot] = min(length, self._lengths[slot])
        if self._cells is not None:
            self._cells.trim(slot, length)
        return True

    def copy(self, source: int, target: int, length: int) -> bool:
        self._lengths[target] = min(length, self._lengths[source])
        if self._cells is not None:
            self._cells.copy(source, target, length)
        return True

    def share(self, source: int, target: int, length: int) -> None:
        if self._cells is None or length > min(self._lengths[source], self._lengths[target]):
            raise EngineError(f"slots {source} and {target} do not share {length} cells")
        rest = self._lengths[target] - length
        self._cells.copy(source, target, length)
        self._cells.append(target, rest)

    def shift(self, slot: int, keep: int, discard: int) -> None:
        if keep + discard > self._lengths[slot]:
            raise EngineError(f"slot {slot}: cannot forget {discard} tokens from {keep} on")
        if self._cells is not None:
            self._cells.unshare(slot)
            self._cells.trim(slot, self._lengths[slot] - discard)
        self._lengths[slot] -= discard

    def state_bytes(self, slot: int) -> int:
        return _TOKEN_STATE_BYTES * self._lengths[slot]

    def save(self, slot: int, state: SavedState) -> bool:
        state[:] = slot
        return True

    def restore(self, slot: int, state: SavedState, length: int) -> bool:
        self.trim(slot, 0)
        if not self.is_acceptable(state, length):
            return False
        if self._cells is not None:
            if self._cells.free < length:
                return False
            self._cells.append(slot, length)
        self._lengths[slot] = length
        return True

    def is_acceptable(self, state: SavedState, length: int) -> bool:
        return len(state) == _TOKEN_STATE_BYTES * length

    def close(self) -> None:
        if self._script.ignore_sigterm:
            hang()

    def _play(self, answer: list[int]) -> Iterator[int]:
        times = self._script.repeat
        tokens = cycle(answer) if times is True else chain.from_iterable(repeat(answer, int(times)))
        whole = chain(tokens, repeat(self._end))
        if self._script.crash_at is None and self._script.hang_at is None:
            return whole
        return self._fail(whole)

    def _constrain(self, constraint: Constraint, played: Iterator[int]) -> Iterator[int]:
        """``played`` where it is allowed; elsewhere, the tokens that end the answer soonest."""
        for token in played:
            chosen = token
            if not constraint.allows(token):
                allowed: list[int] = constraint.allowed().tolist()
                ends = [end for end in (self._end, *b'"}]') if end in allowed]
                chosen = next(iter([*ends, *allowed]), self._end)
            constraint.accept(chosen)
            yield chosen

    def _fail(self, tokens: Iterator[int]) -> Iterator[int]:
        """``tokens`` with the faults of the script."""
        crash_at, hang_at = self._script.crash_at, self._script.hang_at
        for index, token in enumerate(tokens):
            if index == crash_at:
                kill_process(self._script)
            if index == hang_at:
                hang()
            if index + 1 in {crash_at, hang_at}:
                time.sleep(_BEFORE_FAULT_S)
            yield token

    def _wait(self, rows: Sequence[Row]) -> None:
        """Until the prompt tokens are evaluated and every stream's next token is due."""
        now = time.monotonic()
        until = now
        if self._script.prompt_tokens_per_second:
            read = sum(len(row.tokens) for row in rows if not self._due[row.slot])
            until += min(1.0, read / self._script.prompt_tokens_per_second)
        until = max([until, *(self._due[row.slot] for row in rows)])
        time.sleep(max(0.0, until - now))
        rate = self._script.tokens_per_second
        period_s = 1 / rate if rate else 0.0
        for row in rows:
            if row.samples:
                due = self._due[row.slot]
                self._due[row.slot] = (due if until - due < period_s else until) + period_s


class _Cells:
    """The cells of a pool: which each slot holds, and how many slots hold each. A list of numbers,
    as slow as it is simple, since the loop's own count is checked against it.
    """

    def __init__(self, sequences: int, capacity: int) -> None:
        self._capacity = capacity
        self._of: list[list[int]] = [[] for _ in range(sequences)]
        self._holders: Counter[int] = Counter()
        self._last = 0

    @property
    def free(self) -> int:
        return self._capacity - len(self._holders)

    def append(self, slot: int, size: int) -> None:
        """:raises EngineError: there are too few."""
        if size > self.free:
            raise EngineError("no room in the KV cache")
        cells = range(self._last + 1, self._last + 1 + size)
        self._last += size
        self._of[slot] += cells
        self._holders.update(cells)

    def trim(self, slot: int, length: int) -> None:
        for cell in self._of[slot][length:]:
            self._holders[cell] -= 1
            if not self._holders[cell]:
                del self._holders[cell]
        del self._of[slot][length:]

    def copy(self, source: int, target: int, length: int) -> None:
        self.trim(target, 0)
        self._of[target] = self._of[source][:length]
        self._holders.update(self._of[target])

    def unshare(self, slot: int) -> None:
        """:raises EngineError: there are too few cells for copies of those that it shares."""
        if any(self._holders[cell] > 1 for cell in self._of[slot]):
            length = len(self._of[slot])
            self.trim(slot, 0)
            self.append(slot, length)


def kill_process(script: Script) -> None:
    """Does nothing if the script says that it crashes once, and it has."""
    if script.crash_once_file:
        marker = Path(script.crash_once_file)
        if marker.exists():
            return
        marker.touch()
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """Never return."""
    threading.Event().wait()


class ScriptedProjector:
    """See :class:`~ollama_async.workers.child.engines.engine.Projector`."""

    def __init__(self, capabilities: Sequence[str]) -> None:
        self.sees = "vision" in capabilities
        self.sample_rate = _SAMPLE_RATE if "audio" in capabilities else 0

    def layout(self, shape: tuple[int, ...]) -> Layout:  # noqa: ARG002  # all are alike
        return (SpanShape(_MEDIA_TOKENS, _MEDIA_TOKENS),)

    def decode_audio(self, data: bytes) -> Samples:
        return np.zeros(len(data), np.float32)

    def encode(self, data: Pixels | Samples) -> list[SpanEmbeddings]:  # noqa: ARG002  # as above
        return [SpanEmbeddings(np.zeros((_MEDIA_TOKENS, 1), np.float32), _MEDIA_TOKENS)]
