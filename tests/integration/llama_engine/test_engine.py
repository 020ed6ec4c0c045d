"""The real engine: what the batcher relies on.

Where answers are compared to the last token, whatever is in them, the model is one of random F32
weights: sums are exact enough, and no answer ends. What an engine may lose (kernels, attention,
company) is asked of the model of the package, which would say something else.
"""

import math
import resource
import threading

import msgspec
import numpy as np
import psutil
import pytest

from ollama_async.core.conversation import Sampling
from ollama_async.core.errors import LoadFailed
from ollama_async.native.tiny_model import write_tiny_model
from ollama_async.workers.child.engines import llama_model, llama_sampling
from ollama_async.workers.child.engines.engine import Row
from ollama_async.workers.child.engines.llama_cpp import load
from ollama_async.workers.child.engines.logits import log_probabilities
from tests.growth import is_linear
from tests.integration.llama_engine.harness import (
    GREEDY,
    QUESTIONS,
    SLOTS,
    answers,
    generate,
    spec_of,
    start,
    tokens_of,
)

pytestmark = pytest.mark.engine


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


@pytest.mark.parametrize("cache_type", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("head_size", [32, 64, 96])
def test_a_context_is_shifted_only_where_the_library_can_move_its_keys(
    tmp_path, head_size, cache_type
):
    path = write_tiny_model(tmp_path / "tiny.gguf", width=2 * head_size, heads=2, kv_heads=1)
    engine = load(spec_of(path, cache_type=cache_type), lambda _fraction: None)
    assert engine.facts.can_shift == (cache_type == "f16" or head_size == 64)
    if engine.facts.can_shift:
        start(engine, 0, list(range(5, 105)))
        engine.shift(0, 4, 48)
        assert len(engine.step([Row(0, [7], 52, samples=True)])) == 1
    engine.close()


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


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("parses", [False, True])
def test_a_text_that_is_tokenized_in_pieces_has_the_tokens_of_the_whole(
    demo_engine, monkeypatch, adds, parses
):
    text = "<|im_start|>user\nWhat is a panda?  <|im_end|>\n<|im_start|><|im_end|>" * 1000
    options = {"add_special": adds, "parse_special": parses}
    tokens = demo_engine.tokenize(text, **options)
    monkeypatch.setattr(llama_model, "SHORT_BYTES", len(text))
    assert demo_engine.tokenize(text, **options) == tokens


@pytest.mark.slow
def test_the_time_to_tokenize_control_tokens_is_linear(demo_engine):
    def prepare(size):
        text = "<|im_start|>x" * size
        return lambda: demo_engine.tokenize(text, add_special=False, parse_special=True)

    assert is_linear(prepare, 1000)


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
        Sampling(seed=5, logit_bias={7: 9.0, 40_010: 10.0, 8: -100.0}),
        Sampling(temperature=0, repeat_penalty=1.3, logit_bias={7: 20.0, 9: 19.0}),
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
    monkeypatch.setattr(llama_sampling, "can_find_largest", lambda *_: False)
    whole, selects = draw()
    assert not selects
    assert short == whole


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        Sampling(seed=5),
        Sampling(seed=5, top_k=0),
        Sampling(seed=5, mirostat=2),
        Sampling(temperature=0, repeat_penalty=1.3),
    ],
)
def test_a_bias_applies_on_every_path_and_leaves_the_logits_as_they_are(sampling):
    vocab_size = 20_000
    row = np.random.default_rng(3).normal(size=vocab_size).astype(np.float32)
    kept = row.copy()
    best = int(row.argmax())

    def draw(bias):
        biased = msgspec.structs.replace(sampling, logit_bias=bias)
        sampler = llama_sampling.Sampler(biased, [], vocab_size=vocab_size, num_ctx=64)
        token = sampler.sample(row, llama_sampling.CandidateArray(vocab_size))
        sampler.close()
        return token

    assert draw({13: 100.0}) == 13
    assert draw({13: 100.0, 14: 99.0, best: -100.0}) == 13
    assert draw({best: -100.0}) != best
    assert (row == kept).all()


def share_of(sampling, logits, draws=3000):
    """How often each token is drawn, beside some that are impossible."""
    row = np.full(64, -1000, np.float32)
    row[: len(logits)] = logits
    candidates = llama_sampling.CandidateArray(64)
    counts = np.zeros(64)
    sampler = llama_sampling.Sampler(sampling, [], vocab_size=64, num_ctx=64)
    for _ in range(draws):
        counts[sampler.sample(row, candidates)] += 1
    sampler.close()
    return counts[: len(logits)] / draws


