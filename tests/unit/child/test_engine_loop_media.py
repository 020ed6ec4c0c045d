"""Pieces of images among the steps: whole, beside streams, and in turns with other prompts."""

from itertools import groupby

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollama_async.core.conversation import Logprobs
from ollama_async.workers.child import media as media_module
from ollama_async.workers.child.batching import MIN_CHUNK
from ollama_async.workers.child.engines.engine import SpanEmbeddings
from ollama_async.workers.child.media import Media, MediaEncoder, MediaSpan
from ollama_async.workers.messages import Cancel, Deltas, Done, Failed
from tests.unit.child.conftest import answer_to
from tests.unit.child.loop_harness import LoopHarness, prepared


class Encoder(MediaEncoder):
    """Notes what is requested; the test makes the embeddings."""

    def __init__(self):
        super().__init__(None, None)
        self.requested = []
        self.called_off = []
        self.is_causal = False

    def request(self, media, client):
        self.requested.append((media, client))

    def set_needed(self, needed):
        pass

    def call_off(self, spans):
        self.called_off += [span.media for span in spans.values()]

    def encode(self, media):
        vectors = np.zeros((30, 1), np.float32)
        media.embeddings = [SpanEmbeddings(vectors, 30, self.is_causal)] * 9

    def encode_all(self, *, fails=False):
        """What is requested; or none can be."""
        for media, _ in self.requested:
            media.error = "no" if fails else ""
            if not fails:
                self.encode(media)
        self.requested.clear()


@pytest.fixture
def encoder():
    return Encoder()


@pytest.fixture
def harness(fake_engine, encoder):
    harness = LoopHarness(fake_engine(slots=4, num_ctx=64, batch_size=16))
    harness.use_encoder(encoder)
    return harness


def with_image(number, before, size, after, *, count=5, media=None, **more):
    """A request with one span between two texts, and its image."""
    media = media or Media(b"", b"", ())
    place = 10_000
    image = range(-place - 1, -place - 1 - size, -1)
    spans = {len(before): MediaSpan(media, 0, size)}
    return prepared(number, [*before, *image, *after], count, spans=spans, **more), media


def test_a_span_is_read_whole_and_alone(harness, encoder):
    request, media = with_image(1, range(20), 12, range(5))
    encoder.encode(media)
    harness.put(request)
    harness.finish(1)

    sizes = [sum(size for _, size, _ in step) for step in harness.engine.steps[:5]]
    assert sizes[:4] == [16, 4, 12, 5]
    assert harness.texts()[1] == answer_to(request.tokens, 5)


def test_a_causal_span_is_read_in_chunks(harness, encoder):
    encoder.is_causal = True
    request, media = with_image(1, range(4), 30, range(5))
    encoder.encode(media)
    harness.put(request)
    harness.finish(1)

    sizes = [sum(size for _, size, _ in step) for step in harness.engine.steps[:5]]
    assert sizes[:4] == [4, 16, 14, 5]
    assert harness.texts()[1] == answer_to(request.tokens, 5)


@pytest.mark.parametrize("took_s", [0.0001, 100.0])
def test_an_image_of_a_seeded_request_is_split_as_always(fake_engine, encoder, took_s):
    """Whatever was measured: sums depend on it, and so may the text."""
    encoder.is_causal = True
    harness = LoopHarness(fake_engine(num_ctx=512, batch_size=256))
    harness.use_encoder(encoder)
    harness.planner.costs.observe(0, 64, took_s)
    request, media = with_image(1, range(4), 300, range(5), num_ctx=512, seed=1)
    media.embeddings = [SpanEmbeddings(np.zeros((300, 1), np.float32), 300)]
    harness.put(request)
    harness.finish(1)
    sizes = [size for step in harness.engine.steps for _, size, _ in step]
    assert sizes[:5] == [4, 128, 128, 44, 5]


def test_a_prompt_waits_for_its_embeddings_and_others_do_not(harness, encoder):
    request, media = with_image(1, range(3), 4, range(5))
    harness.put(request, prepared(2, range(6)))
    harness.finish(2)
    assert encoder.requested == [(media, "")]
    assert 1 not in harness.ends()
    assert not harness.engine_loop._step.run(), "nothing to do"

    encoder.encode(media)
    harness.finish(1)
    assert harness.texts()[1] == answer_to(request.tokens, 5)


