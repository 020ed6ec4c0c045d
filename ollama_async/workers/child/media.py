"""Images and recordings in prompts: their places in it, and the thread that makes embeddings.

In a prompt's tokens, each place of an image has a negative number of its own, which depends on the
bytes of the file and its owner only. So prefixes that end behind the same image are equal lists,
and are found, copied and trimmed like those of text.

:class:`MediaReader` counts these places, which needs only the size of an image. Embeddings are made
when a prompt gets that far, and only if no slot holds the image already. That takes seconds on a
CPU. So a thread of its own makes them, beside the steps of others; the library shares nothing
between the two but the cores. It takes turns between clients, one image each. Files are decoded
again then: pixels would need a hundred times the memory of the file, for each image that waits.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from ollama_async.core.bounded_cache import BoundedCache
from ollama_async.core.errors import BadRequest
from ollama_async.core.round_robin import RoundRobin
from ollama_async.workers.child import audio
from ollama_async.workers.child.engines.engine import (
    EngineError,
    Layout,
    Pixels,
    Projector,
    Samples,
    SpanEmbeddings,
    SpanShape,
)
from ollama_async.workers.child.resource_limits import MakeRun, PreparationBudget, Run

FILE_LIMIT_BYTES = 64 << 20

CACHE_BYTES = 256 << 20
"""Of embeddings that are kept; an image has 1 to 10 MB of them."""

AHEAD_BYTES = 128 << 20
"""Of embeddings that no slot has read yet. While prompts have more, only those are made for which
a prompt waits now."""

_LAYOUTS = 4096

DECODE_S = 10.0
"""CPU time for all files of a request. A photograph takes a tenth of a second."""

NICENESS = 5
"""Of the encoder among busy cores: it gets a third of what a step gets. Steps have as many threads
as there are cores, and each waits for the slowest."""

LEAST_AUDIO_S = 0.05

SAMPLE_LIMIT = 1 << 32
"""Samples are between -1 and 1, or integers of 32 bits as floats. Spectra have their squares."""

T = TypeVar("T")

_PLACE_BITS = 32
_DIGEST_BYTES = 16


class Media:
    """An image or a recording of one request.

    ``embeddings``: those of its spans, once there are any. ``error``: why there are none.
    """

    def __init__(self, data: bytes, digest: bytes, layout: Layout) -> None:
        self.data = data
        self.digest = digest
        self.layout = layout
        self.embeddings: Sequence[SpanEmbeddings] = ()
        self.error = ""


class MediaSpan(msgspec.Struct, frozen=True):
    """The ``index``-th span of ``media``, which takes ``length`` tokens of a prompt."""

    media: Media
    index: int
    length: int

    @property
    def embeddings(self) -> SpanEmbeddings:
        return self.media.embeddings[self.index]


def add_media(tokens: list[int], spans: dict[int, MediaSpan], media: Media) -> None:
    """Add what stands for ``media`` to the tokens of a prompt, and its spans by their places."""
    place = int.from_bytes(media.digest[:_DIGEST_BYTES]) << _PLACE_BITS
    number = 0
    for part in media.layout:
        if isinstance(part, SpanShape):
            spans[len(tokens)] = MediaSpan(media, number, part.tokens)
            number += 1
            tokens += range(-1 - place, -1 - place - part.tokens, -1)
            place += part.tokens
        else:
            tokens += part


class MediaReader:
    """For one model. Any thread."""

    def __init__(self, projector: Projector, make_run: MakeRun) -> None:
        self._projector = projector
        self._make_run = make_run
        self._layouts: BoundedCache[bytes, Layout] = BoundedCache(_LAYOUTS, 1 << 20)

    def read_all(
        self, files: Sequence[bytes], budget: PreparationBudget, owner: str
    ) -> list[Media]:
        """The images and recordings of one request. Whether a file is known shows in timings, so
        those of other owners are not.

        :raises OverBudget: files must be decoded, and the budget is quick.
        :raises BadRequest: one cannot be read, by us or by this model, or all take too long.
        """
        budget.charge_hashing(sum(map(len, files)))
        run = self._make_run(DECODE_S, _takes_too_long)
        salt = hashlib.sha256(owner.encode()).digest()
        return [self._read(file, salt, run, budget) for file in files]

    def _read(self, file: bytes, salt: bytes, run: Run, budget: PreparationBudget) -> Media:
        hashed = hashlib.sha256(salt)
        hashed.update(file)
        digest = hashed.digest()
        layout = self._layouts.get(digest)
        if layout is None:
            budget.allow_build()
            layout = run(lambda: self._layout(file))
            self._layouts.put(digest, layout, len(layout))
        return Media(file, digest, layout)

    def _layout(self, file: bytes) -> Layout:
        if len(file) > FILE_LIMIT_BYTES:
            raise BadRequest(f"an image or recording has more than {FILE_LIMIT_BYTES} bytes")
        shape = read_file(self._projector, file).shape
        _give_back_memory()
        try:
            return self._projector.layout(shape)
        except EngineError as error:
            raise BadRequest(str(error)) from None


def _takes_too_long(_reason: str) -> BadRequest:
    return BadRequest("decoding the images or recordings takes too much time or memory")


def read_file(projector: Projector, data: bytes) -> Pixels | Samples:
    """Pixels or samples.

    :raises BadRequest: the file is damaged, or not of a kind that the model reads.
    """
    from ollama_async.workers.child import images  # noqa: PLC0415  # 20 ms that few models need

    if audio.is_audio(data):
        if not projector.sample_rate:
            raise BadRequest("this model cannot hear: it takes images, but no recordings")
        try:
            samples = projector.decode_audio(audio.checked(data))
        except EngineError as error:
            raise BadRequest(str(error)) from None
        if len(samples) < projector.sample_rate * LEAST_AUDIO_S:  # the library aborts on nothing
            raise BadRequest("the recording is too short")
        if not (np.abs(samples) <= SAMPLE_LIMIT).all():  # false for NaN, too
            raise BadRequest("the recording has samples out of range")
        return samples
    if not images.is_image(data) and projector.sample_rate:
        pictures = f", {images.FORMATS}" if projector.sees else ""
        raise BadRequest(f"unknown format: this model takes WAV, MP3{pictures}")
    if not projector.sees:
        raise BadRequest("this model cannot see: it takes recordings, but no images")
    return images.read_image(data)


def _run_unlimited(action: Callable[[], T]) -> T:
    return action()


class MediaEncoder:
    """Makes embeddings. ``notify`` is called from its thread after each file.

    Requests hold at most :data:`AHEAD_BYTES` of them, and one file's more for each slot: none waits
    for another to be read. Files are decoded with ``run``, which accounts for their memory.
    """

    def __init__(
        self, projector: Projector, notify: Callable[[], None], run: Run = _run_unlimited
    ) -> None:
        self._projector = projector
        self._notify = notify
        self._run = run
        self._cache: BoundedCache[bytes, Sequence[SpanEmbeddings]] = BoundedCache(
            _LAYOUTS, CACHE_BYTES
        )
        self._changed = threading.Condition()
        # all by id(media)
        self._waiting: RoundRobin[int, Media] = RoundRobin()
        self._needed: frozenset[int] = frozenset()  # a prompt waits for them now
        self._held: dict[int, int] = {}  # bytes of embeddings
        self._held_bytes = 0
        self._encoding: Media | None = None
        self._is_closed = False

    # The step thread

    def request(self, media: Media, client: str) -> None:
        """Make its embeddings, unless they are cached. Does nothing if that was requested before,
        and they have not been freed since.
        """
        with self._changed:
            if media is self._encoding or id(media) in self._held or media.error:
                return
            cached = self._cache.get(media.digest)
            if cached is not None and self._held_bytes < AHEAD_BYTES:
                self._waiting.remove(id(media))
                self._hold(media, cached)
            elif id(media) not in self._waiting:
                self._waiting.put(client, id(media), media)
                self._changed.notify()

    def request_after(self, begin: int, spans: Mapping[int, MediaSpan], client: str) -> None:
        """:meth:`request` all that have a span at ``begin`` or after it in a prompt."""
        waited_for = {id(span.media): span.media for at, span in spans.items() if at >= begin}
        for media in waited_for.values():
            self.request(media, client)

    def set_needed(self, needed: Iterable[tuple[Media, str]]) -> None:
        """Prompts of these clients cannot go on without these, until the next call."""
        needed = list(needed)
        for media, client in needed:
            self.request(media, client)
        with self._changed:
            self._needed = frozenset(id(media) for media, _ in needed)
            self._changed.notify()

    def free_before(self, begin: int, spans: Mapping[int, MediaSpan]) -> None:
        """A prompt has been read up to ``begin``: free the embeddings that it does not need any
        more, and while there are too many, those that it needs again later.
        """
        read = {id(span.media): span.media for at, span in spans.items() if at < begin}
        needed = [id(each.media) for at, each in spans.items() if at + each.length > begin]
        with self._changed:
            for media in read.values():
                is_full = self._held_bytes > AHEAD_BYTES
                if id(media) not in (needed[:1] if is_full else needed):
                    self._free(media)

    def call_off(self, spans: Mapping[int, MediaSpan]) -> None:
        """Nobody waits for these any more. Files that are not being encoded yet are forgotten at
        once: a client that cancels must not fill the memory with them.
        """
        with self._changed:
            for span in spans.values():
                self._waiting.remove(id(span.media))
                self._free(span.media)
                if span.media is self._encoding:
                    self._encoding = None

    # The encoder's own thread

    def run(self) -> None:
        """Until :meth:`close`."""
        _yield_to_steps()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._next() is not None)
                if self._is_closed:
                    return
            self.encode_next()

    def encode_next(self) -> None:
        """What is to be encoded now, if there is anything."""
        with self._changed:
            media = self._encoding = self._next()
            if media is None:
                return
            self._waiting.take_item(id(media))
        embeddings = self._encode(media)
        with self._changed:
            if media is self._encoding and embeddings is not None:  # else called off, or failed
                self._hold(media, embeddings)
            self._encoding = None
        self._notify()

    def close(self) -> None:
        """Make :meth:`run` return after the file that it is encoding. Any thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _encode(self, media: Media) -> Sequence[SpanEmbeddings] | None:
        """The embeddings; None if that failed."""
        embeddings = self._cache.get(media.digest)
        if embeddings is None:
            try:
                data = self._run(lambda: read_file(self._projector, media.data))
                embeddings = self._projector.encode(data)
                _check(embeddings, media.layout)
            except (EngineError, BadRequest, MemoryError) as error:
                print(f"encoding an image or recording failed: {error!r}", file=sys.stderr)  # noqa: T201  # stderr is the log
                media.error = f"encoding the image or recording failed: {error}"
                return None
            _give_back_memory()
            self._cache.put(media.digest, embeddings, _size(embeddings))
        return embeddings

    # With the lock held

    def _next(self) -> Media | None:
        if self._held_bytes < AHEAD_BYTES:
            return next(self._waiting.heads(), None)
        return next((media for media in self._waiting if id(media) in self._needed), None)

    def _hold(self, media: Media, embeddings: Sequence[SpanEmbeddings]) -> None:
        media.embeddings = embeddings
        self._held[id(media)] = _size(embeddings)
        self._held_bytes += self._held[id(media)]

    def _free(self, media: Media) -> None:
        media.embeddings = ()
        self._held_bytes -= self._held.pop(id(media), 0)
        self._changed.notify()


def _size(embeddings: Sequence[SpanEmbeddings]) -> int:
    return sum(each.vectors.nbytes for each in embeddings)


_libc = ctypes.CDLL(None)


def _give_back_memory() -> None:
    """To the system: freed buffers of large images would stay with the process."""
    if hasattr(_libc, "malloc_trim"):  # not every C library has it
        _libc.malloc_trim(0)


def _yield_to_steps() -> None:
    """Give this thread, and those that the library starts for it, a lower priority."""
    thread = threading.get_native_id()
    priority = os.getpriority(os.PRIO_PROCESS, thread)
    os.setpriority(os.PRIO_PROCESS, thread, priority + NICENESS)


def _check(embeddings: Sequence[SpanEmbeddings], layout: Layout) -> None:
    """:raises EngineError: they are not those that were counted."""
    counted = [part for part in layout if isinstance(part, SpanShape)]
    if [SpanShape(len(each.vectors), each.positions) for each in embeddings] != counted:
        raise EngineError("the library made other embeddings than it had announced")
