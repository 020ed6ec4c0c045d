from __future__ import annotations

import ctypes
import importlib.util
import struct
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.core.errors import BadRequest
from ollama_async.gguf.reader import Array, GgufHeader, LongText, read_header
from ollama_async.gguf.summary import summarize
from ollama_async.gguf.types import TENSOR_TYPES


def read(data: bytes) -> GgufHeader:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return read_header(Path(file.name))


def refusal(data: bytes) -> str:
    with pytest.raises(BadRequest) as caught:
        read(data)
    return caught.value.message


def test_a_good_header_is_read_whole(tiny_gguf: Any) -> None:
    data = tiny_gguf().numbers("x.layers", "u32", [1, 2]).build()
    header = read(data)
    assert header.metadata["general.name"] == "tiny"
    assert header.metadata["llama.block_count"] == 2
    assert header.metadata["tokenizer.ggml.tokens"] == Array(2)
    assert header.metadata["x.layers"] == Array(2, (1, 2))
    assert [(t.name, t.shape, t.elements, t.size, t.offset) for t in header.tensors] == [
        ("token_embd.weight", (32, 2), 64, 256, 0),
        ("output_norm.weight", (32,), 32, 128, 256),
    ]
    assert header.data_offset % 32 == 0
    assert header.data_offset + 384 == len(data)


def test_version_2_is_supported(gguf: Any) -> None:
    header = read(gguf(version=2).text("general.name", "old").build())
    assert header.metadata["general.name"] == "old"


def test_long_arrays_of_numbers_are_skipped(gguf: Any) -> None:
    data = gguf().numbers("x", "f32", [0.5] * 5000).text("after", "here").build()
    metadata = read(data).metadata
    assert metadata["x"] == Array(5000)
    assert metadata["after"] == "here"


def test_strings_longer_than_the_window_are_passed_over(gguf: Any) -> None:
    words = ["a" * 300_000, "", "b" * 131_072, *("c" * n for n in range(2000))]
    assert read(gguf().texts("x", words).text("after", "here").build()).metadata["after"] == "here"


@pytest.mark.slow
def test_every_truncation_is_refused(tiny_gguf: Any) -> None:
    data = tiny_gguf().build()
    for length in range(len(data)):
        assert refusal(data[:length])


def test_other_files_are_not_gguf(tmp_path: Path) -> None:
    assert refusal(b"") == "supplied file was not in GGUF format"
    assert refusal(b"PK\3\4 a zip") == "supplied file was not in GGUF format"
    assert refusal(b"GG") == "supplied file was not in GGUF format"
    with pytest.raises(BadRequest, match="not in GGUF"):
        read_header(tmp_path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "missing")


def test_big_endian_is_named(gguf: Any) -> None:
    assert "big-endian" in refusal(gguf(order=">").build())


@pytest.mark.parametrize("version", [0, 1, 4, 99])
def test_other_versions_are_refused(gguf: Any, version: int) -> None:
    assert f"version {version} is not supported" in refusal(gguf(version=version).build())


@pytest.mark.parametrize("count", [2**60, 2**64 - 1, 5000, 2**32])
def test_a_huge_count_of_pairs_is_refused(gguf: Any, count: int) -> None:
    builder = gguf()
    builder.pair_count = count
    assert f"{count} metadata pairs" in refusal(builder.build())


@pytest.mark.parametrize("count", [2**60, 2**64 - 1, 70_000])
def test_a_huge_count_of_tensors_is_refused(gguf: Any, count: int) -> None:
    builder = gguf()
    builder.tensor_count = count
    assert f"{count} tensors" in refusal(builder.build())


@pytest.mark.parametrize("length", [2**60, 2**63, 2**64 - 1, 10_000])
def test_a_string_past_the_end_is_refused(gguf: Any, length: int) -> None:
    assert "past the end" in refusal(gguf().raw("x", 8, struct.pack("<Q", length) + b"ab").build())
    key = struct.pack("<Q", length) + b"key"
    builder = gguf()
    builder.pairs.append(key)
    assert "past the end" in refusal(builder.build())