def test_an_image_that_is_in_a_slot_is_not_requested_again(harness, encoder):
    request, media = with_image(1, range(3), 4, range(5))
    encoder.encode(media)
    harness.put(request)
    harness.finish(1)
    again, _ = with_image(2, range(3), 4, [*range(5), 7])
    harness.put(again)
    harness.finish(2)

    assert len(encoder.requested) == 1
    assert harness.ends()[2].usage.cached == 12


def test_an_image_is_not_reused_in_part(harness, encoder):
    """The last token is always computed; here it is one of an image's."""
    request, media = with_image(1, range(3), 4, [])
    encoder.encode(media)
    harness.put(request)
    harness.finish(1)
    again, other = with_image(2, range(3), 4, [])
    encoder.encode(other)
    harness.put(again)
    harness.finish(2)

    assert harness.ends()[2].usage.cached == 3
    assert harness.texts()[2] == answer_to(request.tokens, 5)


@pytest.mark.parametrize("is_causal", [True, False])
def test_embeddings_that_have_been_read_are_freed(harness, encoder, is_causal):
    """Not those of an image that comes again."""
    encoder.is_causal = is_causal
    first, twice = Media(b"", b"", ()), Media(b"", b"", ())
    spans = {0: MediaSpan(twice, 0, 4), 4: MediaSpan(first, 0, 14), 18: MediaSpan(twice, 0, 4)}
    request = prepared(1, [*range(-22, 0), 1, 2, 3], 5, spans=spans)
    encoder.encode(first)
    encoder.encode(twice)
    harness.put(request, prepared(2, range(4), 9))
    held = []
    while 1 not in harness.ends():
        held.append((bool(twice.embeddings), bool(first.embeddings)))
        harness.iterate()
    assert [each for each, _ in groupby(held)] == [(True, True), (True, False), (False, False)]
    assert harness.texts()[1] == answer_to(request.tokens, 5)


def test_a_failed_encoding_ends_its_request(harness):
    request, media = with_image(1, range(3), 4, range(5))
    harness.put(request, prepared(2, range(6)))
    harness.iterate(2)
    media.error = "no"
    harness.finish(1, 2)
    assert harness.ends()[1] == Failed(1, "engine_failed", "no")
    assert isinstance(harness.ends()[2], Done)
    assert harness.encoder.called_off == [media]


def test_what_waited_for_a_failed_image_goes_on_at_once(harness):
    """Nothing else would wake the step thread."""
    one, media = with_image(1, range(3), 40, range(5))
    other, _ = with_image(2, range(3), 40, range(6))
    harness.put(one, other)
    harness.iterate(2)
    media.error = "no"
    waits = []
    harness.mailbox.wait = waits.append
    harness.iterate(2)
    assert waits == [], "the text before the other one's image"
    harness.iterate()
    assert len(waits) == 1


def test_a_failed_step_with_a_span_ends_no_stream(harness, encoder):
    harness.put(prepared(1, range(4), 40))
    harness.iterate(3)
    request, media = with_image(2, [], 4, range(5))
    encoder.encode(media)
    harness.engine.failing = {1}
    harness.put(request)
    harness.iterate(2)
    assert isinstance(harness.ends()[2], Failed)
    harness.engine.failing = set()
    harness.finish(1)
    assert harness.texts()[1] == answer_to(range(4), 40)


def test_a_cancelled_request_drops_its_images(harness):
    request, media = with_image(1, range(3), 4, range(5))
    harness.put(request)
    harness.iterate(2)
    harness.mailbox.cancel(Cancel(1))
    harness.finish(1)
    assert harness.ends()[1].reason == "cancel"
    assert harness.encoder.called_off == [media]


def test_clients_take_turns_with_spans_and_texts(harness, encoder):
    """A client with many images does not keep another's long text waiting."""
    media = Media(b"", b"", ())
    encoder.encode(media)
    spans = {at: MediaSpan(media, 0, 8) for at in range(0, 48, 8)}
    images = [-number - 1 for number in range(48)]
    harness.put(
        prepared(1, [*images, 1], 3, spans=spans, client="images"),
        prepared(2, range(45), 3, client="text"),
    )
    harness.finish(1, 2)
    slots = [step[0][0] for step in harness.engine.steps]
    first_text, last_image = slots.index(1), len(slots) - 1 - slots[::-1].index(0)
    assert first_text < 3
    assert last_image > first_text
    assert harness.texts()[2] == answer_to(range(45), 3)


