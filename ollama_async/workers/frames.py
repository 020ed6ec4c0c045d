"""Frames: the bytes of messages in the ring, one message per frame.

::

    offset  size  what
    0       1     frame layout's version, 1
    1       4     length of the message in bytes, little-endian
    5       n     the message, msgpack (see :mod:`.messages`)

A frame may be larger than the ring, and may arrive in parts of any size. The frame version is that
of these five bytes. The messages' version is ``Hello.protocol``, so that a side can read the
version that it refuses.
"""

from __future__ import annotations

import contextlib
import gc
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import msgspec

FRAME_VERSION = 1
HEADER = struct.Struct("<BI")

TO_CHILD_LIMIT_BYTES = 256 << 20
"""Requests contain images. A larger one is refused by the sender."""

TO_PARENT_LIMIT_BYTES = 256 << 10
"""Bounds the gateway's buffers, and the time to decode nested values (30 ms)."""

TO_PARENT_LIST_LIMIT_BYTES = 6 << 20
"""For messages of one flat list or text, which decode quickly: see :data:`_FLAT`."""

_FLAT = (b"\xa4done",)
"""How those messages begin, after the byte with the number of fields."""

_TAG_END = 6
_PAUSE_COLLECTOR_FROM_BYTES = 16 << 10

M = TypeVar("M")


class FrameCorrupt(Exception):
    """Invalid frames; nothing after them can be decoded."""


class FrameTooLarge(ValueError):
    """The receiver would refuse the message; nothing was sent."""


def encode(
    messages: Iterable[msgspec.Struct], *, limit_bytes: int, list_limit_bytes: int = 0
) -> bytearray:
    """All messages as frames, in order.

    :raises FrameTooLarge: a message is longer than ``limit_bytes``, or a flat one longer than both
        limits.
    """
    data = bytearray()
    encoder = msgspec.msgpack.Encoder()
    for message in messages:
        start = len(data)
        encoder.encode_into(message, data, start + HEADER.size)
        length = len(data) - start - HEADER.size
        if length > limit_bytes:
            most = max(limit_bytes, list_limit_bytes if _is_flat(data, start + HEADER.size) else 0)
            if length > most:
                raise FrameTooLarge(f"message of {length} bytes, the limit is {most}")
        HEADER.pack_into(data, start, FRAME_VERSION, length)
    return data


class FrameReader(Generic[M]):
    """Decodes a stream of frames; buffers at most one frame plus one part.

    ``kind`` is the union of accepted messages; the limits are those of :func:`encode`.
    """

    def __init__(self, kind: Any, *, limit_bytes: int, list_limit_bytes: int = 0) -> None:
        self._list_limit_bytes = list_limit_bytes
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(kind)
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._needed_bytes = HEADER.size

    def feed(self, part: bytes) -> list[M]:
        """The messages that ``part`` completes, in order.

        :raises FrameCorrupt: wrong version, too long, or not a message. Earlier messages in the
            same part are lost.
        """
        data: bytes | bytearray = part
        if self._buffer:
            self._buffer += part  # one buffer: parts of one byte must not cost an object each
            data = self._buffer
        messages: list[M] = []
        at = self._decode_all(data, messages) if len(data) >= self._needed_bytes else 0
        if data is part:
            self._buffer += part[at:]
        else:
            del self._buffer[:at]
        return messages

    def _decode_all(self, data: bytes | bytearray, messages: list[M]) -> int:
        """Append the complete messages of ``data``; return the offset of the incomplete rest."""
        at, end = 0, len(data)
        unpack, decode = HEADER.unpack_from, self._decoder.decode
        with memoryview(data) as view:
            while end - at >= HEADER.size:
                version, length = unpack(data, at)
                start = at + HEADER.size
                if version != FRAME_VERSION:
                    raise FrameCorrupt(f"frame version {version}, expected {FRAME_VERSION}")
                if length > self._limit_bytes and not self._may_be_long(data, start, length):
                    raise FrameCorrupt(f"frame of {length} bytes, the limit is {self._limit_bytes}")
                if end - start < length:
                    self._needed_bytes = HEADER.size + length
                    return at
                try:
                    if length < _PAUSE_COLLECTOR_FROM_BYTES:
                        messages.append(decode(view[start : start + length]))
                    else:
                        with _collector_paused():
                            messages.append(decode(view[start : start + length]))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as reason:
                    raise FrameCorrupt(f"no message: {reason}") from None
                at = start + length
        self._needed_bytes = HEADER.size
        return at

    def _may_be_long(self, data: bytes | bytearray, start: int, length: int) -> bool:
        """Whether a frame over the limit may still be a flat one; without its tag, it may."""
        if length > self._list_limit_bytes:
            return False
        return len(data) - start < _TAG_END or _is_flat(data, start)


def _is_flat(data: bytes | bytearray, start: int) -> bool:
    return data[start + 1 : start + _TAG_END] in _FLAT


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Without repeated collections, messages of many small values decode five times as fast."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
