"""Engine ``scripted`` for embedding models: results that follow from the bytes of the input.

A text has one token for each byte of UTF-8. A vector depends on which bytes come where. A score is
the share of the query's words that the document has.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Sequence

from ollama_async.core.scripted_models import Script
from ollama_async.workers.child.engines.embedding import EmbeddingFacts, PairFormat
from ollama_async.workers.child.engines.engine import EngineError, Progress
from ollama_async.workers.child.engines.scripted import hang, kill_process, read_script
from ollama_async.workers.load_spec import LoadSpec

_BYTES = 256
_BEGIN, _SEPARATOR, _END = range(_BYTES, _BYTES + 3)
_VOCABULARY = _BYTES + 3
_BATCH_INPUTS = 64
_PERIOD_S = 0.01


def load(spec: LoadSpec, scripts: str, progress: Progress) -> ScriptedEmbedding:
    """Load ``spec.model`` from the file ``scripts``; see :func:`~.scripted.read_script`."""
    return ScriptedEmbedding(read_script(spec, scripts, progress), spec)


class ScriptedEmbedding:
    """See :class:`~ollama_async.workers.child.engines.embedding.EmbeddingEngine`."""

    def __init__(self, script: Script, spec: LoadSpec) -> None:
        self._script = script
        self._computed = 0
        self.facts = EmbeddingFacts(
            slots=script.slots or spec.slots,
            num_ctx=script.num_ctx or spec.num_ctx,
            vocab_size=_VOCABULARY,
            batch_tokens=spec.batch_size,
            batch_inputs=_BATCH_INPUTS,
            result="score" if script.ranks else "vector",
            pair_format=PairFormat(front=(_BEGIN,), between=(_SEPARATOR,), end=(_END,)),
            weights_bytes=script.weights_bytes,
        )

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:  # noqa: ARG002  # no names of special tokens here
        tokens = list(text.encode(errors="replace"))
        return [_BEGIN, *tokens, _END] if add_special else tokens

    def piece_with_control(self, token: int) -> bytes:
        return bytes([token]) if token < _BYTES else b""

    def embed(
        self, inputs: Sequence[Sequence[int]], is_abandoned: Callable[[], bool]
    ) -> list[bytes]:
        rate = self._script.prompt_tokens_per_second
        until_s = time.monotonic() + (sum(map(len, inputs)) / rate if rate else 0.0)
        while (left_s := until_s - time.monotonic()) > 0:
            if is_abandoned():
                raise EngineError("nobody waits for this batch")
            time.sleep(min(_PERIOD_S, left_s))
        return [self._compute(tokens) for tokens in inputs]

    def _compute(self, tokens: Sequence[int]) -> bytes:
        script = self._script
        text = bytes(token for token in tokens if token < _BYTES)
        has_reached = self._computed == script.crash_at
        if has_reached or (script.crash_on and script.crash_on.encode() in text):
            kill_process(script)
        if self._computed == script.hang_at:
            hang()
        self._computed += 1
        numbers = [_score(tokens)] if script.ranks else _vector(tokens, script.dimensions)
        for mark, number in ((script.nan_on, math.nan), (script.inf_on, math.inf)):
            if mark and mark.encode() in text:
                numbers[0] = number
        return struct.pack(f"<{len(numbers)}f", *numbers)

    def close(self) -> None:
        if self._script.ignore_sigterm:
            hang()


def _vector(tokens: Sequence[int], size: int) -> list[float]:
    numbers = [0.0] * size
    for position, token in enumerate(tokens):
        numbers[(31 * token + position) % size] += 1 + token / _VOCABULARY
    return numbers


def _score(tokens: Sequence[int]) -> float:
    """The tokens before the separator are the query's."""
    middle = tokens.index(_SEPARATOR) if _SEPARATOR in tokens else 0
    query, document = (
        set(bytes(token for token in part if token < _BYTES).lower().split())
        for part in (tokens[:middle], tokens[middle:])
    )
    return len(query & document) / len(query) if query else 0.0