def test_clients_take_turns_with_spans(harness, encoder):
    for number, client in ((1, "a"), (2, "b")):
        encoder.encode(media := Media(b"", b"", ()))
        images = [-100 * number - at for at in range(48)]
        spans = {at: MediaSpan(media, 0, 8) for at in range(0, 48, 8)}
        harness.put(prepared(number, [*images, 1], 3, spans=spans, client=client))
    harness.finish(1, 2)
    assert [step[0][0] for step in harness.engine.steps[:12]] == [0, 1] * 6


def test_the_context_of_an_answer_has_no_places(harness, encoder):
    request, media = with_image(1, range(3), 4, range(5), returns_context=True)
    encoder.encode(media)
    none, _ = with_image(2, range(3), 4, range(5), count=0, returns_context=True)
    harness.put(request, none)
    harness.finish(1, 2)
    for number in (1, 2):
        assert harness.ends()[number].context[:8] == [0, 1, 2, 0, 1, 2, 3, 4]


def test_a_sampler_sees_no_places(harness, encoder, monkeypatch):
    prompts = []
    begin = harness.engine.begin
    monkeypatch.setattr(
        harness.engine,
        "begin",
        lambda slot, sampling, prompt, constraint, **_options: (
            prompts.append(prompt) or begin(slot, sampling, prompt, constraint)
        ),
    )
    request, media = with_image(1, range(3), 4, range(2))
    encoder.encode(media)
    harness.put(request)
    harness.finish(1)
    assert prompts == [[0, 1, 2, 0, 1]]


def test_an_answer_that_ends_behind_an_image_ends_no_stream(harness, encoder):
    """Its only token is sampled with the span, before the step of the streams."""
    harness.put(prepared(1, range(4), 40))
    harness.iterate(3)
    request, media = with_image(2, range(3), 4, [], count=1)
    encoder.encode(media)
    harness.put(request)
    harness.finish(1, 2)
    assert harness.ends()[2].reason == "length"
    assert harness.texts()[2] == answer_to(request.tokens, 1)
    assert harness.texts()[1] == answer_to(range(4), 40)


def test_the_first_token_behind_an_image_has_logprobs(harness, encoder):
    request, media = with_image(1, range(3), 4, [], count=3, logprobs=0)
    encoder.encode(media)
    harness.put(request)
    harness.finish(1)
    parts = [
        delta
        for message in harness.sent()
        if isinstance(message, Deltas)
        for _, delta in message.items
        if isinstance(delta, Logprobs)
    ]
    assert len(parts) == 3


@pytest.mark.parametrize(("client", "waits"), [("a", True), ("b", False)])
def test_a_request_does_not_wait_for_images_of_another_client(harness, encoder, client, waits):
    """Its own turn to have the image of both encoded may come sooner."""
    one, _ = with_image(1, range(3), 12, range(40), client="a")
    other, media = with_image(2, range(3), 12, range(41), client=client)
    harness.put(one)
    harness.iterate(2)
    harness.put(other)
    harness.iterate(2)
    is_requested = any(each is media for each, _ in encoder.requested)
    assert is_requested == (not waits)
    encoder.encode_all()
    while not {1, 2} <= set(harness.ends()):
        harness.iterate()
        encoder.encode_all()
    assert harness.texts()[2] == answer_to(other.tokens, 5)


IMAGE_SIZES = (3, 9, 14)


def with_images(number, beginning, images, end, count, **more):
    """A request that begins like others. Behind each image, or between them, is nothing."""
    tokens, spans = list(range(beginning)), {}
    for which in images:
        size = IMAGE_SIZES[which]
        spans[len(tokens)] = MediaSpan(Media(b"", bytes([which]), ()), 0, size)
        tokens += [-100 * (which + 1) - at for at in range(size)]
    tokens += [number % 50] * end
    return prepared(number, tokens, count, num_ctx=80, spans=spans, **more)


media_events = st.lists(
    st.one_of(
        st.tuples(
            st.just("new"),
            st.integers(0, 40),  # tokens before the images
            st.lists(st.integers(0, 2), min_size=1, max_size=2),
            st.integers(0, 3),  # tokens behind them
            st.integers(1, 12),  # answer length
            st.sampled_from("ab"),  # client
        ),
        st.tuples(st.just("text"), st.integers(1, 40), st.integers(1, 30)),
        st.tuples(st.just("encode"), st.booleans()),
        st.tuples(st.just("cancel"), st.integers(1, 20)),
        st.tuples(st.just("fail"), st.integers(0, 2)),
        st.tuples(st.just("turn"), st.integers(1, 6)),
    ),
    max_size=40,
)


