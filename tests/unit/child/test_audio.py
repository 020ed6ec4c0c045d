"""Checks of recordings: what reaches the library is what its header says."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child import audio
from tests.media_files import mp3_file, raw_wav_file, tone, wav_file

WAV = wav_file(tone(0.1))


def data_of(wav):
    """The samples that a decoder would find, by the header."""
    (size,) = struct.unpack_from("<I", wav, 40)
    assert len(wav) >= 44 + size
    return wav[44 : 44 + size]


def test_a_plain_recording_stays_as_it_is():
    assert audio.checked(WAV) == WAV
    assert audio.checked(mp3_file()) == mp3_file()


@pytest.mark.parametrize("claimed", [0xFFFFFFFF, 1 << 30, 3201])
def test_a_header_that_claims_too_much_is_written_anew(claimed):
    data = bytes(3200)
    assert data_of(audio.checked(raw_wav_file(data, claimed=claimed))) == data


def test_other_chunks_are_left_out():
    junk = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    given_ = WAV[:12] + junk + WAV[12:] + b"id3 \xff\xff\xff\xff"
    assert audio.checked(given_) == WAV


def test_half_a_sample_at_the_end_is_left_out():
    assert data_of(audio.checked(raw_wav_file(bytes(9), channels=2))) == bytes(8)


def test_an_extensible_header_is_a_plain_one():
    head = struct.pack("<HHIIHH", 0xFFFE, 1, 16_000, 32_000, 2, 16)
    head += struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + WAV[36:]
    assert audio.checked(b"RIFF" + struct.pack("<I", len(body)) + body) == WAV


@pytest.mark.parametrize(
    "damaged",
    [
        WAV[:44],
        WAV[:30],
        b"RIFF\0\0\0\0WAVE",
        raw_wav_file(bytes(32), coding=2),
        raw_wav_file(bytes(32), bits=0),
        raw_wav_file(bytes(32), channels=0),
        raw_wav_file(bytes(32), channels=4000),
        raw_wav_file(bytes(32), rate=0),
        raw_wav_file(bytes(32), rate=1 << 31),
        b"ID3\4\0\0\0\0\0\0",
        b"ID3",
        mp3_file(1)[:100],
        mp3_file(3) + b"and now something else entirely",
    ],
)
def test_damaged_recordings_are_refused(damaged):
    assert audio.is_audio(damaged)
    with pytest.raises(BadRequest, match="recording"):
        audio.checked(damaged)


def test_long_recordings_are_refused():
    samples = bytes(2 * 1000 * (audio.SECONDS_LIMIT + 1))
    with pytest.raises(BadRequest, match="more than 1800"):
        audio.checked(raw_wav_file(samples, rate=1000))
    with pytest.raises(BadRequest, match="more than 1800"):
        audio.checked(mp3_file(70_000))


def test_tags_around_frames_are_left_out():
    tag = b"ID3\4\0\0" + bytes([0, 0, 1, 5]) + bytes(133)
    for end in (b"", b"TAG" + bytes(125), bytes(500), mp3_file(1)[:200]):
        assert audio.checked(tag + mp3_file(5) + end) == mp3_file(5)


def test_a_frame_has_its_length():
    frames = {
        b"\xff\xfb\x90\x64": (417, 1152 / 44100),
        b"\xff\xfb\x92\x64": (418, 1152 / 44100),
        b"\xff\xf3\x84\xc4": (192, 576 / 24000),
        b"\xff\xe3\x18\xc4": (72, 576 / 8000),
        b"\xff\xfd\x80\x04": (417, 1152 / 44100),
        b"\xff\xff\x80\x04": (276, 384 / 44100),
    }
    for head, expected in frames.items():
        assert audio._frame_of(head, 0) == pytest.approx(expected)
    for head in (
        b"\xff\xd8\xff\xe0",
        b"\xff\xeb\x90\x64",
        b"\xff\xf9\x90\x64",
        b"\xff\xfb\xf0\x64",
        b"\xff",
    ):
        assert audio._frame_of(head, 0) is None


@given(
    st.sampled_from([WAV, mp3_file(4), b"ID3\4\0\0\0\0\0\4aaaa" + mp3_file(2)]),
    st.lists(st.tuples(st.integers(0, 60), st.binary(min_size=1, max_size=6)), max_size=8),
)
def test_what_is_accepted_is_consistent(data, edits):
    changed = bytearray(data)
    for at, content in edits:
        changed[at : at + len(content)] = content
    with contextlib.suppress(BadRequest):
        checked = audio.checked(bytes(changed))
        assert len(checked) <= len(changed) + 44
        if checked.startswith(b"RIFF"):
            assert data_of(checked)


def test_samples_of_a_tone_are_all_there():
    assert len(data_of(audio.checked(wav_file(tone(0.5))))) == 2 * len(np.asarray(tone(0.5)))
