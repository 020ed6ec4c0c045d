"""Frames: golden bytes of this protocol, every split, every truncation, and invalid data."""

import importlib.util
import tracemalloc
import typing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.core.conversation import Usage
from ollama_async.workers import frames, messages
from ollama_async.workers.frames import FrameCorrupt, FrameReader, FrameTooLarge

_spec = importlib.util.spec_from_file_location(
    "golden_frames", Path(__file__).with_name("golden_frames.py")
)
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)

LIMIT = 1 << 20
CASES = [(messages.ToChild, *case) for case in golden.TO_CHILD] + [
    (messages.ToParent, *case) for case in golden.TO_PARENT
]
case = pytest.mark.parametrize(
    ("kind", "message", "frame"), CASES, ids=[type(message).__name__ for _, message, _ in CASES]
)


def text(number, text):
    return messages.Deltas([(number, text)])


@case
def test_each_message_has_exactly_these_bytes(kind, message, frame):
    data = bytes.fromhex(frame)
    assert bytes(frames.encode([message], limit_bytes=LIMIT)) == data
    assert FrameReader(kind, limit_bytes=LIMIT).feed(data) == [message]


def test_a_packed_inference_has_the_same_bytes():
    submits = [each for each, _ in golden.TO_CHILD if isinstance(each, messages.Submit)]
    packed = [
        messages.PackedSubmit(each.id, msgspec.Raw(msgspec.msgpack.encode(each.task)), each.client)
        for each in submits
    ]

    assert submits
    assert frames.encode(packed, limit_bytes=LIMIT) == frames.encode(submits, limit_bytes=LIMIT)


def test_the_golden_bytes_cover_every_message_and_this_protocol():
    assert messages.PROTOCOL == 8
    for kind, cases in (
        (messages.ToChild, golden.TO_CHILD),
        (messages.ToParent, golden.TO_PARENT),
    ):
        assert {type(message) for message, _ in cases} == set(typing.get_args(kind))


@case
def test_a_frame_cut_at_any_byte_gives_nothing_until_the_rest_comes(kind, message, frame):
    data = bytes.fromhex(frame)
    for cut in range(1, len(data)):
        reader = FrameReader(kind, limit_bytes=LIMIT)
        assert reader.feed(data[:cut]) == []
        assert reader.feed(data[cut:]) == [message]


@given(
    sizes=st.lists(st.integers(0, 300), max_size=12),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8),
)
def test_messages_survive_any_split_in_order(sizes, cuts):
    sent = [text(number, "x" * size) for number, size in enumerate(sizes)]
    data = bytes(frames.encode(sent, limit_bytes=LIMIT))
    reader = FrameReader(messages.ToParent, limit_bytes=LIMIT)
    received, at, turn = [], 0, 0
    while at < len(data):
        step = cuts[turn % len(cuts)]
        received += reader.feed(data[at : at + step])
        at, turn = at + step, turn + 1
    assert received == sent


@given(st.binary(min_size=1, max_size=200))
@settings(max_examples=300)
def test_garbage_is_corrupt_or_incomplete_and_nothing_else(data):
    reader = FrameReader(messages.ToParent, limit_bytes=LIMIT)
    try:
        received = reader.feed(data)
    except FrameCorrupt:
        return
    assert all(isinstance(message, msgspec.Struct) for message in received)


@given(st.binary(max_size=100))
@settings(max_examples=300)
def test_a_well_formed_frame_with_garbage_inside_is_corrupt_or_a_message(body):
    reader = FrameReader(messages.ToParent, limit_bytes=LIMIT)
    data = frames.HEADER.pack(frames.FRAME_VERSION, len(body)) + body
    try:
        (received,) = reader.feed(data)
    except FrameCorrupt:
        return
    assert isinstance(received, msgspec.Struct)