def play(harness, history, begin=0):
    """The requests of the history, by number, after ``begin`` earlier ones."""
    requests = {}
    for event in history:
        number = begin + len(requests) + 1
        match event:
            case ("new", beginning, images, end, count, client):
                requests[number] = with_images(number, beginning, images, end, count, client=client)
                harness.put(requests[number])
            case ("text", length, count):
                requests[number] = prepared(number, range(length), count, num_ctx=80, client="c")
                harness.put(requests[number])
            case ("encode", fails):
                harness.encoder.encode_all(fails=fails)
            case ("cancel", number):
                harness.put(Cancel(number))
            case ("fail", slot):
                harness.engine.failing = {slot}
                harness.iterate()
                harness.engine.failing = set()
            case ("turn", times):
                harness.iterate(times)
    return requests


@settings(deadline=None)
@given(media_events, st.booleans())
def test_whatever_happens_to_images_each_request_ends_once_with_its_own_text(
    fake_engine, history, is_causal
):
    engine = fake_engine(slots=3, num_ctx=80, batch_size=3 + MIN_CHUNK)
    harness = LoopHarness(engine)
    encoder = harness.use_encoder(Encoder())
    encoder.is_causal = is_causal
    requests = play(harness, history)
    encoder.encode_all()
    for _ in range(1000):
        if set(requests) <= set(harness.ends()):
            break
        harness.iterate()
        encoder.encode_all()

    sent = harness.sent()
    for number, request in requests.items():
        own = [message for message in sent if getattr(message, "id", None) == number]
        (end,) = [message for message in own if isinstance(message, Done | Failed)]
        assert own[-1] is end
        text, whole = harness.texts()[number], answer_to(request.tokens, request.max_tokens)
        assert whole.startswith(text)
        assert text == whole or isinstance(end, Failed) or end.reason == "cancel"
    assert engine.begun == [False] * 3
    for slot, cached in zip(harness.engine_loop.pool.all, engine.cache, strict=True):
        assert slot.tokens == cached


# -- embeddings that no slot has read yet ---------------------------------------------------------

AHEAD = 1000
FILE = 30 * 4 * 8


class ThreadlessEncoder(MediaEncoder):
    """Embeddings of each file have :data:`FILE` bytes; the test says when one is made."""

    def __init__(self, harness):
        super().__init__(None, harness.mailbox.notify)
        self.is_causal = self.fails = self.is_caching = False
        self.made = 0

    def _encode(self, media):
        self.made += 1
        if self.fails:
            media.error = "no"
            return None
        made = [SpanEmbeddings(np.zeros((30, 8), np.float32), 30, self.is_causal)]
        if self.is_caching:
            self._cache.put(media.digest, made, FILE)
        return made

    def encode_all(self, *, fails=False):
        self.fails = fails
        while self._next() is not None:
            self.encode_next()
        self.fails = False


@pytest.fixture
def bounded(fake_engine, monkeypatch):
    """A loop of three slots with such an encoder."""
    monkeypatch.setattr(media_module, "AHEAD_BYTES", AHEAD)
    harness = LoopHarness(fake_engine(slots=3, num_ctx=80, batch_size=3 + MIN_CHUNK))
    harness.use_encoder(ThreadlessEncoder(harness))
    return harness


def held_bytes(requests):
    media = {id(each.media): each.media for one in requests for each in one.spans.values()}
    return sum(part.vectors.nbytes for each in media.values() for part in each.embeddings)


def test_encoding_ahead_pauses_until_embeddings_are_read(bounded):
    encoder = bounded.encoder
    request = with_images(1, 0, [0] * 9, 3, 5)
    bounded.put(request)
    bounded.iterate()
    for _ in range(9):
        encoder.encode_next()
    assert (encoder.made, held_bytes([request])) == (2, 2 * FILE)
    for _ in range(20):
        bounded.iterate()
        encoder.encode_next()
        assert held_bytes([request]) <= 2 * FILE
    bounded.finish(1)
    assert bounded.texts()[1] == answer_to(request.tokens, 5)
    assert encoder.made == 9


def test_each_slot_gets_its_next_image_though_another_holds_many(bounded):
    """The first prompt still reads text."""
    encoder = bounded.encoder
    many, one = with_images(1, 40, [0] * 9, 3, 5, client="a"), with_images(2, 0, [1, 1], 3, 5)
    bounded.put(many)
    bounded.iterate()
    encoder.encode_next()
    encoder.encode_next()
    bounded.put(one)
    bounded.iterate()
    first, second = (span.media for span in one.spans.values())
    assert held_bytes([many]) == 2 * FILE
    for _ in range(4):
        encoder.encode_next()
    assert first.embeddings
    assert not second.embeddings
    assert held_bytes([many, one]) <= 3 * FILE