FAIR = {"seed": 5, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
PROBABILITIES = np.array([0.5, 0.25, 0.15, 0.1])


def renormalized(*tokens):
    kept = np.zeros(4)
    kept[list(tokens)] = PROBABILITIES[list(tokens)]
    return kept / kept.sum()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, renormalized(0, 1, 2, 3)),
        ({"min_p": 0.25}, renormalized(0, 1, 2)),  # relative to the best: at least 0.125
        ({"min_p": 0.35}, renormalized(0, 1)),
        ({"min_p": 1.0}, renormalized(0)),
        ({"top_p": 0.7}, renormalized(0, 1)),
        ({"top_p": 0.8}, renormalized(0, 1, 2)),
        ({"top_k": 2}, renormalized(0, 1)),
        # entropy 1.21; the distances of -log p from it: 0.51, 0.18, 0.69, 1.09
        ({"typical_p": 0.2}, renormalized(1)),
        ({"typical_p": 0.7}, renormalized(0, 1)),
        ({"typical_p": 0.8}, renormalized(0, 1, 2)),
        ({"temperature": 0.5}, PROBABILITIES**2 / (PROBABILITIES**2).sum()),
        ({"logit_bias": {3: math.log(5)}}, np.array([0.5, 0.25, 0.15, 0.5]) / 1.4),
    ],
)
def test_samplers_draw_with_the_probabilities_of_their_mathematics(options, expected):
    share = share_of(Sampling(**{**FAIR, **options}), np.log(PROBABILITIES))
    assert share == pytest.approx(expected, abs=0.04)
    assert ((share > 0) == (expected > 0)).all()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"repeat_penalty": 2.0}, [1.0, 2.0, 3.0, -8.0]),
        ({"presence_penalty": 1.0}, [1.0, 3.0, 3.0, -5.0]),
        ({"frequency_penalty": 0.5}, [1.0, 3.5, 3.0, -5.0]),  # seen once and twice
        ({"frequency_penalty": 0.5, "repeat_last_n": 1}, [2.0, 3.5, 3.0, -4.0]),
        ({"repeat_penalty": 2.0, "repeat_last_n": 0}, [2.0, 4.0, 3.0, -4.0]),
    ],
)
def test_penalties_change_logits_by_their_mathematics(options, expected):
    """The prompt was 0 0 3 3 1; each token's logit is found by comparison with another."""
    logits = np.array([2.0, 4.0, 3.0, -4.0], np.float32)
    prompt = [0, 0, 3, 3, 1]
    for token, value in enumerate(expected):
        for margin, wins in ((-0.01, True), (0.01, False)):
            row = np.full(64, -1000, np.float32)
            row[:4] = logits
            row[[other for other in range(4) if other != token]] = -1000
            row[9] = value + margin
            sampling = Sampling(temperature=0, **options)
            sampler = llama_sampling.Sampler(sampling, prompt, vocab_size=64, num_ctx=64)
            chosen = sampler.sample(row, llama_sampling.CandidateArray(64))
            sampler.close()
            assert (chosen == token) == wins, (token, value + margin)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_keeps_the_surprise_near_its_target(version):
    random = np.random.default_rng(3)
    rows = random.normal(size=(300, 5000)).astype(np.float32) * 4
    surprises = {}
    for target in (2.0, 5.0):
        sampling = Sampling(seed=5, temperature=1.0, mirostat=version, mirostat_tau=target)
        sampler = llama_sampling.Sampler(sampling, [], vocab_size=5000, num_ctx=64)
        candidates = llama_sampling.CandidateArray(5000)
        drawn = []
        for row in rows:
            token = sampler.sample(row, candidates)
            drawn.append(-log_probabilities(row, token, 0)[0] / math.log(2))
        sampler.close()
        surprises[target] = float(np.mean(drawn[100:]))
    assert 1.0 < surprises[2.0] < 3.5
    assert surprises[5.0] > surprises[2.0] + 1.0


def test_mirostat_without_temperature_takes_the_most_likely_token(engine):
    assert generate(engine, 0, "they said", sampling=Sampling(temperature=0, mirostat=2)) == (
        generate(engine, 0, "they said")
    )


def test_logprobs_are_those_of_the_raw_logits_whatever_the_sampling(engine):
    prompt = tokens_of(engine, "they said")
    found = []
    for sampling in (
        GREEDY,
        Sampling(seed=5, temperature=2),
        Sampling(temperature=0, repeat_penalty=1.5, logit_bias={70: 100.0}),
    ):
        engine.trim(0, 0)
        engine.begin(0, sampling, prompt)
        [token] = engine.step([Row(0, prompt, 0, samples=True)])
        logits = engine.read_logits()[0].astype(np.float64)
        expected = logits - math.log(np.exp(logits).sum())
        logprob, best = engine.logprobs(0, token, 20)
        assert logprob == pytest.approx(expected[token], abs=1e-4)
        assert [value for _, value in best] == pytest.approx(np.sort(expected)[:-21:-1], abs=1e-4)
        found.append(best)
        engine.end(0)
    assert found[0] == found[1] == found[2]


def test_suppressed_tokens_are_in_no_list(engine, monkeypatch):
    prompt = tokens_of(engine, "they said")
    plain = start(engine, 0, prompt)
    best = [token for token, _ in engine.logprobs(0, plain[0], 3)[1]]
    engine.end(0)
    engine.trim(0, 0)
    monkeypatch.setattr(engine._tokenizer, "suppressed", best[:2])
    [token] = start(engine, 0, prompt)
    logprob, rest = engine.logprobs(0, token, 20)
    assert token == best[2]
    assert rest[0] == (token, logprob)
    assert not {token for token, _ in rest} & set(best[:2])
    assert math.isfinite(logprob)


def test_broken_logits_still_give_a_token():
    vocab_size = 20_000
    candidates = llama_sampling.CandidateArray(vocab_size)
    for fill in (np.nan, -np.inf, 0.0):
        row = np.full(vocab_size, fill, np.float32)
        for sampling in (Sampling(seed=1), GREEDY):
            sampler = llama_sampling.Sampler(sampling, [], vocab_size=vocab_size, num_ctx=64)
            assert 0 <= sampler.sample(row, candidates) < vocab_size
            sampler.close()