@pytest.mark.parametrize(
    "body",
    [
        "dd ffffffff",  # an array of four thousand million
        "92 a1 70 dd ffffffff",  # Deltas with as many items
        "92 a1 70 " + "91" * 5000,  # as deep as it gets
        "92 a4 6661696c 01",  # Failed without a code
        "94 a4 6661696c 01 a1 78 a2 c328",  # a text that is no UTF-8
        "92 a3 787878 01",  # an unknown tag
        "92 a3 63616e 07",  # a message for the other direction
        "",
    ],
)
def test_hostile_messages_are_corrupt(body):
    data = bytes.fromhex(body)
    reader = FrameReader(messages.ToParent, limit_bytes=LIMIT)
    with pytest.raises(FrameCorrupt, match="no message"):
        reader.feed(frames.HEADER.pack(1, len(data)) + data)


def test_another_frame_version_is_corrupt():
    reader = FrameReader(messages.ToParent, limit_bytes=LIMIT)
    with pytest.raises(FrameCorrupt, match="frame version 2, expected 1"):
        reader.feed(bytes.fromhex("02 05000000"))


def test_an_announced_length_over_the_limit_is_refused_before_its_bytes_come():
    reader = FrameReader(messages.ToParent, limit_bytes=100)
    with pytest.raises(FrameCorrupt, match="frame of 101 bytes, the limit is 100"):
        reader.feed(frames.HEADER.pack(1, 101))


def test_a_message_over_the_limit_is_refused_by_the_sender():
    with pytest.raises(FrameTooLarge, match="the limit is 10"):
        frames.encode([text(1, "x" * 100)], limit_bytes=10)


def test_a_frame_in_many_parts_is_joined_in_linear_time():
    """One megabyte byte by byte would take minutes if every part were added to one string."""
    sent = text(1, "x" * (1 << 20))
    data = bytes(frames.encode([sent], limit_bytes=2 << 20))
    reader = FrameReader(messages.ToParent, limit_bytes=2 << 20)
    parts = [data[at : at + 8] for at in range(0, len(data), 8)]
    received = [message for part in parts for message in reader.feed(part)]
    assert received == [sent]


@pytest.mark.slow
def test_a_frame_in_single_bytes_costs_little_more_than_its_size():
    size = 200 << 10
    reader = FrameReader(messages.ToParent, limit_bytes=LIMIT)
    data = bytes(frames.encode([text(1, "x" * size)], limit_bytes=LIMIT))
    tracemalloc.start()
    try:
        for at in range(len(data) - 1):
            assert reader.feed(data[at : at + 1]) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * size
    assert reader.feed(data[-1:]) == [text(1, "x" * size)]


@pytest.mark.parametrize(
    "message",
    [
        messages.Done(1, "stop", Usage(), list(range(60_000))),
        messages.Done(1, "stop", Usage(), [1 << 30] * 60_000, stop_string="x"),
    ],
)
def test_flat_messages_may_be_longer_than_others(message):
    limits = {"limit_bytes": 1000, "list_limit_bytes": LIMIT}
    data = bytes(frames.encode([message], **limits))
    for part in (1, 6, 11, len(data)):
        reader = FrameReader(messages.ToParent, **limits)
        assert [*reader.feed(data[:part]), *reader.feed(data[part:])] == [message]
    with pytest.raises(FrameTooLarge):
        frames.encode([message], limit_bytes=1000)


def test_other_messages_may_not_be_as_long():
    limits = {"limit_bytes": 1000, "list_limit_bytes": LIMIT}
    message = messages.Deltas([(1, "x" * 2000)])
    with pytest.raises(FrameTooLarge):
        frames.encode([message], **limits)
    data = bytes(frames.encode([message], limit_bytes=LIMIT))
    with pytest.raises(FrameCorrupt, match="the limit is 1000"):
        FrameReader(messages.ToParent, **limits).feed(data)
    cut = FrameReader(messages.ToParent, **limits)
    cut.feed(data[:5])
    with pytest.raises(FrameCorrupt, match="the limit is 1000"):
        cut.feed(data[5:])


def test_lists_in_messages_are_bounded_by_their_announced_length():
    announced = b"\x92\xa1p\xdd" + (messages.MAX_DELTAS + 1).to_bytes(4, "big")
    frame = frames.HEADER.pack(1, len(announced)) + announced
    with pytest.raises(FrameCorrupt, match="length <= 4096"):
        FrameReader(messages.ToParent, limit_bytes=LIMIT).feed(frame)
