"""Decodes images: PNG, JPEG, WebP, GIF (its first frame) and BMP, whatever their names say.

An image is hostile: a few bytes may claim billions of pixels. The format is recognized by its first
bytes, and only that decoder sees it. Sizes are checked before anything is decoded; what takes long
regardless is interrupted by the caller (:mod:`.resource_limits`). ADR 8 says why Pillow.

Transparent pixels are shown on white, and a photograph is turned as its camera says. Ollama ignores
both: text on transparent ground comes out black on black, and portraits lie on their side.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.engines.engine import Pixels

_MEGA = 1 << 20
PIXELS_LIMITS = {
    "JPEG": 64 * _MEGA,
    "PNG": 32 * _MEGA,
    "GIF": 32 * _MEGA,
    "BMP": 32 * _MEGA,
    "WebP": 16 * _MEGA,
}
"""Of an image as it is stored, so that decoding takes 200 MB. A large JPEG is decoded at half its
size; the largest cameras of telephones have 50 million pixels in ordinary use."""

PROGRESSIVE_LIMIT = 32 * _MEGA
"""The coefficients of such a JPEG are all in memory at once."""

KEPT_PIXELS = 16 << 20
"""Larger images are reduced at once. No model reads more."""

SIDE_LIMIT = 1 << 15
RATIO_LIMIT = 200
"""Of the longer side to the shorter one. Beyond that, models have no place for a part of it."""

SCANS_LIMIT = 2 << 30
"""Pixels of a JPEG times its scans: each may take a few bytes, and goes through the whole image."""

FORMATS = "PNG, JPEG, WebP, GIF and BMP"

Opener = Callable[[io.BytesIO], ImageFile.ImageFile]

_FORMATS: tuple[tuple[str, bytes, bytes, Opener], ...] = (
    ("PNG", b"\x89PNG\r\n\x1a\n", b"", PngImagePlugin.PngImageFile),
    ("JPEG", b"\xff\xd8\xff", b"", JpegImagePlugin.JpegImageFile),
    ("WebP", b"RIFF", b"WEBP", WebPImagePlugin.WebPImageFile),
    ("GIF", b"GIF87a", b"", GifImagePlugin.GifImageFile),
    ("GIF", b"GIF89a", b"", GifImagePlugin.GifImageFile),
    ("BMP", b"BM", b"", BmpImagePlugin.BmpImageFile),
)
"""Name, first bytes, bytes from the eighth on, decoder."""

_SCAN = b"\xff\xda"
_MOST = 255  # in 8 bits

warnings.filterwarnings("ignore", module=r"PIL\.")  # about the image; it is used or refused


def read_image(data: bytes) -> Pixels:
    """:raises BadRequest: it is no image of these formats, is damaged, or is over a limit."""
    name, opener = _recognize(data)
    try:
        with opener(io.BytesIO(data)) as image:
            limit = PIXELS_LIMITS[name]
            if "progressive" in image.info:
                limit = min(limit, PROGRESSIVE_LIMIT)
            _check_size(image.size, limit)
            if name == "JPEG":
                _check_scans(data, image)
                image.draft("RGB", _reduced(image.size))
            image.load()
            _check_size(image.size, limit)  # a frame may be larger than the header said
            return _pixels(image)
    except BadRequest:
        raise
    except Exception as error:  # noqa: BLE001  # decoders raise whatever comes to their mind
        raise BadRequest(f"the {name} image cannot be decoded: {_reason(error)}") from None


def is_image(data: bytes) -> bool:
    """Whether it begins like one of the formats."""
    return _format_of(data) is not None


def _recognize(data: bytes) -> tuple[str, Opener]:
    found = _format_of(data)
    if found is None:
        raise BadRequest(f"unknown image format: {FORMATS} can be read")
    return found


def _format_of(data: bytes) -> tuple[str, Opener] | None:
    for name, first, eighth, opener in _FORMATS:
        if data.startswith(first) and data[8 : 8 + len(eighth)] == eighth:
            return name, opener
    return None


def _check_size(size: tuple[int, int], limit: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise BadRequest("the image has no pixels")
    shown = f"the image has {width} x {height} pixels"
    if width * height > limit:
        raise BadRequest(f"{shown}, more than {limit} in all")
    if max(width, height) > SIDE_LIMIT:
        raise BadRequest(f"{shown}, more than {SIDE_LIMIT} on a side")
    if max(width, height) > RATIO_LIMIT * min(width, height):
        raise BadRequest(f"{shown}; one side is more than {RATIO_LIMIT} times the other")


def _check_scans(data: bytes, image: Image.Image) -> None:
    if data.count(_SCAN) * image.width * image.height > SCANS_LIMIT:
        raise BadRequest("the JPEG image has too many scans for its size")


def _factor(size: tuple[int, int]) -> int:
    factor = 1
    while size[0] * size[1] > KEPT_PIXELS * factor * factor:
        factor += 1
    return factor


def _reduced(size: tuple[int, int]) -> tuple[int, int]:
    factor = _factor(size)
    return max(1, size[0] // factor), max(1, size[1] // factor)


def _pixels(image: Image.Image) -> Pixels:
    if image.mode.startswith(("I", "F")):
        image = _with_8_bits(image)
    has_alpha = image.has_transparency_data
    if image.mode not in {"L", "RGB", "RGBA", "CMYK"}:
        image = image.convert("RGBA" if has_alpha else "RGB")
    elif has_alpha and image.mode != "RGBA":  # a colour of it is transparent
        image = image.convert("RGBA")
    if (factor := _factor(image.size)) > 1:
        image = image.reduce(factor)
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))


def _with_8_bits(image: Image.Image) -> Image.Image:
    """Of 16: the conversion of the library cuts large values off instead."""
    values = np.asarray(image)
    scale = 257 if values.max(initial=0) > _MOST else 1
    scaled = np.clip(values // scale, 0, _MOST)  # stays of integers, with a quarter of the bytes
    return Image.fromarray(scaled.astype(np.uint8))


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, OSError | SyntaxError | ValueError) else ""
    return text[:200] or "it is damaged"
