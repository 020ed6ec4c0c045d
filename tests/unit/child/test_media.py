"""Images in prompts and their embeddings, with a projector that the test plays."""

import hashlib
import os
import threading
import weakref

import numpy as np
import pytest

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child import media
from ollama_async.workers.child.engines.engine import EngineError, SpanEmbeddings, SpanShape
from ollama_async.workers.child.media import Media, MediaEncoder, MediaReader, MediaSpan, add_media
from ollama_async.workers.child.resource_limits import OverBudget, PreparationBudget
from tests.media_files import image_file, noise, photo, tone, wav_file

DEADLINE_S = 10.0


class Projector:
    """An image takes a token for each ten pixels of its width, between the tokens 1 and 2."""

    sees = True
    sample_rate = 0

    def __init__(self):
        self.encoded = []
        self.counted = []
        self.error = None
        self.size_error = 0

    def layout(self, shape):
        self.counted.append(shape)
        if shape[1] > 500:
            raise EngineError("too wide")
        return ((1,), SpanShape(shape[1] // 10, shape[1] // 10), (2,))

    def encode(self, data):
        self.encoded.append(data.shape)
        if self.error:
            raise self.error
        size = data.shape[1] // 10 + self.size_error
        return [SpanEmbeddings(np.full((size, 4), 0.5, np.float32), size)]

    def decode_audio(self, data):
        return np.zeros(len(data), np.float32)


@pytest.fixture
def projector():
    return Projector()


@pytest.fixture
def reader(projector):
    return MediaReader(projector, lambda _limit_s, _error: lambda call: call())


def budget(*, is_quick=False):
    return PreparationBudget(lambda _limit_s, _error: lambda call: call(), is_quick=is_quick)


@pytest.fixture
def encoder(projector):
    """With a thread; ``wait`` returns after a notification."""
    notified = threading.Semaphore(0)
    made = MediaEncoder(projector, notified.release)
    made.wait = lambda: notified.acquire(timeout=DEADLINE_S)
    thread = made.thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.close()
    thread.join()


def media_of(file, *layout):
    return Media(file, hashlib.sha256(file).digest(), layout)


# -- places in a prompt ---------------------------------------------------------------------------


def test_places_are_negative_and_depend_on_the_file():
    def places(file):
        tokens, pieces = [7], {}
        add_media(tokens, pieces, media_of(file, (1,), SpanShape(3, 3), (2,), SpanShape(2, 1)))
        return tokens, pieces

    tokens, pieces = places(b"a")
    assert (tokens[:2], tokens[5]) == ([7, 1], 2)
    assert all(token < 0 for token in tokens[2:5] + tokens[6:])
    assert len(set(tokens)) == len(tokens) == 8
    assert {at: (piece.index, piece.length) for at, piece in pieces.items()} == {
        2: (0, 3),
        6: (1, 2),
    }
    assert places(b"a")[0] == tokens
    assert set(places(b"b")[0]) & set(tokens) == {7, 1, 2}


def test_pieces_have_their_embeddings(projector):
    made = media_of(photo(), SpanShape(4, 4))
    made.embeddings = projector.encode(noise())
    assert MediaSpan(made, 0, 4).embeddings.positions == 4


# -- reading --------------------------------------------------------------------------------------


def test_a_file_is_counted_once(reader, projector):
    one, other = reader.read_all([photo(0), photo(1)], budget(), "")
    again, _ = reader.read_all([photo(0), photo(1)], budget(is_quick=True), "")
    assert again.layout == one.layout == ((1,), SpanShape(4, 4), (2,))
    assert again.digest == one.digest != other.digest
    assert projector.counted == [(30, 40, 3)] * 2


def test_owners_do_not_share_what_is_known(reader, projector):
    (one,) = reader.read_all([photo()], budget(), "a")
    with pytest.raises(OverBudget):
        reader.read_all([photo()], budget(is_quick=True), "b")
    (other,) = reader.read_all([photo()], budget(), "b")
    assert one.digest != other.digest
    assert len(projector.counted) == 2


def test_a_quick_try_decodes_nothing(reader, projector, monkeypatch):
    with pytest.raises(OverBudget):
        reader.read_all([photo()], budget(is_quick=True), "")
    assert not projector.counted
    reader.read_all([photo()], budget(), "")
    monkeypatch.setattr("ollama_async.workers.child.resource_limits.QUICK_BYTES", 100)
    with pytest.raises(OverBudget):
        reader.read_all([photo()], budget(is_quick=True), "")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"what", "unknown image format"),
        (image_file(noise(width=510)), "too wide"),
        (wav_file(tone(0.1)), "this model cannot hear"),
    ],
)
def test_files_that_cannot_be_read_are_refused(reader, file, reason):
    with pytest.raises(BadRequest, match=reason):
        reader.read_all([photo(), file], budget(), "")


