"""Images and recordings in prompts, with the real library and tiny projectors of random weights."""

import ctypes

import numpy as np
import pytest

from ollama_async.core.conversation import Logprobs, Prompt, Sampling
from ollama_async.core.errors import LoadFailed
from ollama_async.workers.child.engines.engine import Row, SpanShape
from ollama_async.workers.messages import Done, Failed
from tests.integration.llama_engine.media_harness import MediaWorker, open_vision_engine, user
from tests.media_files import noise, photo, tone, wav_file
from tests.tiny_projectors import write_projector, write_vision_model

pytestmark = pytest.mark.engine

KINDS = ("gemma3", "llava", "qwen2.5vl", "ultravox")
ORDER = Sampling(temperature=0)


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """One of each kind, opened with the first use."""
    opened = {}

    def get(kind):
        if kind not in opened:
            opened[kind] = open_vision_engine(
                *write_vision_model(tmp_path_factory.mktemp("models"), kind)
            )
        return opened[kind]

    yield get
    for engine in opened.values():
        engine.close()


@pytest.fixture(params=KINDS)
def engine(request, engines):
    return emptied(engines(request.param))


@pytest.fixture
def seeing(engines):
    return emptied(engines("gemma3"))


def emptied(engine):
    for slot in range(engine.facts.slots):
        engine.end(slot)
        engine.trim(slot, 0)
    return engine


@pytest.fixture
def start_worker():
    workers = []

    def start(engine):
        workers.append(MediaWorker(engine).start())
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
def worker(seeing, start_worker):
    return start_worker(seeing)


def data_for(engine, seed=0):
    if engine.projector.sees:
        return noise(seed)
    return tone(hertz=300 + 100 * seed)


def file_for(engine, seed=0):
    return photo(seed) if engine.projector.sees else wav_file(data_for(engine, seed))


def logits_by_the_library(engine, data, before, after):
    """The logits after text, an image and text, evaluated by the library's own helper."""
    import llama_cpp.mtmd_cpp as mtmd  # the library may be missing

    projector = engine.projector
    position = ctypes.c_int32(0)
    engine.begin(0, ORDER, before)
    engine.step([Row(0, before, 0, samples=False)])
    position.value = len(before)
    with projector._chunks(data.shape, data) as chunks:
        for chunk, _ in chunks:
            status = mtmd.mtmd_helper_eval_chunk_single(
                *(projector._context, engine._context, chunk, position, 0, 512, False),
                ctypes.byref(position),
            )
            assert status == 0
    # our positions are numbers of tokens
    engine._positions[0].skips.clear()
    engine.step([Row(0, after, position.value, samples=True)])
    return engine.read_logits()[0].copy()


def logits_by_us(engine, data, before, after, *, chunk=1 << 30):
    engine.begin(0, ORDER, before)
    engine.step([Row(0, before, 0, samples=False)])
    place = len(before)
    pieces = iter(engine.projector.encode(data))
    for part in engine.projector.layout(data.shape):
        size = part.tokens if isinstance(part, SpanShape) else len(part)
        if not isinstance(part, SpanShape):
            engine.step([Row(0, part, place, samples=False)])
            place += size
            continue
        embeddings = next(pieces)
        for begin in range(0, size, chunk):
            count = min(chunk, size - begin)
            row = Row(0, [-1] * count, place, samples=False, embeddings=embeddings)
            if count < size:
                row.embeddings = embeddings.part(begin, count)
            engine.step([row])
            place += count
    engine.step([Row(0, after, place, samples=True)])
    return engine.read_logits()[0].copy()


def test_a_piece_is_evaluated_as_by_the_library(engine):
    before = engine.tokenize("the water", add_special=True, parse_special=True)
    after = engine.tokenize("what is", add_special=False, parse_special=True)
    data = data_for(engine)

    theirs = logits_by_the_library(engine, data, before, after)
    emptied(engine)
    ours = logits_by_us(engine, data, before, after)

    assert np.abs(theirs - ours).max() < 1e-4
    if engine.projector.encode(data)[0].is_causal:
        emptied(engine)
        in_chunks = logits_by_us(engine, data, before, after, chunk=7)
        assert np.abs(theirs - in_chunks).max() < 1e-4
    emptied(engine)
    other = logits_by_us(engine, data_for(engine, 1), before, after)
    assert np.abs(other - ours).max() > 1e-2


