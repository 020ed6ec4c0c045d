"""The real engine: what the batcher relies on.

Where answers are compared to the last token, whatever is in them, the model is one of random F32
weights: sums are exact enough, and no answer ends. What an engine may lose (kernels, attention,
company) is asked of the model of the package, which would say something else.
"""

import resource
import threading

import numpy as np
import psutil
import pytest

from ollama_async.core.conversation import Sampling
from ollama_async.core.errors import LoadFailed
from ollama_async.native.tiny_model import write_tiny_model
from ollama_async.workers.child.engines import llama_sampling
from ollama_async.workers.child.engines.engine import EngineError, Row
from ollama_async.workers.child.engines.llama_cpp import load
from ollama_async.workers.load_spec import LoadSpec

pytestmark = pytest.mark.engine

GREEDY = Sampling(temperature=0)
SLOTS = 4
QUESTIONS = {
    "Why is the sky blue?": "Rayleigh scattering",
    "Why is the ocean salty?": "rivers",
    "What is the capital of France?": "Paris",
    "What is gravity?": "mass",
    "What is machine learning?": "examples",
    "Tell me a joke": "computer",
    "Say this is a test": "This is a test.",
    "what is llama": "language models",
    "who are you": "ollama-async pull",
    "Hi": "Hello",
    "My name is Alice.": "Alice",
    "My favourite colour is blue.": "blue",
    "What is photosynthesis?": "plants",
    "What is HTTP?": "web servers",
    "How do I list models?": "ollama-async list",
    "你好啊": "你好",
}
"""What the model of the package is asked, and a part of what it says."""
LONGEST_ANSWER = 120


