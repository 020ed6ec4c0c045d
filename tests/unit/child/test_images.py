"""Decoding of images: the five formats, what is seen of them, and hostile files."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.errors import BadRequest
from tests.media_files import image_file, noise

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
GRADIENT = np.linspace(0, 255, 40 * 30 * 3).reshape(30, 40, 3).astype(np.uint8)


@pytest.fixture(scope="module")
def images():
    from ollama_async.workers.child import images  # imported with the first image

    return images


@pytest.fixture(scope="module")
def pillow():
    from PIL import Image  # the same

    return Image


@pytest.fixture(scope="module")
def read(images):
    return images.read_image


def saved(image, form, **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def png(width, height, *chunks, depth=8, kind=2):
    """A PNG of any size, with these chunks after its header."""
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_pixels_arrive_unchanged(read, form):
    assert np.array_equal(read(image_file(noise(), form)), noise())


@pytest.mark.parametrize(
    ("form", "options"), [("JPEG", {"quality": 95}), ("WEBP", {}), ("GIF", {})]
)
def test_pixels_are_about_the_same(read, form, options):
    difference = read(image_file(GRADIENT, form, **options)).astype(int) - GRADIENT
    assert np.abs(difference).mean() < 8


def test_the_first_frame_of_an_animation_counts(read, pillow):
    frames = [pillow.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG"):
        data = saved(frames[0], form, save_all=True, append_images=frames[1:])
        red, _, blue = read(data)[4, 4]
        assert red - blue > 200


@pytest.mark.parametrize(
    ("mode", "form"), [("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("RGBA", "WEBP")]
)
def test_transparent_pixels_are_white(read, pillow, mode, form):
    image = pillow.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    data = saved(image, form, **({"transparency": 0} if mode == "P" else {}))
    assert (read(data) == 255).all()


def test_half_transparent_pixels_are_mixed(read, pillow):
    data = saved(pillow.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG")
    assert read(data)[0, 0].tolist() == [255, 127, 127]


def test_a_photograph_is_turned_as_its_camera_says(read, pillow):
    exif = pillow.Exif()
    exif[0x0112] = 6  # the top of the scene is on the right
    data = saved(pillow.fromarray(GRADIENT), "JPEG", quality=95, exif=exif)
    assert read(data).shape == (40, 30, 3)


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "I;16", "YCbCr"])
def test_other_kinds_of_pixels_are_read(read, pillow, mode):
    if mode == "I;16":
        image = pillow.fromarray((GRADIENT[..., 0].astype(np.uint16)) * 257)
        assert np.array_equal(read(saved(image, "PNG"))[..., 1], GRADIENT[..., 0])
        return
    image = pillow.fromarray(GRADIENT).convert(mode)
    data = saved(
        image,
        "JPEG" if mode in {"CMYK", "YCbCr"} else "PNG",
        **({} if mode in {"1", "L"} else {"quality": 95}),
    )
    expected = np.asarray(pillow.fromarray(GRADIENT).convert(mode).convert("RGB"), int)
    assert np.abs(read(data) - expected).mean() < 8


def test_large_images_are_reduced(images, monkeypatch):
    monkeypatch.setattr(images, "KEPT_PIXELS", 500)
    for form in FORMATS:
        height, width, _ = images.read_image(image_file(noise(width=100, height=50), form)).shape
        assert width * height <= 500
        assert abs(width / height - 2) < 0.4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"II*\0",
        b"<svg/>",
        b"\0\0\1\0",
        b"8BPS",
        b"%PDF-1.4",
        b"RIFF\0\0\0\0WAVE",
        b"P6 1 1 255",
    ],
)
def test_other_formats_are_refused(read, data):
    with pytest.raises(BadRequest, match="unknown image format: PNG, JPEG, WebP, GIF and BMP"):
        read(data)


@pytest.mark.parametrize(
    "size", [(100_000, 100_000), (40_000, 10), (1, 201), (201, 1), (9000, 9000)]
)
def test_bombs_are_refused_before_they_are_decoded(read, size):
    width, height = size
    gif_size = struct.pack("<HH", min(width, 65535), min(height, 65535))
    bmp_head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    for data in (
        png(*size, (b"IDAT", zlib.compress(b""))),
        b"GIF89a" + gif_size + b"\0\0\0,\0\0\0\0" + gif_size + b"\0\2\2L\1\0;",
        b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + bmp_head,
    ):
        with pytest.raises(BadRequest, match="the image has"):
            read(data)


def test_limits_depend_on_what_decoding_takes(images, monkeypatch):
    monkeypatch.setattr(images, "PROGRESSIVE_LIMIT", 1000)
    assert images.read_image(image_file(noise(), "JPEG")).shape == (30, 40, 3)
    with pytest.raises(BadRequest, match="more than 1000 in all"):
        images.read_image(image_file(noise(), "JPEG", progressive=True))
    monkeypatch.setitem(images.PIXELS_LIMITS, "WebP", 1100)
    with pytest.raises(BadRequest, match="more than 1100 in all"):
        images.read_image(image_file(noise(), "WEBP"))


def test_a_size_of_zero_is_refused(read):
    with pytest.raises(BadRequest):
        read(png(0, 10))


def test_texts_that_expand_are_refused(read):
    bomb = (b"zTXt", b"a\0\0" + zlib.compress(bytes(8 << 20)))
    data = png(1, 1, bomb, (b"IDAT", zlib.compress(bytes(4))))
    with pytest.raises(BadRequest, match="cannot be decoded"):
        read(data)


def test_a_jpeg_of_endless_scans_is_refused(read):
    data = image_file(noise(width=2000, height=2000), "JPEG", progressive=True, quality=10)
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(BadRequest, match="too many scans"):
        read(data[:-2] + scan[:40] * 600 + data[-2:])


@pytest.mark.parametrize("form", FORMATS)
def test_truncated_files_are_refused(read, form):
    data = image_file(noise(), form)
    for size in (*range(0, 64, 7), len(data) // 2, len(data) - 40):
        with pytest.raises(BadRequest):
            read(data[:size])


@given(
    form=st.sampled_from(FORMATS),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=12),
)
def test_damaged_files_give_pixels_or_an_error(read, form, edits):
    data = bytearray(image_file(noise(width=12, height=9), form))
    for place, content in edits:
        at = int(place * len(data))
        data[at : at + len(content)] = content
    try:
        pixels = read(bytes(data))
    except BadRequest:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3


def test_sixteen_bits_take_no_multiple_of_the_memory(read, pillow):
    """The largest images have 64 million pixels, and a request half a gigabyte."""
    side = 600
    values = np.arange(side * side, dtype=np.uint32).reshape(side, side) % 65_536
    file = saved(pillow.fromarray(values.astype(np.uint16)), "PNG")
    tracemalloc.start()
    try:
        pixels = read(file)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 12 * side * side
    assert np.array_equal(pixels[..., 0], values // 257)
