"""Messages as bytes: frames of one message each, one behind the other.

::

    offset  size  what
    0       1     frame layout's version, 1
    1       4     length of the message in bytes, little-endian
    5       n     the message, msgpack (see :mod:`.messages`)

A frame may be larger than the ring that carries it, and may arrive in parts of any size. The frame
version belongs to these five bytes; what the messages mean is versioned by ``Hello.protocol``, so
that a side can still say whom it refuses.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import msgspec

FRAME_VERSION = 1
HEADER = struct.Struct("<BI")

TO_CHILD_LIMIT_BYTES = 256 << 20
"""Requests carry pictures. One that is larger is refused where it is sent."""

TO_PARENT_LIMIT_BYTES = 16 << 20
"""Answers are small; the largest are lists of tokens. A worker that announces more is broken, and
must not make the gateway hold memory for it."""

M = TypeVar("M")


class FrameCorrupt(Exception):
    """These bytes are no frames that we understand; nothing after them can be found either."""


class FrameTooLarge(ValueError):
    """A message that the other side would refuse; nothing of it was sent."""


def encode(messages: Iterable[msgspec.Struct], *, limit_bytes: int) -> bytearray:
    """All messages as frames, in order.

    :raises FrameTooLarge: one of them is longer than ``limit_bytes``.
    """
    data = bytearray()
    encoder = msgspec.msgpack.Encoder()
    for message in messages:
        start = len(data)
        encoder.encode_into(message, data, start + HEADER.size)
        length = len(data) - start - HEADER.size
        if length > limit_bytes:
            raise FrameTooLarge(f"message of {length} bytes, the limit is {limit_bytes}")
        HEADER.pack_into(data, start, FRAME_VERSION, length)
    return data


class FrameReader(Generic[M]):
    """Puts the parts of a stream together again; holds at most one frame's bytes plus one part.

    ``kind`` is the union of messages that may come.
    """

    def __init__(self, kind: Any, *, limit_bytes: int) -> None:
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(kind)
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._held_bytes = 0
        self._needed_bytes = HEADER.size

    def feed(self, part: bytes) -> list[M]:
        """The messages that ``part`` completes, in order.

        A frame that comes in many parts is joined once, when its last part is there.

        :raises FrameCorrupt: wrong version, too long, or no message of ours. What came before the
            fault in the same part is lost with it.
        """
        self._parts.append(part)
        self._held_bytes += len(part)
        if self._held_bytes < self._needed_bytes:
            return []
        data = part if len(self._parts) == 1 else b"".join(self._parts)
        messages: list[M] = []
        at = self._decode_all(data, messages)
        self._parts = [data[at:]]
        self._held_bytes = len(data) - at
        return messages

    def _decode_all(self, data: bytes, messages: list[M]) -> int:
        """Append every complete message of ``data``; return where the incomplete rest begins."""
        at, end, view = 0, len(data), memoryview(data)
        unpack, decode = HEADER.unpack_from, self._decoder.decode
        while end - at >= HEADER.size:
            version, length = unpack(data, at)
            if version != FRAME_VERSION:
                raise FrameCorrupt(f"frame version {version}, expected {FRAME_VERSION}")
            if length > self._limit_bytes:
                raise FrameCorrupt(f"frame of {length} bytes, the limit is {self._limit_bytes}")
            start = at + HEADER.size
            if end - start < length:
                self._needed_bytes = HEADER.size + length
                return at
            try:
                messages.append(decode(view[start : start + length]))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as reason:
                raise FrameCorrupt(f"no message: {reason}") from reason
            at = start + length
        self._needed_bytes = HEADER.size
        return at