def spec_of(path, **changes):
    options = {"num_ctx": 256, "slots": SLOTS, "threads": 1, **changes}
    return LoadSpec(engine="llama_cpp", model=str(path), **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(
        tmp_path_factory.mktemp("models") / "tiny.gguf",
        chat_template="{{ messages }}",
        control_tokens=("<|turn|>",),
    )


@pytest.fixture(scope="module")
def shared_engine(model):
    engine = load(spec_of(model), lambda _fraction: None)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def demo_engine(demo_model):
    """With a slot for each question."""
    engine = load(spec_of(demo_model, slots=len(QUESTIONS)), lambda _fraction: None)
    yield engine
    engine.close()


@pytest.fixture
def engine(shared_engine):
    """An engine whose slots are empty, as after a load."""
    for slot in range(SLOTS):
        shared_engine.end(slot)
        shared_engine.trim(slot, 0)
    return shared_engine


def tokens_of(engine, text):
    return engine.tokenize(text, add_special=True, parse_special=True)


def start(engine, slot, prompt, sampling=GREEDY):
    engine.begin(slot, sampling, prompt)
    return engine.step([Row(slot, prompt, 0, samples=True)])


def go_on(engine, slot, answer, position, count):
    while len(answer) < count:
        answer += engine.step([Row(slot, answer[-1:], position, samples=True)])
        position += 1
    return answer


def generate(engine, slot, text, count=24, sampling=GREEDY):
    prompt = tokens_of(engine, text)
    assert engine.trim(slot, 0)
    answer = go_on(engine, slot, start(engine, slot, prompt, sampling), len(prompt), count)
    engine.end(slot)
    return answer


def answers(engine, *questions):
    """What the demo model says to each of them, all at once."""
    prompts = [
        tokens_of(
            engine,
            f"<|im_start|>user\n{question}<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        )
        for question in questions
    ]
    for slot, prompt in enumerate(prompts):
        assert engine.trim(slot, 0)
        engine.begin(slot, GREEDY, prompt)
    said = [[] for _ in prompts]
    rows = [Row(slot, prompt, 0, samples=True) for slot, prompt in enumerate(prompts)]
    while rows:
        for row, token in zip(rows, engine.step(rows), strict=True):
            said[row.slot].append(token)
        rows = [
            Row(slot, tokens[-1:], len(prompts[slot]) + len(tokens) - 1, samples=True)
            for slot, tokens in enumerate(said)
            if len(tokens) < LONGEST_ANSWER and not engine.is_end(tokens[-1])
        ]
    for slot in range(len(prompts)):
        engine.end(slot)
    return [b"".join(map(engine.piece, tokens)).decode() for tokens in said]


def logits_after(engine, slot, row):
    """A copy of the logits that a step on ``row`` gives."""
    engine.begin(slot, GREEDY, row.tokens)
    engine.step([row])
    return engine.read_logits()[0].copy()


def test_facts_describe_the_file_and_what_was_allocated(engine):
    facts = engine.facts
    assert (facts.slots, facts.num_ctx) == (SLOTS, 256)
    assert (facts.bos, facts.eos, facts.adds_bos) == ("<s>", "</s>", True)
    assert facts.chat_template == "{{ messages }}"
    assert facts.can_shift
    assert facts.can_trim
    # 2 layers, K and V, 2 heads of 16, f16
    assert facts.cache_bytes == pytest.approx(SLOTS * 256 * 2 * 2 * 32 * 2, rel=0.1)
    assert facts.weights_bytes > 0
    assert facts.compute_bytes > 0
    assert facts.device_bytes == 0


def test_loading_reports_progress_up_to_the_whole(model):
    seen = []
    load(spec_of(model), seen.append).close()
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_trained_model_says_in_company_what_it_says_alone(demo_engine):
    alone = [text for question in QUESTIONS for text in answers(demo_engine, question)]
    assert [
        text for text, part in zip(alone, QUESTIONS.values(), strict=True) if part not in text
    ] == []
    assert answers(demo_engine, *QUESTIONS) == alone


@pytest.mark.parametrize("of", ["shared_engine", "demo_engine"])
def test_text_survives_the_tokenizer(request, of):
    engine = request.getfixturevalue(of)
    text = "grüße, 世界 👩‍👩‍👧 and\nthe \x00 end" * 50
    tokens = engine.tokenize(text, add_special=False, parse_special=False)
    assert b"".join(map(engine.piece, tokens)).decode().removeprefix(" ") == text


@pytest.mark.parametrize(
    ("of", "special"), [("shared_engine", "<|turn|>"), ("demo_engine", "<|im_end|>")]
)
def test_special_tokens_are_parsed_only_on_request(request, of, special):
    engine = request.getfixturevalue(of)
    parsed = engine.tokenize(special, add_special=False, parse_special=True)
    plain = engine.tokenize(special, add_special=False, parse_special=False)
    assert len(parsed) < len(plain)
    assert special.encode() in b"".join(map(engine.piece, plain))
    assert special.encode() not in b"".join(map(engine.piece, parsed))
    assert b"".join(map(engine.piece_with_control, parsed)).decode().strip() == special


def test_bos_comes_only_on_request(engine):
    assert engine.tokenize("a", add_special=True, parse_special=True)[0] == 1
    assert engine.tokenize("a", add_special=False, parse_special=True)[0] != 1


def test_lone_surrogates_do_not_stop_the_tokenizer(engine):
    assert engine.tokenize("a\ud800b", add_special=False, parse_special=False)


def test_ids_outside_the_vocabulary_have_no_text(engine):
    assert engine.piece(-1) == engine.piece(engine.facts.vocab_size) == b""
    assert (
        engine.piece_with_control(-1) == engine.piece_with_control(engine.facts.vocab_size) == b""
    )


def test_the_end_token_ends(engine):
    assert engine.is_end(2)
    assert not engine.is_end(70)


def test_other_threads_may_tokenize_while_a_step_runs(engine):
    text = "people and water " * 200
    expected = engine.tokenize(text, add_special=True, parse_special=True)
    results = []
    thread = threading.Thread(
        target=lambda: results.extend(tokens_of(engine, text) == expected for _ in range(50))
    )
    thread.start()
    generate(engine, 0, "they said", count=100)
    thread.join(30)
    assert results == [True] * 50


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        Sampling(seed=7),
        Sampling(seed=7, top_k=0, top_p=1.0),
        Sampling(seed=7, repeat_penalty=1.5, presence_penalty=0.5, repeat_last_n=-1),
        Sampling(seed=7, typical_p=0.5, min_p=0.05),
        Sampling(seed=2**40),
    ],
)
def test_same_seed_and_prompt_give_the_same_answer_in_any_fresh_slot(engine, sampling):
    first = generate(engine, 0, "they said", sampling=sampling)
    assert generate(engine, 0, "they said", sampling=sampling) == first
    assert generate(engine, 3, "they said", sampling=sampling) == first


def test_other_seeds_give_other_answers(engine):
    answers = {
        tuple(generate(engine, 0, "they said", sampling=Sampling(seed=seed, temperature=2)))
        for seed in (1, 2, -1, -1)
    }
    assert len(answers) == 4


def test_penalties_see_the_prompt(engine):
    plain = generate(engine, 0, "they said", count=1)
    prompt = tokens_of(engine, "they said") + plain
    forbids = Sampling(temperature=0, presence_penalty=100.0)
    engine.trim(0, 0)
    engine.begin(0, forbids, prompt)
    assert engine.step([Row(0, prompt[:-1], 0, samples=True)]) != plain