def test_a_model_that_only_hears_refuses_images(reader, projector):
    projector.sees, projector.sample_rate = False, 16_000
    with pytest.raises(BadRequest, match="this model cannot see"):
        reader.read_all([photo()], budget(), "")
    with pytest.raises(BadRequest, match="too short"):
        reader.read_all([wav_file(tone(0.01))], budget(), "")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -1e12])
def test_samples_out_of_range_are_refused(reader, projector, monkeypatch, value):
    """The squares of large ones are not finite."""
    monkeypatch.setattr(projector, "sample_rate", 16_000)
    samples = np.full(4000, 0.5, np.float32)
    samples[7] = value
    monkeypatch.setattr(projector, "decode_audio", lambda _data: samples)
    with pytest.raises(BadRequest, match="the recording has samples out of range"):
        reader.read_all([wav_file(tone())], budget(), "")


def test_an_unknown_format_is_told_what_can_be_read(reader, projector):
    projector.sample_rate = 16_000
    with pytest.raises(BadRequest, match=r"takes WAV, MP3, PNG, JPEG, WebP, GIF and BMP$"):
        reader.read_all([b"OggS"], budget(), "")
    projector.sees = False
    with pytest.raises(BadRequest, match=r"takes WAV, MP3$"):
        reader.read_all([b"OggS"], budget(), "")


def test_large_files_are_refused(reader, monkeypatch):
    monkeypatch.setattr(media, "FILE_LIMIT_BYTES", 100)
    with pytest.raises(BadRequest, match="more than 100 bytes"):
        reader.read_all([photo()], budget(), "")


def test_all_files_of_a_request_share_its_time(projector):
    limits = []

    def make_run(limit_s, error):
        limits.append(limit_s)

        def run(call):
            if len(projector.counted) == 2:
                raise error("the model's chat template takes too long")
            return call()

        return run

    reader = MediaReader(projector, make_run)
    with pytest.raises(BadRequest, match="takes too much time or memory"):
        reader.read_all([photo(number) for number in range(5)], budget(), "")
    assert limits == [media.DECODE_S]


# -- encoding -------------------------------------------------------------------------------------


def counted(reader, *files):
    return reader.read_all(files, budget(), "")


def test_embeddings_arrive_and_are_kept(encoder, reader, projector):
    (one,) = counted(reader, photo())
    encoder.request(one, "a")
    assert encoder.wait()
    assert len(one.embeddings[0].vectors) == 4
    (again,) = counted(reader, photo())
    encoder.request(again, "b")
    assert again.embeddings is one.embeddings, "at once"
    assert projector.encoded == [(30, 40, 3)]


def test_the_cache_is_bounded(projector, reader, monkeypatch):
    monkeypatch.setattr(media, "CACHE_BYTES", 100)
    encoder = MediaEncoder(projector, lambda: None)
    for number in (0, 1, 1, 0):
        (one,) = counted(reader, photo(number))
        encoder.request(one, "")
        if not one.embeddings:
            encoder._encode(encoder._waiting.take())
    assert len(projector.encoded) == 3, "each has 64 bytes"


def test_clients_take_turns(projector, reader):
    encoder = MediaEncoder(projector, lambda: None)
    files = [image_file(noise(width=10 * number)) for number in range(1, 6)]
    for file, client in zip(files, "aaabb", strict=True):
        encoder.request(counted(reader, file)[0], client)
    turns = [encoder._waiting.take().layout[1].tokens for _ in files]
    assert turns == [1, 4, 2, 5, 3]


@pytest.mark.parametrize("error", [EngineError("no"), MemoryError()])
def test_a_failure_is_told(encoder, reader, projector, error, capfd):
    projector.error = error
    (one,) = counted(reader, photo())
    encoder.request(one, "")
    assert encoder.wait()
    assert one.error.startswith("encoding the image or recording failed")
    assert not one.embeddings
    assert "failed" in capfd.readouterr().err


def test_embeddings_that_were_not_announced_are_refused(encoder, reader, projector, capfd):
    projector.size_error = 1
    (one,) = counted(reader, photo())
    encoder.request(one, "")
    assert encoder.wait()
    assert "other embeddings than it had announced" in one.error
    assert capfd.readouterr().err


def test_what_nobody_waits_for_is_forgotten_at_once(projector, reader):
    """Another file may be encoded for many seconds."""
    encoder = MediaEncoder(projector, lambda: None)
    one, other = counted(reader, photo(0), photo(1))
    encoder.request_after(0, {0: MediaSpan(one, 0, 4), 4: MediaSpan(one, 1, 4)}, "")
    encoder.request(other, "")
    gone = weakref.ref(one)
    encoder.call_off({0: MediaSpan(one, 0, 4)})
    encoder.call_off({0: MediaSpan(one, 0, 4)})
    del one
    assert gone() is None
    assert encoder._waiting.take() is other


def test_encoding_yields_to_steps(encoder, reader):
    (one,) = counted(reader, photo())
    encoder.request(one, "")
    assert encoder.wait()
    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    theirs = os.getpriority(os.PRIO_PROCESS, encoder.thread.native_id)
    assert theirs == min(ours + media.NICENESS, 19)
