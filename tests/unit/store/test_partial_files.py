"""Blobs on their way in: what survives, what is not believed, who may write."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.core.errors import StorageFailed
from ollama_async.store import partial_files as partial_module
from ollama_async.store.blobs import Blobs
from ollama_async.store.partial_files import PartialFile, partial_path, received_bytes

DATA = bytes(range(256)) * 4
SIZE = len(DATA)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path)


@pytest.fixture
def claim(blobs):
    """Claim the partial of :data:`DATA`; closed in the end."""
    claimed = []

    def claim(total=SIZE, chunk_bytes=100):
        partial = PartialFile.claim(blobs, DIGEST, total, chunk_bytes)
        claimed.append(partial)
        return partial

    yield claim
    for partial in claimed:
        if partial is not None:
            partial.close()


def fill(partial, *indexes):
    for chunk in partial.chunks:
        if not indexes or chunk.index in indexes:
            partial.write(chunk, DATA[chunk.start + chunk.received : chunk.end])


def digest_of(partial):
    while partial.unhashed:
        assert partial.hash_more()
    return partial.found_digest


def test_what_is_complete_becomes_the_blob(blobs, claim):
    partial = claim()
    assert [chunk.end - chunk.start for chunk in partial.chunks] == [100] * 10 + [24]
    fill(partial)
    assert digest_of(partial) == DIGEST
    assert not blobs.has(DIGEST)
    partial.publish()
    assert blobs.path(DIGEST).read_bytes() == DATA
    assert blobs.path(DIGEST).stat().st_mode & 0o777 == 0o644
    assert [path.name for path in blobs.folder.iterdir()] == [DIGEST.replace(":", "-")]


def test_what_was_written_is_there_for_the_next_one(blobs, claim):
    partial = claim()
    fill(partial, 1, 10)
    partial.write(partial.chunks[0], DATA[:30])
    partial.close()
    assert received_bytes(blobs, DIGEST, len(DATA)) == 154

    again = claim(chunk_bytes=7)  # as begun
    assert again.is_resumed
    assert again.received == 154
    assert [chunk.missing for chunk in again.chunks[:3]] == [70, 0, 100]
    fill(again)
    assert digest_of(again) == DIGEST


def test_one_at_a_time(blobs, claim):
    first = claim()
    assert claim() is None
    first.close()
    second = claim()
    fill(second)
    second.publish()
    third = claim()  # its caller looks for the blob, now that it has the lock
    assert third.received == 0
    assert blobs.path(DIGEST).read_bytes() == DATA


def test_what_was_discarded_is_gone_also_for_who_waits(blobs, claim):
    first = claim()
    fill(first)
    first.discard()
    assert not partial_path(blobs, DIGEST).exists()
    assert claim().received == 0


def test_another_size_begins_anew(blobs, claim):
    partial = claim()
    fill(partial)
    partial.close()
    again = claim(total=len(DATA) + 1)
    assert (again.received, again.is_resumed) == (0, False)
    assert received_bytes(blobs, DIGEST, len(DATA)) == 0


@settings(deadline=None)  # disks may be busy
@given(st.data())
def test_a_damaged_partial_file_is_rejected(tmp_path_factory, data):
    blobs = Blobs(tmp_path_factory.mktemp("store"))
    partial = PartialFile.claim(blobs, DIGEST, len(DATA), 100)
    fill(partial, 1, 2)
    partial.close()
    path = partial_path(blobs, DIGEST)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(data.draw(st.integers(0, size + 20)))
        file.seek(data.draw(st.integers(len(DATA) - 10, size)))
        file.write(data.draw(st.binary(max_size=40)))

    again = PartialFile.claim(blobs, DIGEST, len(DATA), 100)
    assert again.total == len(DATA)
    assert all(0 <= chunk.received <= chunk.end - chunk.start for chunk in again.chunks)
    assert [chunk.start for chunk in again.chunks[1:]] == [chunk.end for chunk in again.chunks[:-1]]
    again.restart()
    fill(again)
    assert digest_of(again) == DIGEST
    again.discard()


def test_very_large_blobs_have_larger_chunks(claim):
    partial = claim(total=1 << 40, chunk_bytes=1)  # sparse: no bytes are written
    assert len(partial.chunks) == 1024
    assert partial.chunks[-1].end == 1 << 40


def test_an_empty_blob(blobs):
    digest = f"sha256:{hashlib.sha256(b'').hexdigest()}"
    partial = PartialFile.claim(blobs, digest, 0, 100)
    assert partial.chunks == []
    assert digest_of(partial) == digest
    partial.publish()
    assert blobs.path(digest).read_bytes() == b""


def test_on_a_full_disk_only_written_bytes_are_counted(claim, monkeypatch):
    partial = claim()

    def no_space(_descriptor, _data, _offset):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(partial_module.os, "pwrite", no_space)
        with pytest.raises(StorageFailed, match="no space left on the disk of the model store"):
            partial.write(partial.chunks[0], DATA[:100])
    assert partial.received == 0
    fill(partial)
    assert digest_of(partial) == DIGEST


def test_a_link_in_the_place_of_the_file_is_not_followed(blobs, claim, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    blobs.folder.mkdir()
    partial_path(blobs, DIGEST).symlink_to(victim)
    with pytest.raises(StorageFailed):
        claim()
    assert victim.read_text() == "precious"