@pytest.mark.parametrize(("before", "is_seen"), [(100, True), (5000, False)])
@pytest.mark.parametrize("repeat_last_n", [-1, 2**31 - 1])
def test_penalties_look_back_a_few_thousand_tokens_at_most(before, is_seen, repeat_last_n):
    sampling = Sampling(temperature=0, presence_penalty=10.0, repeat_last_n=repeat_last_n)
    prompt = [1] + [2] * before
    sampler = llama_sampling.Sampler(sampling, prompt, vocab_size=1000, num_ctx=1 << 20)
    logits = np.zeros(1000, np.float32)
    logits[1], logits[3] = 5.0, 1.0
    token = sampler.sample(logits, llama_sampling.CandidateArray(1000))
    sampler.close()
    assert token == (3 if is_seen else 1)


def test_slots_do_not_see_each_other(engine):
    texts = ["they said", "all the people of the water", "how", "when people come"]
    alone = [generate(engine, 0, text) for text in texts]
    prompts = [tokens_of(engine, text) for text in texts]
    for slot in range(SLOTS):
        engine.trim(slot, 0)
        engine.begin(slot, GREEDY, prompts[slot])
    order = [2, 0, 3, 1]
    first = engine.step([Row(slot, prompts[slot], 0, samples=True) for slot in order])
    answers = {slot: [token] for slot, token in zip(order, first, strict=True)}
    for turn in range(23):
        order = order[1:] + order[:1]
        rows = [
            Row(slot, answers[slot][-1:], len(prompts[slot]) + turn, samples=True) for slot in order
        ]
        for slot, token in zip(order, engine.step(rows), strict=True):
            answers[slot].append(token)
    assert [answers[slot] for slot in range(SLOTS)] == alone


def test_idle_slots_between_busy_ones_keep_their_content(engine):
    expected = generate(engine, 0, "they said", count=12)
    for slot in range(SLOTS):
        assert generate(engine, slot, "they said", count=6) == expected[:6]
    length = len(tokens_of(engine, "they said")) + 5
    answers = dict.fromkeys((0, 3), expected[:6])
    for slot in answers:
        engine.begin(slot, GREEDY, [])
    for turn in range(6):
        rows = [Row(slot, answers[slot][-1:], length + turn, samples=True) for slot in answers]
        for slot, token in zip(answers, engine.step(rows), strict=True):
            answers[slot] = [*answers[slot], token]
    assert answers == {0: expected, 3: expected}
    for slot in (1, 2):  # the idle ones go on where they were
        engine.begin(slot, GREEDY, [])
        assert go_on(engine, slot, expected[:6], length, 12) == expected


def test_prompt_in_chunks_beside_decoding_is_the_prompt_at_once(engine):
    expected = generate(engine, 1, "all the people of the water were there")
    other = start(engine, 0, tokens_of(engine, "how"))
    position = len(tokens_of(engine, "how"))
    prompt = tokens_of(engine, "all the people of the water were there")
    engine.trim(1, 0)
    engine.begin(1, GREEDY, prompt)
    answer = []
    for begin in range(0, len(prompt), 3):
        chunk = prompt[begin : begin + 3]
        is_last = begin + 3 >= len(prompt)
        sampled = engine.step(
            [Row(1, chunk, begin, samples=is_last), Row(0, other[-1:], position, samples=True)]
        )
        other.append(sampled[-1])
        position += 1
        answer = sampled[:-1]
    assert go_on(engine, 1, answer, len(prompt), 24) == expected


def test_a_trimmed_prefix_is_as_good_as_a_new_one(engine):
    expected = generate(engine, 0, "they said that people")
    generate(engine, 1, "they said when the water")
    prompt = tokens_of(engine, "they said that people")
    shared = len(tokens_of(engine, "they said"))
    assert engine.trim(1, shared)
    engine.begin(1, GREEDY, prompt)
    answer = engine.step([Row(1, prompt[shared:], shared, samples=True)])
    assert go_on(engine, 1, answer, len(prompt), 24) == expected


def test_trimming_to_more_than_there_is_changes_nothing(engine):
    expected = generate(engine, 0, "they said", count=6)
    length = len(tokens_of(engine, "they said")) + 5
    assert engine.trim(0, length)
    engine.begin(0, GREEDY, [])
    row = Row(0, expected[-1:], length, samples=True)
    assert engine.step([row]) == generate(engine, 1, "they said", count=7)[-1:]


