"""Runs a request for embeddings or scores as a number of small jobs, *pieces*.

A piece takes its turn in the queue like any other job. So a request with many inputs delays other
clients by a piece at most, and what a worker has to repeat after a crash is a piece. Few pieces of
one request are submitted at a time, which bounds the places that it takes in the queue and the
texts that are packed for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter

import msgspec

from ollama_async.core.conversation import Embedding, Part, Usage, Vector
from ollama_async.core.errors import BadRequest, Busy, EngineFailed, ServerError
from ollama_async.gateway.body import BodyProcessor
from ollama_async.gateway.client_budgets import CLIENT_SEND_LIMIT_BYTES, Reservation
from ollama_async.queue.backend import Finish, Handle, InferenceBackend, Job, Start

PIECE_INPUTS = 16
PIECE_CHARACTERS = 16 << 10
"""Of a piece with several inputs, its query counted for each; a token id counts as four."""

PIECES_AT_ONCE = 4
"""Of one request in the queue and in the worker: enough that the worker always has a batch."""

BUSY_TIMEOUT_S = 60.0
"""How long a request that has begun waits for the end of any of its pieces while the queue is full,
before it fails."""

INPUTS_LIMIT = 100_000
"""Of one request. Each takes some 200 bytes besides its text and its vector."""

_ANSWER_BYTES_PER_FLOAT = 17
"""Four for the number itself, and 13 for its text."""

_TOKEN_CHARACTERS = 4

_pack = msgspec.msgpack.Encoder().encode


class EmbeddingParams(msgspec.Struct, frozen=True, kw_only=True):
    """What to compute: the fields of an :class:`Embedding`, and those of its job in ``job``, which
    has no task. Without inputs the model is only loaded.
    """

    job: Job
    inputs: Sequence[str | list[int]]
    query: str | None = None
    truncate: bool = True
    num_ctx: int = 0


def check_number_of_inputs(number: int) -> None:
    """:raises BadRequest: over :data:`INPUTS_LIMIT`."""
    if number > INPUTS_LIMIT:
        raise BadRequest(f"too many inputs: {number}, at most {INPUTS_LIMIT} in one request")


class EmbeddingRun:
    """One request. ``vectors`` has the result for each input once :meth:`run` has returned, and
    ``tokens`` is the number of tokens of all. The other attributes are for the metrics.

    ``reservation`` counts what the answer will take.
    """

    def __init__(
        self,
        params: EmbeddingParams,
        backend: InferenceBackend,
        processor: BodyProcessor,
        reservation: Reservation,
    ) -> None:
        self.vectors: list[bytes] = [b""] * len(params.inputs)
        self.tokens = 0
        self.start = Start()
        self.started_at: float | None = None
        self.first_at: float | None = None  # there is no text
        self.finishes: dict[int, Finish] = {}
        self._params = params
        self._backend = backend
        self._processor = processor
        self._reservation = reservation
        self._next = 0
        self._refused: deque[range] = deque()  # pieces that the full queue sent back
        self._running: set[_Piece] = set()
        self._changed = asyncio.Event()
        self._error: ServerError | None = None
        self._moved_at = perf_counter()
        self._prompt_ns = 0
        self._width = 0

    async def run(self) -> None:
        """Compute all vectors. May be cancelled at any time, which cancels the pieces.

        :raises Busy: the queue is full, at the beginning or for :data:`BUSY_TIMEOUT_S`.
        :raises ServerError: a piece failed, or the answer would be too long.
        """
        try:
            if not self._params.inputs:
                self._submit(_Piece(self, range(0)), self._params.job)
            while True:
                self._changed.clear()
                pause_s = await self._submit_pieces()
                if self._error is not None:
                    raise self._error
                if not self._running and pause_s is None:
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._changed.wait()
        finally:
            for piece in list(self._running):  # a cancel may end others
                piece.cancel()
        if self._params.inputs:
            usage = Usage(prompt=self.tokens, prompt_ns=self._prompt_ns)
            self.finishes[0] = Finish("stop", usage, [])

    @property
    def phase(self) -> str:
        """``queue`` (no piece has started yet) or ``prefill``."""
        return "queue" if self.started_at is None else "prefill"

    # -- pieces to the backend -------------------------------------------------------------------

    async def _submit_pieces(self) -> float | None:
        """Submit the next pieces. The seconds to wait before trying again if the queue is full;
        otherwise None.
        """
        while len(self._running) < PIECES_AT_ONCE and self._error is None:
            inputs = self._refused.popleft() if self._refused else self._next_inputs()
            if not inputs:
                return None
            job = await self._processor.run(
                self._params.job.client, self._size_of(inputs), self._job, inputs
            )
            try:
                self._submit(_Piece(self, inputs), job)
            except Busy as error:
                self._refused.appendleft(inputs)
                self._check_deadline(error)
                return error.retry_after_s
        return None

    def _next_inputs(self) -> range:
        """The indices of the next piece: at least one, if any are left."""
        inputs, start = self._params.inputs, self._next
        characters = 0
        end = start
        while end < len(inputs) and end - start < PIECE_INPUTS:
            characters += self._size_of(range(end, end + 1))
            if end > start and characters > PIECE_CHARACTERS:
                break
            end += 1
        self._next = end
        return range(start, end)

    def _size_of(self, inputs: range) -> int:
        query = len(self._params.query or "")
        texts = (self._params.inputs[index] for index in inputs)
        return sum(
            query + (len(text) if isinstance(text, str) else _TOKEN_CHARACTERS * len(text))
            for text in texts
        )

    def _job(self, inputs: range) -> Job:
        """Only the last piece sets ``keep_alive``: with 0 the model could be unloaded between two
        pieces.
        """
        params = self._params
        task = Embedding(
            inputs=list(params.inputs[inputs.start : inputs.stop]),
            query=params.query,
            truncate=params.truncate,
            num_ctx=params.num_ctx,
            first=inputs.start if len(params.inputs) > 1 else -1,
        )
        is_last = inputs.stop == len(params.inputs)
        return msgspec.structs.replace(
            params.job,
            task=msgspec.Raw(_pack(task)),
            num_predict=0,
            vectors=len(inputs),
            keep_alive_s=params.job.keep_alive_s if is_last else None,
        )

    def _submit(self, piece: _Piece, job: Job) -> None:
        """:raises ServerError: the backend refuses the job."""
        self._running.add(piece)
        try:
            piece.handle = self._backend.submit(job, piece)
        except ServerError:
            self._running.discard(piece)
            raise
        self._moved_at = perf_counter()

    def _check_deadline(self, error: Busy) -> None:
        """:raises Busy: nothing has been done yet, or too long ago."""
        has_begun = self._running or self.started_at is not None
        if not has_begun or perf_counter() - self._moved_at > BUSY_TIMEOUT_S:
            raise error

    # -- called by the pieces, on the event loop -------------------------------------------------

    def piece_started(self, start: Start) -> None:
        if self.started_at is None:
            self.start = start
            self.started_at = perf_counter()

    def check_width(self, data: bytes) -> bool:
        """Whether a vector is like the others. The first one shows how long the answer will be."""
        if not self._width and len(data) % 4 == 0:
            self._width = len(data)
            try:
                self._reserve(len(self.vectors) * len(data) // 4 * _ANSWER_BYTES_PER_FLOAT)
            except ServerError as error:
                self.fail(error)
        return len(data) == self._width > 0

    def _reserve(self, size: int) -> None:
        """:raises ServerError: the answer is too long, or there are too many others."""
        if size > CLIENT_SEND_LIMIT_BYTES:
            raise BadRequest(
                f"too many inputs: {len(self.vectors)}; the answer would take {size} bytes, over "
                f"the limit of {CLIENT_SEND_LIMIT_BYTES}"
            )
        self._reservation.reserve(size)

    def piece_finished(self, piece: _Piece, finish: Finish) -> None:
        self._running.discard(piece)
        if piece.missing:
            self.fail(EngineFailed("the model gave too few vectors"))
        self.vectors[piece.inputs.start : piece.inputs.stop] = piece.vectors
        self.tokens += piece.tokens
        self._prompt_ns += finish.usage.prompt_ns
        self._moved_at = perf_counter()
        self._changed.set()

    def piece_failed(self, piece: _Piece, error: ServerError) -> None:
        self._running.discard(piece)
        if isinstance(error, Busy) and (self._running or self.started_at is not None):
            self._refused.append(piece.inputs)  # another client's job took its place in the queue
            self._changed.set()
        else:
            self.fail(error)

    def fail(self, error: ServerError) -> None:
        self._error = self._error or error
        self._changed.set()


class _Piece:
    """The sink of one job: the results for the ``inputs`` of these indices."""

    def __init__(self, run: EmbeddingRun, inputs: range) -> None:
        self.inputs = inputs
        self.handle: Handle | None = None
        self._run = run
        self.started: Callable[[Start], None] = run.piece_started
        self._discard()

    def _discard(self) -> None:
        self.vectors = [b""] * len(self.inputs)
        self.missing = len(self.inputs)
        self.tokens = 0

    def cancel(self) -> None:
        if self.handle is not None:
            self.handle.cancel()

    def text(self, text: str) -> None:  # noqa: ARG002  # the contract's
        self._run.fail(EngineFailed("the model gave text instead of vectors"))

    def part(self, part: Part) -> None:
        is_expected = (
            isinstance(part, Vector)
            and 0 <= part.index < len(self.vectors)
            and not self.vectors[part.index]
            and self._run.check_width(part.data)
        )
        if not is_expected:
            self._run.fail(EngineFailed("the model gave an invalid vector"))
            return
        assert isinstance(part, Vector)
        self.vectors[part.index] = part.data
        self.missing -= 1
        self.tokens += part.tokens

    def finished(self, finish: Finish) -> None:
        self._run.piece_finished(self, finish)

    def failed(self, error: ServerError) -> None:
        self._run.piece_failed(self, error)

    def try_restart(self) -> bool:
        """Nothing has been sent, so nothing but this piece has to be repeated."""
        self._discard()
        return True