@pytest.mark.parametrize("length", [2**60, 2**64 - 1])
@pytest.mark.parametrize("kind", [0, 4, 8, 12])
def test_an_array_past_the_end_is_refused(gguf: Any, kind: int, length: int) -> None:
    builder = gguf().raw("x", 9, struct.pack("<IQ", kind, length))
    assert "end of the file" in (text := refusal(builder.build())) or "than the file" in text


def test_a_string_in_an_array_past_the_end_is_refused(gguf: Any) -> None:
    value = struct.pack("<IQQ", 8, 2, 2**64 - 1) + bytes(20)
    assert "past the end" in refusal(gguf().raw("x", 9, value).build())


def test_an_array_of_arrays_is_refused(gguf: Any) -> None:
    value = struct.pack("<IQ", 9, 1) * 2000
    assert "array of arrays" in refusal(gguf().raw("x", 9, value).build())


def test_a_long_key_and_a_long_tensor_name_are_refused(gguf: Any) -> None:
    assert "too long" in refusal(gguf().text("k" * 65_536, "").build())
    assert "too long" in refusal(gguf().tensor("n" * 64, [1], size=4).build())


def test_text_has_a_budget(gguf: Any) -> None:
    builder = gguf()
    for number in range(65):
        builder.text(f"x{number}", b"y" * (256 << 10))
    assert "too much text" in refusal(builder.build())


def test_keys_are_paid_from_the_same_budget(gguf: Any) -> None:
    builder = gguf()
    for number in range(300):
        builder.number(f"{number:03d}".ljust(65_000, "k"), "u8", 1)
    assert "too much text" in refusal(builder.build())


def test_a_long_text_is_passed_over(gguf: Any) -> None:
    metadata = read(gguf().text("x", b"y" * 1_000_000).text("after", "here").build()).metadata
    assert metadata["x"] == LongText(1_000_000)
    assert metadata["after"] == "here"


@pytest.mark.parametrize("alignment", [0, 3, 48, 2**32 - 1])
def test_an_alignment_that_is_no_power_of_two_is_refused(gguf: Any, alignment: int) -> None:
    data = gguf().number("general.alignment", "u32", alignment).build()
    assert f"alignment {alignment} is not a power of two" in refusal(data)


def test_an_alignment_of_another_type_is_refused(gguf: Any) -> None:
    assert "general.alignment" in refusal(gguf().text("general.alignment", "32").build())
    assert "general.alignment" in refusal(gguf().number("general.alignment", "i32", 32).build())


def test_another_alignment_is_obeyed(gguf: Any) -> None:
    builder = gguf().number("general.alignment", "u32", 128)
    builder.alignment = 128
    builder.tensor("a", [1], size=4).tensor("b", [1], size=4)
    assert [tensor.offset for tensor in read(builder.build()).tensors] == [0, 128]


def test_duplicates_are_refused(gguf: Any) -> None:
    assert "duplicate metadata key" in refusal(gguf().text("x", "").text("x", "").build())
    twice = gguf().tensor("t", [1], size=4).tensor("t", [1], size=4)
    assert "duplicate tensor" in refusal(twice.build())


def test_keys_are_utf8_and_values_may_be_broken(gguf: Any) -> None:
    assert "not UTF-8" in refusal(gguf().text(b"\xff", "").build())
    assert read(gguf().text("x", b"a\xff").build()).metadata["x"] == "a\ufffd"


def test_unknown_types_are_refused(gguf: Any) -> None:
    assert "unknown type 13" in refusal(gguf().raw("x", 13, bytes(8)).build())
    assert "unknown type 77" in refusal(gguf().raw("x", 9, struct.pack("<IQ", 77, 1)).build())
    for number in (4, 31, 36, 43, 2**32 - 1):
        assert f"unknown type {number}" in refusal(gguf().tensor("t", [32], number, size=4).build())