def test_a_copied_prefix_is_as_good_as_a_computed_one(engine):
    expected = generate(engine, 0, "they said that people")
    generate(engine, 1, "they said when the water")
    generate(engine, 2, "something else altogether")
    prompt = tokens_of(engine, "they said that people")
    shared = len(tokens_of(engine, "they said"))
    assert engine.copy(1, 2, shared)
    engine.begin(2, GREEDY, prompt)
    answer = engine.step([Row(2, prompt[shared:], shared, samples=True)])
    assert go_on(engine, 2, answer, len(prompt), 24) == expected


def test_a_copy_right_after_a_shift_is_a_copy_of_what_was_shifted(engine):
    prompt = tokens_of(engine, "they said that people of the water")
    start(engine, 0, prompt)
    engine.shift(0, 1, 2)
    length = len(prompt) - 2
    assert engine.copy(0, 1, length)
    assert engine.copy(1, 2, length)
    row = (prompt[-1:], length)
    logits = [logits_after(engine, slot, Row(slot, *row, samples=True)) for slot in range(3)]
    assert np.array_equal(logits[0], logits[1])
    assert np.array_equal(logits[0], logits[2])


@pytest.mark.parametrize("flash_attention", ["on", "off"])
def test_copies_are_exact_whatever_the_layout_of_the_cache(model, flash_attention):
    engine = load(spec_of(model, flash_attention=flash_attention), lambda _fraction: None)
    expected = generate(engine, 0, "they said that people")
    prompt = tokens_of(engine, "they said that people")
    assert engine.copy(0, 3, len(prompt) - 1)
    engine.begin(3, GREEDY, prompt)
    answer = engine.step([Row(3, prompt[-1:], len(prompt) - 1, samples=True)])
    assert go_on(engine, 3, answer, len(prompt), 24) == expected
    engine.close()


def test_the_source_of_a_copy_may_be_overwritten_at_once(engine):
    expected = generate(engine, 0, "they said that people")
    generate(engine, 1, "they said when the water")
    prompt = tokens_of(engine, "they said that people")
    shared = len(tokens_of(engine, "they said"))
    assert engine.copy(1, 2, shared)
    generate(engine, 1, "how many people write")
    engine.begin(2, GREEDY, prompt)
    answer = engine.step([Row(2, prompt[shared:], shared, samples=True)])
    assert go_on(engine, 2, answer, len(prompt), 24) == expected


def test_copying_more_than_there_is_leaves_the_target_empty(engine):
    generate(engine, 0, "they said", count=2)
    assert not engine.copy(0, 1, 200)
    assert engine.trim(1, 0)
    assert generate(engine, 1, "how") == generate(engine, 2, "how")


def test_shifting_makes_room_in_a_full_slot(engine):
    prompt = engine.tokenize("and " * 300, add_special=True, parse_special=True)[:256]
    answer = start(engine, 0, prompt)
    engine.shift(0, 4, 100)
    assert len(go_on(engine, 0, answer, 156, 100)) == 100
    with pytest.raises(EngineError):
        engine.step([Row(0, [70], 300, samples=False)])


def test_a_shifted_slot_reads_as_if_the_rest_had_moved_down(engine):
    """Shifting rotates cached keys in half precision, so logits agree, but not to the bit."""
    words = engine.tokenize("people water they said when", add_special=False, parse_special=True)
    start(engine, 0, [words[0], *words])
    engine.shift(0, 0, 1)
    shifted = logits_after(engine, 0, Row(0, [80], len(words), samples=True))
    start(engine, 1, words)
    fresh = logits_after(engine, 1, Row(1, [80], len(words), samples=True))
    assert np.corrcoef(shifted, fresh)[0, 1] > 0.9


def test_a_row_at_the_wrong_position_fails_and_the_slot_can_be_trimmed_back(engine):
    prompt = tokens_of(engine, "they said")
    start(engine, 0, prompt)
    with pytest.raises(EngineError, match="not valid"):
        engine.step([Row(0, [70], 99, samples=True)])
    assert engine.trim(0, 0)
    assert generate(engine, 0, "how") == generate(engine, 1, "how")


def test_a_full_slot_fails_and_the_others_go_on(engine):
    full = engine.tokenize("and " * 300, add_special=True, parse_special=True)[:256]
    start(engine, 0, full)
    with pytest.raises(EngineError, match="no room"):
        engine.step([Row(0, [70], 256, samples=True)])
    assert engine.trim(0, 256)
    assert generate(engine, 1, "how") == generate(engine, 2, "how")


@pytest.mark.parametrize("token", [-1, 10**6, 2**40])
def test_tokens_that_do_not_exist_are_an_error_not_a_crash(engine, token):
    engine.begin(0, GREEDY, [])
    with pytest.raises(EngineError):
        engine.step([Row(0, [token], 0, samples=True)])
    assert engine.trim(0, 0)


