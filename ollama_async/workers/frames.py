"""Messages as bytes: frames of one message each, one behind the other.

::

    offset  size  what
    0       1     frame layout's version, 1
    1       4     length of the message in bytes, little-endian
    5       n     the message, msgpack (see :mod:`.messages`)

A frame may be larger than the ring that carries it, and may arrive in parts of any size. The frame
version belongs to these five bytes; what the messages mean is versioned by ``Hello.protocol``, so
that a side can still name the version that it refuses.
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
"""Requests carry images. A larger one is refused where it is sent."""

TO_PARENT_LIMIT_BYTES = 256 << 10
"""Answers are small. A worker that announces more is broken: the gateway must not hold memory for
it, nor decode nested values for more than some 30 ms."""

TO_PARENT_LIST_LIMIT_BYTES = 6 << 20
"""For messages of one flat list or one text, which decode quickly: see :data:`_FLAT`."""

_FLAT = (b"\xa4done", b"\xa4toks", b"\xa4text")
"""How those messages begin, after the byte with the number of fields."""

_TAG_END = 6
_PAUSE_COLLECTOR_FROM_BYTES = 16 << 10

M = TypeVar("M")


class FrameCorrupt(Exception):
    """These bytes are not valid frames; nothing after them can be found either."""


class FrameTooLarge(ValueError):
    """A message that the other side would refuse; nothing of it was sent."""


def encode(
    messages: Iterable[msgspec.Struct], *, limit_bytes: int, list_limit_bytes: int = 0
) -> bytearray:
    """All messages as frames, in order.

    :raises FrameTooLarge: one of them is longer than ``limit_bytes``, and than ``list_limit_bytes``
        if it is one of the flat ones.
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
    """Reassembles a stream from its parts; holds at most one frame's bytes plus one part.

    ``kind`` is the union of messages that may come; the limits are those of :func:`encode`.
    """

    def __init__(self, kind: Any, *, limit_bytes: int, list_limit_bytes: int = 0) -> None:
        self._list_limit_bytes = list_limit_bytes
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(kind)
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._needed_bytes = HEADER.size

    def feed(self, part: bytes) -> list[M]:
        """The messages that ``part`` completes, in order.

        A frame that comes in many parts is decoded once, when its last part is there.

        :raises FrameCorrupt: wrong version, too long, or not a message. What came before the
            fault in the same part is lost with it.
        """
        data: bytes | bytearray = part
        if self._buffer:
            self._buffer += part  # one buffer: parts of one byte each must cost no object each
            data = self._buffer
        messages: list[M] = []
        at = self._decode_all(data, messages) if len(data) >= self._needed_bytes else 0
        if data is part:
            self._buffer += part[at:]
        else:
            del self._buffer[:at]
        return messages

    def _decode_all(self, data: bytes | bytearray, messages: list[M]) -> int:
        """Append every complete message of ``data``; return where the incomplete rest begins."""
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
        """Whether the frame may have so many bytes; as long as its tag has not come, it may."""
        if length > self._list_limit_bytes:
            return False
        return len(data) - start < _TAG_END or _is_flat(data, start)


def _is_flat(data: bytes | bytearray, start: int) -> bool:
    return data[start + 1 : start + _TAG_END] in _FLAT


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """A message of many small values would trigger the garbage collector again and again, and take
    five times as long.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