@pytest.mark.parametrize("shape", [[0], [2**63], [2**32, 2**32], [2**63, 2**63, 2**63, 2], [4, 0]])
def test_an_impossible_shape_is_refused(gguf: Any, shape: list[int]) -> None:
    assert "impossible shape" in refusal(gguf().tensor("t", shape, size=4).build())


def test_rows_are_whole_blocks(gguf: Any) -> None:
    assert "whole blocks of Q8_0" in refusal(gguf().tensor("t", [33], 8, size=68).build())
    assert "whole blocks of Q8_0" in refusal(gguf().tensor("t", [], 8, size=34).build())


def test_five_dimensions_are_refused(gguf: Any) -> None:
    assert "5 dimensions" in refusal(gguf().tensor("t", [1] * 5, size=4).build())


def test_tensors_lie_in_the_file(gguf: Any) -> None:
    for offset in (32, 2**62, 2**64 - 32):
        data = gguf().tensor("t", [8], size=32, offset=offset).build()
        assert "past the end" in refusal(data)
    assert "past the end" in refusal(gguf().tensor("t", [2**40], size=32).build())


def test_tensors_are_aligned(gguf: Any) -> None:
    assert "not aligned" in refusal(gguf().tensor("t", [1], size=64, offset=4).build())


def test_tensors_do_not_overlap(gguf: Any) -> None:
    apart = gguf().tensor("a", [16], size=64).tensor("b", [16], size=64)
    assert len(read(apart.build()).tensors) == 2
    same = gguf().tensor("a", [16], size=64).tensor("b", [16], size=64, offset=32)
    assert "overlaps" in refusal(same.build())


def test_a_header_with_false_counts_takes_little_memory(gguf: Any) -> None:
    data = gguf().raw("x", 9, struct.pack("<IQ", 8, 2**40) + bytes(2_000_000)).build()
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        tracemalloc.start()
        try:
            with pytest.raises(BadRequest):
                read_header(Path(file.name))
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()


@pytest.mark.slow
@settings(max_examples=150)
@given(data=st.data())
def test_a_mutated_header_gives_a_summary_or_a_clear_refusal(
    tiny_gguf: Any, data: st.DataObject
) -> None:
    raw = bytearray(tiny_gguf().numbers("x", "u32", [1, 2, 3]).build())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        patch = data.draw(
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from([struct.pack("<Q", n) for n in (0, 2**32, 2**60, 2**64 - 1)]),
                st.sampled_from([struct.pack("<I", n) for n in (0, 8, 9, 2**31, 2**32 - 1)]),
            )
        )
        raw[at : at + len(patch)] = patch
    try:
        header = read(bytes(raw))
    except BadRequest as refused:
        assert refused.message  # noqa: PT017  # either outcome is right
        return
    summary = summarize(header)
    assert 0 <= summary.weights_bytes <= len(raw)
    for tensor in header.tensors:
        assert header.data_offset + tensor.offset + tensor.size <= len(raw)


@given(st.binary(max_size=200))
def test_random_bytes_after_the_magic_are_refused_or_read(tail: bytes) -> None:
    try:
        read(b"GGUF\3\0\0\0" + tail)
    except BadRequest:
        return


@pytest.mark.engine
def test_type_sizes_are_those_of_the_native_library() -> None:
    spec = importlib.util.find_spec("llama_cpp")  # importing it would leave descriptors open
    assert spec is not None
    assert spec.origin is not None
    library = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libggml-base.so"))
    library.ggml_blck_size.restype = ctypes.c_int64
    library.ggml_type_size.restype = ctypes.c_size_t
    for number in range(max(TENSOR_TYPES) + 1):
        known = TENSOR_TYPES.get(number)
        ours = (known.block_elements, known.block_bytes) if known else (0, 0)
        assert ours == (library.ggml_blck_size(number), library.ggml_type_size(number)), number