@pytest.mark.parametrize("count", [0, 600, 2000])
def test_a_step_of_no_or_too_many_tokens_is_an_error(engine, count):
    rows = [Row(slot, [70] * (count // SLOTS), 0, samples=False) for slot in range(SLOTS)]
    with pytest.raises(EngineError, match="a step of"):
        engine.step(rows)


def test_a_full_batch_fits(engine):
    rows = [Row(slot, [70] * 128, 0, samples=False) for slot in range(SLOTS)]
    assert engine.step(rows) == []


@pytest.mark.parametrize("cache_type", ["f16", "f32", "q8_0"])
@pytest.mark.parametrize("flash_attention", ["auto", "on", "off"])
def test_every_way_of_attention_answers(demo_model, cache_type, flash_attention):
    spec = spec_of(demo_model, cache_type=cache_type, flash_attention=flash_attention)
    if cache_type == "q8_0" and flash_attention == "off":
        with pytest.raises(LoadFailed, match="quantized V cache requires flash_attn"):
            load(spec, lambda _fraction: None)
        return
    engine = load(spec, lambda _fraction: None)
    first, second = answers(engine, *["Why is the sky blue?"] * 2)
    assert "Rayleigh scattering" in first
    assert second == first
    engine.close()


def test_safe_kernels_answer_as_fast_ones_do(demo_model, demo_engine):
    engine = load(spec_of(demo_model), lambda _fraction: None, safe=True)
    assert answers(engine, "Why is the sky blue?") == answers(demo_engine, "Why is the sky blue?")
    engine.close()


def test_a_file_that_the_library_cannot_run_says_why(tmp_path):
    path = write_tiny_model(tmp_path / "odd.gguf", architecture="nosuch")
    with pytest.raises(LoadFailed, match="unknown model architecture: 'nosuch'") as failure:
        load(spec_of(path), lambda _fraction: None)
    assert "this model may be incompatible with your version of Ollama" in failure.value.message


def test_garbage_is_a_failed_load(tmp_path):
    path = tmp_path / "garbage.gguf"
    path.write_bytes(b"GGUF" + bytes(range(200)))
    with pytest.raises(LoadFailed, match="unable to load model"):
        load(spec_of(path), lambda _fraction: None)


def test_an_unknown_cache_type_is_named(model):
    with pytest.raises(LoadFailed, match="unknown KV cache type 'q9'"):
        load(spec_of(model, cache_type="q9"), lambda _fraction: None)


def test_a_context_larger_than_memory_is_a_failed_load(model):
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 64 * 1024**2, hard))
    try:
        with pytest.raises(LoadFailed, match="not enough memory for a context of 131072 tokens"):
            load(spec_of(model, num_ctx=2**17), lambda _fraction: None)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(seed=5),
        Sampling(seed=5, top_k=1),
        Sampling(seed=5, top_p=0.3, min_p=0.2, typical_p=0.7),
        Sampling(seed=5, repeat_penalty=1.3, repeat_last_n=8),
        Sampling(seed=5, repeat_penalty=0.5, presence_penalty=-1.0, repeat_last_n=8, top_k=4),
        Sampling(temperature=0, repeat_penalty=1.3, repeat_last_n=8),
        GREEDY,
    ],
)
def test_selecting_first_gives_what_the_whole_chain_gives(sampling, monkeypatch):
    random = np.random.default_rng(3)
    vocab_size = 40_011  # not a multiple of the strand
    rows = random.normal(size=(60, vocab_size)).astype(np.float32) * 3

    def draw():
        sampler = llama_sampling.Sampler(sampling, [5, 6, 7], vocab_size=vocab_size, num_ctx=64)
        candidates = llama_sampling.CandidateArray(vocab_size)
        tokens = [sampler.sample(row, candidates) for row in rows]
        selects = sampler._kept > 0
        sampler.close()
        return tokens, selects

    short, selects = draw()
    assert selects
    monkeypatch.setattr(llama_sampling, "_MAX_KEPT_SHARE", 10**9)
    whole, selects = draw()
    assert not selects
    assert short == whole


def test_broken_logits_still_give_a_token():
    vocab_size = 20_000
    candidates = llama_sampling.CandidateArray(vocab_size)
    for fill in (np.nan, -np.inf, 0.0):
        row = np.full(vocab_size, fill, np.float32)
        for sampling in (Sampling(seed=1), GREEDY):
            sampler = llama_sampling.Sampler(sampling, [], vocab_size=vocab_size, num_ctx=64)
            assert 0 <= sampler.sample(row, candidates) < vocab_size
            sampler.close()