def test_answers_are_the_same_whether_a_prefix_was_reused(engine, start_worker):
    """Two images in two turns; then the same conversation with nothing in the slots."""
    first, second = file_for(engine), file_for(engine, 1)
    worker = start_worker(engine)
    turn = user("what is this", first)
    text, end = worker.answer(turn)
    assert end.usage.cached == 0
    dialogue = [turn, user("and this", second), user("so")]
    reused, end = worker.answer(*dialogue)
    assert end.usage.cached > 16, "all of the first turn, with its image"

    emptied(engine)
    fresh_worker = start_worker(engine)
    fresh, fresh_end = fresh_worker.answer(*dialogue)

    assert fresh_end.usage.cached == 0
    assert fresh_end.usage.prompt == end.usage.prompt
    assert fresh == reused
    assert fresh_worker.answer(turn)[0] == text


def test_a_prefix_is_copied_with_its_images(engine, start_worker):
    """While one request is in its slot, another one begins with the same image."""
    worker = start_worker(engine)
    turn = user("what is this, and what do you see " * 4, file_for(engine))
    alone, _ = worker.answer(turn, user("one"))
    emptied(engine)
    worker = start_worker(engine)
    first = worker.submit(turn, user("two"), count=40)
    second = worker.submit(turn, user("one"))

    assert worker.text(second) == alone
    assert worker.end(second).usage.cached >= 16
    worker.end(first)


def test_different_images_give_different_answers(worker):
    answers = {worker.answer(user("what is this", photo(seed)), count=16)[0] for seed in range(8)}
    assert len(answers) > 1


def test_images_without_a_placeholder_come_first(worker):
    one, other = photo(0), photo(1)
    answers = [
        worker.answer(user(text, one, other), count=24)
        for text in ("the water", "[img][img]the water", "[img]the water")
    ]
    texts = [text for text, _ in answers]
    assert texts[0] == texts[1]
    assert answers[1][1].usage.cached > 40, "the same tokens"
    assert answers[2][1].usage.prompt == answers[0][1].usage.prompt


def test_a_raw_prompt_names_its_images(worker):
    def ask(text):
        return worker.answer(user("", photo(0), photo(1)), raw=text, count=24)[0]

    assert ask("a [img-1] b [img-0]") == ask("a [img-1] b [img]")
    assert ask("a [img-0] b [img-1]") == ask("a [img] b [img]") != ask("a [img-1] b [img-0]")


def test_text_streams_go_on_while_an_image_is_encoded(seeing):
    """The encoder does not even run here."""
    worker = MediaWorker(seeing)
    waiting = worker.submit(user("what is this", photo()), client="a")
    text = worker.submit(user("the people"), client="b", count=40)

    assert worker.end(text).reason == "length"
    assert worker.started(waiting)
    assert not worker.text_so_far(waiting)
    worker.start()
    assert worker.end(waiting).reason == "length"
    worker.close()


def test_an_image_is_encoded_once(worker, monkeypatch):
    encoded = []
    encode = worker.encoder._projector.encode
    monkeypatch.setattr(
        worker.encoder._projector, "encode", lambda data: encoded.append(data) or encode(data)
    )
    ids = [worker.submit(user("what is this", photo()), user(text)) for text in "abc"]
    for each in ids:
        worker.end(each)
    assert len(encoded) == 1
    worker.answer(user("again", photo(), photo(5), photo()))
    assert len(encoded) == 2


def test_a_cancelled_request_is_not_encoded(seeing, monkeypatch):
    worker = MediaWorker(seeing)
    monkeypatch.setattr(worker.encoder, "_encode", lambda media: pytest.fail(str(media.digest)))
    request = worker.submit(user("what is this", photo()))
    worker.loop.iterate(0.01)
    worker.cancel(request)
    assert worker.end(request).reason == "cancel"
    worker.start()
    worker.close()


def test_a_failed_encoding_ends_only_its_request(worker, monkeypatch):
    from ollama_async.workers.child.engines.engine import EngineError

    def fail(_data):
        raise EngineError("no")

    monkeypatch.setattr(worker.encoder._projector, "encode", fail)
    failed = worker.submit(user("what is this", photo()))
    text = worker.submit(user("the people"))
    assert worker.end(failed) == Failed(
        failed, "engine_failed", "encoding the image or recording failed: no"
    )
    assert worker.end(text).reason == "length"


def test_images_that_are_dropped_with_their_messages_leave_the_others(worker):
    """Each takes 18 tokens; 4,096 are the context."""
    old = [user(f"look {number}", photo(number % 3)) for number in range(160)]
    _, end = worker.answer(*old, user("what is this", photo(7)))
    assert end.usage.prompt < 4096
    kept, _ = worker.answer(*old[-20:], user("what is this", photo(7)), count=16)
    assert kept


