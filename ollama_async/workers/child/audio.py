"""Checks recordings before the library decodes them: WAV and MP3, recognized by their content.

The library allocates what a header claims, and a failed allocation ends the process. So the header
of a WAV file is written anew, with the length that the data have, and the frames of an MP3 file are
counted. Only a plain sequence of frames is accepted, possibly with tags around it.
"""

from __future__ import annotations

import struct

from ollama_async.core.errors import BadRequest

SECONDS_LIMIT = 30 * 60
"""At 16,000 samples a second, 115 MB."""

_WAV_CODINGS = {1: (8, 16, 24, 32), 3: (32, 64), 6: (8,), 7: (8,)}
"""PCM, floats, A-law and µ-law: bits of a sample."""
_EXTENSIBLE = 0xFFFE
_CHANNELS_LIMIT = 32
_RATES = (1000, 384_000)

_TAG_HEADER = 10
_TRAILERS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3", b"3DI")
_PADDING_LIMIT = 64 << 10

_KBITS = {  # by version (1, or 2 and 2.5) and layer
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_RATES = (44_100, 48_000, 32_000)
_VERSION_2_5, _VERSION_2, _VERSION_1 = 0, 2, 3


def is_audio(data: bytes) -> bool:
    """Whether it begins like one of the formats."""
    return _is_wav(data) or data.startswith(b"ID3") or _frame_of(data, 0) is not None


def checked(data: bytes) -> bytes:
    """The recording in a form that is safe to decode.

    :raises BadRequest: it is damaged, in another format, or longer than :data:`SECONDS_LIMIT`.
    """
    return _rewritten_wav(data) if _is_wav(data) else _counted_mp3(data)


# ----------------------------------------------------------------- WAV


def _is_wav(data: bytes) -> bool:
    return data.startswith(b"RIFF") and data.startswith(b"WAVE", 8)


def _rewritten_wav(data: bytes) -> bytes:
    coding = channels = rate = bits = 0
    for name, content in _wav_chunks(data):
        if name == b"fmt " and len(content) >= 16:  # its fixed part
            coding, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", content)
            if coding == _EXTENSIBLE and len(content) >= 26:  # up to the coding
                coding = struct.unpack_from("<H", content, 24)[0]
        elif name == b"data":
            return _wav(coding, channels, rate, bits, content)
    raise BadRequest("the WAV recording has no data")


def _wav_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Up to the data, the last of which may be missing."""
    chunks = []
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        chunks.append((name, data[at + 8 : at + 8 + size]))
        if name == b"data":
            break
        at += 8 + size + size % 2
    return chunks


def _wav(coding: int, channels: int, rate: int, bits: int, samples: bytes) -> bytes:
    low, high = _RATES
    is_known = bits in _WAV_CODINGS.get(coding, ())
    if not (is_known and 1 <= channels <= _CHANNELS_LIMIT and low <= rate <= high):
        raise BadRequest("the WAV recording has an unknown coding")
    frame = channels * bits // 8
    frames = len(samples) // frame
    _check_length(frames / rate)
    samples = samples[: frames * frame]
    head = struct.pack("<HHIIHH", coding, channels, rate, rate * frame, frame, bits)
    body = b"WAVE" + _chunk(b"fmt ", head) + _chunk(b"data", samples)
    return _chunk(b"RIFF", body)


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _check_length(seconds: float) -> None:
    if seconds <= 0:
        raise BadRequest("the recording is empty")
    if seconds > SECONDS_LIMIT:
        raise BadRequest(f"the recording takes {seconds:.0f} s, more than {SECONDS_LIMIT}")


# ----------------------------------------------------------------- MP3


def _counted_mp3(data: bytes) -> bytes:
    """The frames, without tags."""
    begin = at = _first_frame(data)
    seconds = 0.0
    while (frame := _frame_of(data, at)) is not None:
        size, length_s = frame
        if at + size > len(data):
            break  # the last one was cut off
        at += size
        seconds += length_s
        if seconds > SECONDS_LIMIT:
            break
    _check_length(seconds)
    rest = data[at:]
    is_end = len(rest) < _PADDING_LIMIT and not rest.strip(b"\0")
    if not (is_end or rest.startswith(_TRAILERS) or _frame_of(data, at) is not None):
        raise BadRequest("the MP3 recording is damaged")
    return data[begin:at]


def _first_frame(data: bytes) -> int:
    """After a tag and zeros."""
    at = 0
    while data.startswith(b"ID3", at) and len(data) >= at + _TAG_HEADER:
        size = 0
        for byte in data[at + 6 : at + _TAG_HEADER]:
            size = size << 7 | byte & 0x7F
        at += _TAG_HEADER + size + (_TAG_HEADER if data[at + 5] & 0x10 else 0)
    zeros = data[at : at + _PADDING_LIMIT]
    return at + len(zeros) - len(zeros.lstrip(b"\0"))


def _frame_of(data: bytes, at: int) -> tuple[int, float] | None:
    """The bytes and the seconds of the frame there; None: there is none."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:  # eleven ones
        return None
    version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
    kbits, rate, padding = data[at + 2] >> 4, data[at + 2] >> 2 & 3, data[at + 2] >> 1 & 1
    if version == 1 or layer == 4 or kbits in (0, 15) or rate == 3:  # reserved
        return None
    is_first = version == _VERSION_1
    bits_per_s = _KBITS[1 if is_first else 2, layer][kbits - 1] * 1000
    per_s = _MP3_RATES[rate] // {_VERSION_1: 1, _VERSION_2: 2, _VERSION_2_5: 4}[version]
    if layer == 1:
        samples, size = 384, (12 * bits_per_s // per_s + padding) * 4
    else:
        samples = 1152 if layer == 2 or is_first else 576  # the layer
        size = samples // 8 * bits_per_s // per_s + padding
    return size, samples / per_s
