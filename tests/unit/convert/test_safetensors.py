"""The reader of safetensors: what is sound is read exactly, what lies is refused."""

import contextlib
import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.convert.safetensors import Safetensors
from ollama_async.core.errors import BadRequest

ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def write(path, header, data=bytes(16)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def opened(path):
    return Safetensors(path, "model.safetensors")


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("F64", np.array([[1.5, -2], [0, 256]], "<f8")),
        ("F32", np.array([[1.5, -2], [0, 256]], "<f4")),
        ("F16", np.array([[1.5, -2], [0, 256]], "<f2")),
        ("BF16", np.array([[0x3FC0, 0xC000], [0, 0x4380]], "<u2")),
    ],
)
def test_numbers_of_every_type_are_read_as_32_bits(tmp_path, dtype, stored):
    entry = {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, stored.nbytes]}
    with opened(write(tmp_path / "file", {"t": entry}, stored.tobytes())) as file:
        assert file.read("t").dtype == np.float32
        assert file.read("t").tolist() == [[1.5, -2], [0, 256]]
        assert file.read("t", 1).tolist() == [[0, 256]]
        assert file.read("t", 0, 1).tolist() == [[1.5, -2]]
        assert file.read("t", 2).shape == (0, 2)


def test_metadata_scalars_and_empty_tensors(tmp_path):
    header = {
        "__metadata__": {"format": "pt"},
        "one": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
        "none": {"dtype": "F32", "shape": [0, 3], "data_offsets": [4, 4]},
    }
    with opened(write(tmp_path / "file", header, struct.pack("<f", 7))) as file:
        assert file.tensors.keys() == {"one", "none"}
        assert file.read("one") == np.float32(7)
        assert file.read("none").shape == (0, 3)


def test_an_unsupported_type_is_an_error_only_when_read(tmp_path):
    header = {
        "ids": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
        "new": {"dtype": "F4", "shape": [3], "data_offsets": [8, 10]},
    }
    with opened(write(tmp_path / "file", header)) as file:
        for name in header:
            with pytest.raises(BadRequest, match="only F64, F32, F16 and BF16"):
                file.read(name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data_offsets": [0, 17]}, "past the end"),
        ({"data_offsets": [8, 24], "shape": [4]}, "past the end"),
        ({"data_offsets": [8, 0]}, "past the end"),
        ({"data_offsets": [-16, 0]}, "past the end"),
        ({"data_offsets": [0, (1 << 64) - 1]}, "past the end"),
        ({"data_offsets": [0]}, "header is invalid"),
        ({"shape": [2, 3]}, "does not match"),
        ({"shape": [1 << 40, 1 << 40]}, "does not match"),
        ({"shape": [-2, -2]}, "impossible shape"),
        ({"shape": [1] * 9}, "impossible shape"),
        ({"shape": "no"}, "header is invalid"),
        ({"dtype": 5}, "header is invalid"),
    ],
)
def test_an_inconsistent_entry_is_rejected(tmp_path, change, reason):
    with pytest.raises(BadRequest, match=reason):
        opened(write(tmp_path / "file", {"t": ENTRY | change}))


def test_tensors_that_overlap_are_refused(tmp_path):
    other = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}
    with pytest.raises(BadRequest, match="overlaps"):
        opened(write(tmp_path / "file", {"t": ENTRY, "u": other}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 1 << 63),
        struct.pack("<Q", 3) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"no",
        struct.pack("<Q", 60_000) + b'{"a":' + b"[" * 59_995,
        struct.pack("<Q", 20) + b'{"__metadata__": [] }',
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BadRequest, match=r'invalid safetensors file "model\.safetensors"'):
        opened(tmp_path / "file")


@pytest.mark.slow
def test_too_many_tensors_are_refused(tmp_path):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    with pytest.raises(BadRequest, match="at most 65536"):
        opened(write(tmp_path / "file", {str(number): entry for number in range(65537)}))


def test_a_header_over_the_limit_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(struct.pack("<Q", (16 << 20) + 1))
    os.truncate(path, 1 << 30)
    with pytest.raises(BadRequest, match="too long"):
        opened(path)


def test_a_device_is_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadRequest):
        opened(tmp_path / "pipe")


def test_a_file_that_shrinks_gives_an_error_and_not_a_crash(tmp_path):
    path = write(tmp_path / "file", {"t": ENTRY})
    with opened(path) as file:
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(BadRequest, match="ends too early"):
            file.read("t")


@settings(deadline=None)  # the disk may be busy
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(data)
    with contextlib.suppress(BadRequest):
        opened(path).close()


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=3),
        st.recursive(
            st.none() | st.integers(-20, 20) | st.sampled_from(["F32", "I8", "dtype"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.fixed_dictionaries({"dtype": inner, "shape": inner, "data_offsets": inner})
            ),
            max_leaves=6,
        ),
        max_size=3,
    )
)
def test_any_header_is_read_within_the_file_or_refused(tmp_path_factory, header):
    path = write(tmp_path_factory.getbasetemp() / "fuzzed", header)
    try:
        with opened(path) as file:
            for tensor in file.tensors.values():
                assert tensor.offset + tensor.size_bytes <= path.stat().st_size
    except BadRequest:
        pass
