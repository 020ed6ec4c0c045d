"""Images and recordings as files, made where they are needed.

Pillow is imported by the functions, as in the package: with the first image.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray


def noise(seed: int = 0, width: int = 40, height: int = 30) -> NDArray[np.uint8]:
    """Pixels that are different for each seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def image_file(pixels: NDArray[np.uint8], form: str = "PNG", **options: Any) -> bytes:
    from PIL import Image  # see above

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def photo(seed: int = 0) -> bytes:
    """A file with an image of its own for each seed."""
    return image_file(noise(seed))


def tone(seconds: float = 1.0, *, rate: int = 16_000, hertz: float = 440.0) -> NDArray[np.float32]:
    times = np.arange(int(seconds * rate), dtype=np.float32) / rate
    return np.sin(2 * np.pi * hertz * times, dtype=np.float32)


def wav_file(samples: NDArray[Any], *, rate: int = 16_000, channels: int = 1) -> bytes:
    """16-bit PCM of samples between -1 and 1."""
    data = (np.clip(samples, -1, 1) * 32767).astype("<i2").repeat(channels).tobytes()
    return raw_wav_file(data, rate=rate, channels=channels)


def raw_wav_file(
    data: bytes,
    *,
    coding: int = 1,
    channels: int = 1,
    rate: int = 16_000,
    bits: int = 16,
    claimed: int | None = None,
) -> bytes:
    """``claimed``: the bytes of data that the header claims."""
    frame = channels * bits // 8
    head = struct.pack("<HHIIHH", coding, channels, rate, rate * frame % 2**32, frame, bits)
    size = len(data) if claimed is None else claimed
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", min(len(body) + size, 2**32 - 1)) + body + data


def mp3_file(frames: int = 40) -> bytes:
    """Silence: MPEG 1, layer 3, 128 kbit/s, 44,100 Hz; 26 ms a frame."""
    return (b"\xff\xfb\x90\x64" + bytes(413)) * frames