def test_a_cancelled_request_frees_its_share(bounded):
    encoder = bounded.encoder
    one, other = with_images(1, 30, [0] * 3, 3, 5), with_images(2, 30, [1] * 3, 3, 5)
    bounded.put(one, other)
    bounded.iterate()
    for _ in range(6):
        encoder.encode_next()
    assert held_bytes([one]) == 2 * FILE
    bounded.mailbox.cancel(Cancel(1))
    bounded.iterate()
    assert held_bytes([one]) == 0
    encoder.encode_next()
    assert held_bytes([other]) == FILE


def test_a_cached_image_is_read_at_once_when_there_is_room_again(bounded):
    """Nothing else would wake the step thread."""
    encoder = bounded.encoder
    request = with_images(1, 0, [0], 3, 5)
    encoder._held_bytes = AHEAD
    bounded.put(request)
    bounded.iterate()
    (media,) = (span.media for span in request.spans.values())
    encoder._cache.put(media.digest, encoder._encode(media), FILE)
    encoder._held_bytes = 0
    assert bounded.engine_loop._step.run()
    assert media.embeddings or bounded.engine_loop.running.prefilling[0].prefilled == 3


def test_an_image_that_is_being_encoded_for_nobody_is_not_held(bounded):
    encoder = bounded.encoder
    request = with_images(1, 30, [0], 3, 5)
    bounded.put(request)
    bounded.iterate()
    encode = encoder._encode

    def cancelled_meanwhile(media):
        bounded.mailbox.cancel(Cancel(1))
        bounded.iterate()
        return encode(media)

    encoder._encode = cancelled_meanwhile
    encoder.encode_next()
    assert held_bytes([request]) == encoder._held_bytes == 0


def test_images_that_come_again_are_made_again_rather_than_held(bounded):
    encoder = bounded.encoder
    images = [Media(b"", bytes([which]), ()) for which in range(4)]
    spans = {8 * at: MediaSpan(images[at % 4], 0, 8) for at in range(8)}
    request = prepared(1, [*range(-64, 0), 1], 3, num_ctx=80, spans=spans)
    bounded.put(request)
    while 1 not in bounded.ends():
        bounded.iterate()
        encoder.encode_next()
        assert held_bytes([request]) <= 3 * FILE
    assert bounded.texts()[1] == answer_to(request.tokens, 3)


many_images = st.tuples(
    st.just("new"),
    st.integers(0, 10),
    st.lists(st.integers(0, 2), min_size=1, max_size=4),
    st.integers(0, 3),
    st.integers(1, 12),
    st.sampled_from("ab"),
)
crowded_events = st.lists(
    st.one_of(
        many_images,
        st.tuples(st.just("encode"), st.just(value=False)),
        st.tuples(st.just("turn"), st.integers(1, 3)),
        st.tuples(st.just("cancel"), st.integers(1, 20)),
        st.tuples(st.just("text"), st.integers(1, 40), st.integers(1, 30)),
    ),
    min_size=15,
    max_size=40,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=crowded_events,
    is_causal=st.booleans(),
    is_caching=st.booleans(),
    ahead=st.sampled_from([1, 2 * FILE]),
)
def test_whatever_happens_embeddings_are_bounded_and_no_request_is_stuck(
    fake_engine, monkeypatch, history, is_causal, is_caching, ahead
):
    monkeypatch.setattr(media_module, "AHEAD_BYTES", ahead)
    harness = LoopHarness(fake_engine(slots=3, num_ctx=80, batch_size=3 + MIN_CHUNK))
    encoder = harness.use_encoder(ThreadlessEncoder(harness))
    encoder.is_causal, encoder.is_caching = is_causal, is_caching
    requests = {}

    def check():
        held = held_bytes(requests.values())
        assert held == encoder._held_bytes < ahead + 4 * FILE

    for event in history:
        requests |= play(harness, [event], len(requests))
        check()
    for _ in range(1000):
        if set(requests) <= set(harness.ends()):
            break
        encoder.encode_all()
        check()
        harness.iterate()
        check()
    assert set(requests) <= set(harness.ends())
    assert held_bytes(requests.values()) == 0
