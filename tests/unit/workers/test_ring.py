"""The ring compared with a deque, at every size and wrap, and with a hostile peer."""

import fcntl
import os
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ollama_async.workers.ring import HEADER_BYTES, MAGIC, Ring, RingCorrupt


class RingAgainstDeque(RuleBasedStateMachine):
    @initialize(capacity=st.integers(8, 40))
    def open_both_sides(self, capacity):
        self.writer = Ring.create(capacity)
        self.reader = Ring.attach(os.dup(self.writer.fd))
        self.model = deque()
        self.counter = 0

    @rule(size=st.integers(0, 60))
    def write(self, size):
        data = bytes((self.counter + i) % 251 for i in range(size))
        taken = self.writer.write(data)
        assert taken == min(size, self.writer.capacity - len(self.model))
        self.model.extend(data[:taken])
        self.counter += taken

    @rule(limit=st.integers(0, 60))
    def read(self, limit):
        expected = bytes(self.model.popleft() for _ in range(min(limit, len(self.model))))
        assert self.reader.read(limit) == expected

    @invariant()
    def both_sides_agree_on_what_waits(self):
        if hasattr(self, "model"):
            assert self.reader.readable() == len(self.model)
            assert self.writer.writable() == self.writer.capacity - len(self.model)

    def teardown(self):
        if hasattr(self, "model"):
            self.writer.close()
            self.reader.close()


TestRingAgainstDeque = RingAgainstDeque.TestCase
TestRingAgainstDeque.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.fixture
def pair():
    writer = Ring.create(16)
    reader = Ring.attach(os.dup(writer.fd))
    yield writer, reader
    writer.close()
    reader.close()


def poke(ring, offset, value):
    """Write a word of the header as a broken peer would."""
    os.pwrite(ring.fd, value.to_bytes(8, "little"), offset)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_object_can_be_written(pair, kind):
    writer, reader = pair
    for _ in range(5):  # five times eleven bytes wrap at every second write
        assert writer.write(kind(b"hello world")) == 11
        assert reader.read(100) == b"hello world"


def test_the_layout_is_as_documented(pair):
    writer, reader = pair
    writer.write(b"0123456789abcdef")
    reader.read(6)
    writer.write(b"XY")
    assert os.pread(writer.fd, 16, 0) == MAGIC + (16).to_bytes(8, "little")
    assert os.pread(writer.fd, 8, 64) == (18).to_bytes(8, "little")
    assert os.pread(writer.fd, 8, 128) == (6).to_bytes(8, "little")
    assert os.pread(writer.fd, 16, HEADER_BYTES) == b"XY23456789abcdef"


@given(st.integers(0, 2**64 - 1).filter(lambda index: not 5 <= index <= 16))
def test_an_impossible_write_index_is_corrupt_and_reads_nothing(index):
    writer = Ring.create(16)
    reader = Ring.attach(os.dup(writer.fd))
    try:
        writer.write(b"01234")
        reader.readable()  # has seen 5: it cannot go back
        poke(writer, 64, index)
        with pytest.raises(RingCorrupt, match="write index"):
            reader.read(100)
    finally:
        writer.close()
        reader.close()


@given(st.integers(0, 2**64 - 1).filter(lambda index: not 3 <= index <= 5))
def test_an_impossible_read_index_is_corrupt_and_writes_nothing(index):
    writer = Ring.create(16)
    reader = Ring.attach(os.dup(writer.fd))
    try:
        writer.write(b"01234")
        reader.read(3)
        writer.writable()  # has seen 3
        poke(writer, 128, index)
        with pytest.raises(RingCorrupt, match="read index"):
            writer.write(b"x")
    finally:
        writer.close()
        reader.close()


def test_a_peer_that_changes_our_own_index_changes_nothing(pair):
    writer, reader = pair
    writer.write(b"0123")
    poke(writer, 64, 0)
    writer.write(b"4567")
    assert reader.read(100) == b"01234567"
    poke(writer, 128, 0)
    writer.write(b"89")
    assert reader.read(100) == b"89"


def test_a_peer_that_changes_the_capacity_later_changes_nothing(pair):
    writer, reader = pair
    poke(writer, 8, 1 << 40)
    assert writer.write(b"x" * 100) == 16
    assert reader.read(1000) == b"x" * 16


@pytest.mark.parametrize("size", [0, HEADER_BYTES + 7, HEADER_BYTES + 17, 1 << 20])
def test_the_memory_can_neither_shrink_nor_grow(pair, size):
    with pytest.raises(PermissionError):
        os.ftruncate(pair[0].fd, size)


@pytest.mark.parametrize("capacity", [-1, 0, 7, (1 << 30) + 1])
def test_a_capacity_out_of_range_is_refused(capacity):
    with pytest.raises(ValueError, match="a ring holds"):
        Ring.create(capacity)


@given(st.integers(0, HEADER_BYTES + 15), st.binary(max_size=80))
def test_a_corrupted_ring_is_read_within_bounds_or_reported(offset, scribble):
    writer = Ring.create(16)
    reader = Ring.attach(os.dup(writer.fd))
    try:
        writer.write(b"0123456789")
        os.pwrite(writer.fd, scribble[: HEADER_BYTES + 16 - offset], offset)
        try:
            assert len(reader.read(100)) <= 16
        except RingCorrupt as reason:
            assert "write index" in str(reason)  # noqa: PT017  # it need not be raised
        try:
            assert writer.write(b"x" * 100) <= 16
        except RingCorrupt as reason:
            assert "read index" in str(reason)  # noqa: PT017  # as above
    finally:
        writer.close()
        reader.close()


def memfd(size, *, seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL, head=b""):
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.pwrite(fd, head, 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


@pytest.mark.parametrize(
    "make",
    [
        lambda: os.open("/dev/null", os.O_RDWR),
        lambda: memfd(HEADER_BYTES + 16, seals=0, head=MAGIC + (16).to_bytes(8, "little")),
        lambda: memfd(HEADER_BYTES + 7, head=MAGIC + (7).to_bytes(8, "little")),
        lambda: memfd(HEADER_BYTES + 16, head=MAGIC + (17).to_bytes(8, "little")),
        lambda: memfd(HEADER_BYTES + 16, head=b"OA-RING\x02" + (16).to_bytes(8, "little")),
        lambda: memfd(0),
    ],
    ids=["no memfd", "unsealed", "too small", "wrong capacity", "other version", "empty"],
)
def test_attaching_to_another_file_is_refused(make):
    fd = make()
    try:
        with pytest.raises(RingCorrupt):
            Ring.attach(fd)
    finally:
        os.close(fd)


def test_descriptors_are_closed_in_an_exec_and_by_close(pair):
    writer, _ = pair
    assert not os.get_inheritable(writer.fd)
    ring = Ring.create(8)
    fd = ring.fd
    ring.close()
    ring.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