def test_a_conversation_that_cannot_be_truncated_is_refused(worker):
    images = [photo(number % 3) for number in range(250)]
    end = worker.end(worker.submit(user("what is this", *images)))
    assert "longer than the context" in end.message


RAW = Prompt(raw="the water [img]", messages=[user("", photo())])
"""Ends with an image, without the token that ends it."""


def test_the_context_has_no_places_of_images(worker):
    context = worker.end(worker.put(RAW, count=3, returns_context=True)).context
    assert context
    assert min(context) >= 0


def test_a_token_after_an_image_has_its_logprobs(engines, start_worker):
    """A model without tokens around images samples where the image ends."""
    worker = start_worker(emptied(engines("llava")))
    request_id = worker.put(RAW, count=3, logprobs=2)
    assert worker.end(request_id).usage.prompt == 4 + 16
    logprobs = [each for each in worker.deltas(request_id) if isinstance(each, Logprobs)]
    assert [len(token.top) for each in logprobs for token in each.tokens] == [2, 2, 2]


def test_files_that_the_model_does_not_read_are_refused(engines, start_worker):
    refusals = {
        ("gemma3", wav_file(tone())): "cannot hear",
        ("ultravox", photo()): "cannot see",
        ("gemma3", b"GIF89a"): "cannot be decoded",
        ("gemma3", b"what"): "unknown image format",
        ("ultravox", b"RIFF    WAVE"): "no data",
    }
    for (kind, file), reason in refusals.items():
        worker = start_worker(engines(kind))
        assert reason in worker.end(worker.submit(user("what is this", file))).message


def test_a_projector_that_does_not_fit_is_refused(tmp_path):
    model, _ = write_vision_model(tmp_path)
    wide = write_projector(tmp_path / "wide.gguf", width=96)
    with pytest.raises(LoadFailed, match="mismatch between text model"):
        open_vision_engine(model, wide)
    with pytest.raises(LoadFailed, match="unable to load the projector"):
        open_vision_engine(model, model)


@pytest.mark.parametrize("stack", [1, 2, 3, 5, 7, 8, 16, 20, 64])
def test_recordings_that_the_library_would_miscount_are_refused(tmp_path, start_worker, stack):
    """It aborts its process; the model stays one of text."""
    model, _ = write_vision_model(tmp_path)
    projector = write_projector(tmp_path / "stack.gguf", "ultravox", stack=stack)
    worker = start_worker(open_vision_engine(model, projector))
    end = worker.end(worker.submit(user("what is this", wav_file(tone(0.5)))))
    if stack == 8:
        assert "counts 187 embeddings for a recording, but makes 188" in end.message
    assert isinstance(end, Done) or "cannot hear" in end.message
    assert worker.text(worker.submit(user("what is this")))


def test_a_projector_without_a_type_is_one_of_llava(engines, tmp_path):
    """As those in Ollama's library; their tensors tell."""
    model, _ = write_vision_model(tmp_path, "llava")
    untyped = write_projector(tmp_path / "untyped.gguf", "llava", typed=False)
    opened = open_vision_engine(model, untyped)
    theirs, ours = (each.projector.encode(noise())[0] for each in (engines("llava"), opened))
    assert np.array_equal(theirs.vectors, ours.vectors)
    opened.close()
    untyped = write_projector(tmp_path / "other.gguf", "gemma3", typed=False)
    with pytest.raises(LoadFailed, match="unknown projector type"):
        open_vision_engine(model, untyped)


def test_the_projector_counts_as_memory(seeing, tmp_path):
    model, _ = write_vision_model(tmp_path)
    plain = open_vision_engine(model, "")
    assert seeing.facts.weights_bytes > plain.facts.weights_bytes
    plain.close()


def test_a_copied_part_of_a_sequence_has_no_positions_of_images_after_it(engines):
    """A pool copies the cells of that part only, then what is known of positions, then trims."""
    engine = emptied(engines("qwen2.5vl"))
    tokens = engine.tokenize("the water", add_special=True, parse_special=True)
    engine.begin(0, ORDER, tokens)
    engine.step([Row(0, tokens, 0, samples=False)])
    engine._positions[0].skip(len(tokens) + 40, 30)

    assert engine.trim(0, len(tokens))
    place = len(tokens) + 50
    assert engine._positions[0].of(place) == place
