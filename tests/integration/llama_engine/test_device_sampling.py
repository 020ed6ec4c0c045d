"""Sampling in the graph gives what sampling here gives. The device is the CPU, which knows all of
the chains' operations; what a GPU does is not tested.
"""

import llama_cpp.llama_cpp as lib
import numpy as np
import pytest

from ollama_async.core.conversation import Inference, Prompt, Sampling
from ollama_async.prompts.output_format import Delimiters
from ollama_async.workers.child.engines import llama_device_sampling
from ollama_async.workers.child.engines.engine import Row
from ollama_async.workers.child.engines.llama_cpp import load
from ollama_async.workers.child.engines.llama_device_sampling import chain_key
from ollama_async.workers.child.engines.llama_sampling import Sampler
from ollama_async.workers.child.grammar.constraints import ConstraintFactory
from tests.integration.llama_engine.harness import GREEDY, SLOTS, go_on, spec_of, start, tokens_of

pytestmark = pytest.mark.engine

TEXTS = ["they said", "people and water", "a long first day", "the end of it"]
PENALTIES = Sampling(temperature=0, repeat_penalty=1.3, frequency_penalty=0.4, repeat_last_n=12)
DRAWN = Sampling(temperature=1.3, top_k=30, top_p=0.9, min_p=0.02)


@pytest.fixture
def device_engine(model):
    engine = load(spec_of(model), lambda _fraction: None)
    engine.sample_on_device(seed=7)
    yield engine
    engine.close()


def say_all(engine, samplings, count=24, *, needs_logits=(), texts=TEXTS):
    """What all slots say at once to their texts."""
    prompts = [tokens_of(engine, text) for text in texts]
    for slot, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True)):
        assert engine.trim(slot, 0)
        engine.begin(slot, sampling, prompt, needs_logits=slot in needs_logits)
    said = [[] for _ in prompts]
    rows = [Row(slot, prompt, 0, samples=True) for slot, prompt in enumerate(prompts)]
    while len(said[0]) < count:
        for row, token in zip(rows, engine.step(rows), strict=True):
            said[row.slot].append(token)
            if row.slot in needs_logits:
                assert engine.logprobs(row.slot, token, 1)[1][0][0] == token
        rows = [
            Row(slot, tokens[-1:], len(prompts[slot]) + len(tokens) - 1, samples=True)
            for slot, tokens in enumerate(said)
        ]
    for slot in range(len(prompts)):
        engine.end(slot)
    return said


def attached(engine):
    return sorted(engine._device._attached)


@pytest.mark.parametrize("sampling", [GREEDY, PENALTIES], ids=["plain", "penalties"])
def test_greedy_answers_are_the_same(engine, device_engine, sampling):
    for _ in range(2):  # the second time, the chains are there
        expected = say_all(engine, [sampling] * SLOTS)
        assert say_all(device_engine, [sampling] * SLOTS) == expected
        assert attached(device_engine) == list(range(SLOTS))


def test_the_next_request_of_a_slot_has_penalties_of_its_own(engine, device_engine):
    say_all(device_engine, [PENALTIES] * SLOTS)
    other = TEXTS[::-1]
    expected = say_all(engine, [PENALTIES] * SLOTS, texts=other)
    assert say_all(device_engine, [PENALTIES] * SLOTS, texts=other) == expected


def probabilities(logits, sampling):
    """What ``sampling`` makes of the logits, computed afresh."""
    order = np.argsort(-logits, kind="stable")[: sampling.top_k]
    shares = np.exp(logits[order].astype(float) - logits.max())
    shares /= shares.sum()
    count = int(np.searchsorted(np.cumsum(shares), sampling.top_p)) + 1
    order, shares = order[:count], shares[:count]
    likely = shares >= sampling.min_p * shares[0]
    order, shares = order[likely], shares[likely]
    heated = shares ** (1 / sampling.temperature)
    return dict(zip(order.tolist(), heated / heated.sum(), strict=True))


@pytest.mark.slow
def test_tokens_are_drawn_with_their_probabilities(engine, device_engine):
    """The same token is sampled again and again. With the seed, it is the same each time; the bound
    is one that another seed would break once in a million times.
    """
    prompt = tokens_of(engine, TEXTS[0])
    start(engine, 0, prompt)
    expected = probabilities(engine.read_logits()[0].copy(), DRAWN)
    for slot in range(SLOTS):
        device_engine.begin(slot, DRAWN, prompt)
    rows = [Row(slot, prompt, 0, samples=True) for slot in range(SLOTS)]
    device_engine.step(rows)
    last = len(prompt) - 1
    rows = [Row(slot, prompt[-1:], last, samples=True) for slot in range(SLOTS)]
    counts = dict.fromkeys(expected, 0)
    draws = 0
    while draws < 4000:
        for slot in range(SLOTS):
            assert device_engine.trim(slot, last)
        for token in device_engine.step(rows):
            counts[token] += 1  # no other token may come
            draws += 1
    assert attached(device_engine) == list(range(SLOTS))
    deviations = [
        (counts[token] - draws * share) ** 2 / (draws * share) for token, share in expected.items()
    ]
    freedom = len(expected) - 1
    assert freedom >= 5
    bound = freedom + 2 * np.sqrt(freedom * np.log(1e6)) + 2 * np.log(1e6)
    assert sum(deviations) < bound


def test_what_needs_the_host_is_sampled_there_beside_chains(engine, device_engine):
    mixed = [GREEDY, Sampling(seed=5), PENALTIES, Sampling(temperature=0, logit_bias={70: 3.0})]
    expected = say_all(engine, mixed)
    say_all(device_engine, [GREEDY] * SLOTS)
    assert say_all(device_engine, mixed) == expected
    assert 0 in attached(device_engine)
    assert not {1, 3} & set(attached(device_engine))


def test_logprobs_are_there_where_they_are_needed(engine, device_engine):
    expected = say_all(engine, [GREEDY] * SLOTS)
    say_all(device_engine, [GREEDY] * SLOTS)
    assert say_all(device_engine, [GREEDY] * SLOTS, needs_logits={2}) == expected
    assert attached(device_engine) == [0, 1, 3]


def test_few_streams_have_no_chains_and_drafts_remove_them(engine, device_engine):
    answer = say_all(engine, [GREEDY] * SLOTS)[0]
    prompt = tokens_of(engine, TEXTS[0])
    assert device_engine.trim(0, 0)
    assert go_on(device_engine, 0, start(device_engine, 0, prompt), len(prompt), 24) == answer
    assert attached(device_engine) == []
    device_engine.end(0)

    say_all(device_engine, [GREEDY] * SLOTS)
    assert device_engine.trim(0, 0)
    first = start(device_engine, 0, prompt)
    row = Row(0, [*first, *answer[1:6]], len(prompt), samples=True, drafts=5)
    (tokens,) = device_engine.verify([row])
    assert [*first, *tokens] == answer[:7]
    assert attached(device_engine) == [1, 2, 3]


def test_chains_are_not_added_in_every_step(device_engine, monkeypatch):
    changes = []
    set_sampler = lib.llama_set_sampler

    def counted(context, slot, chain):
        changes.append((slot, chain is not None))
        return set_sampler(context, slot, chain)

    monkeypatch.setattr(lib, "llama_set_sampler", counted)
    for sampling in (GREEDY, PENALTIES, GREEDY, PENALTIES):
        say_all(device_engine, [sampling] * SLOTS, count=16)
    assert changes.count((0, True)) == 1
    say_all(device_engine, [PENALTIES] * SLOTS, count=64)
    assert changes.count((0, True)) == 2


def test_a_device_that_cannot_is_not_used(engine, device_engine, monkeypatch):
    expected = say_all(engine, [GREEDY] * SLOTS)
    monkeypatch.setattr(
        llama_device_sampling.lib, "llama_get_sampled_token_ith", lambda *_arguments: -1
    )
    assert say_all(device_engine, [GREEDY] * SLOTS) == expected
    assert attached(device_engine) == []


def test_a_library_that_refuses_is_not_asked_again(engine, device_engine, monkeypatch):
    asked = []
    monkeypatch.setattr(
        llama_device_sampling.lib,
        "llama_set_sampler",
        lambda *arguments: bool(asked.append(arguments)),
    )
    expected = say_all(engine, [GREEDY] * SLOTS, count=100)
    assert say_all(device_engine, [GREEDY] * SLOTS, count=100) == expected
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("sampling", "is_possible"),
    [
        (GREEDY, True),
        (PENALTIES, True),
        (DRAWN, True),
        (Sampling(temperature=0, seed=1), True),
        (Sampling(seed=1), False),
        (Sampling(mirostat=1), False),
        (Sampling(mirostat=2), False),
        (Sampling(typical_p=0.5), False),
        (Sampling(top_k=0), False),
        (Sampling(top_k=100_000), False),
        (Sampling(logit_bias={1: 1.0}), False),
    ],
)
def test_some_requests_need_the_host(sampling, is_possible):
    sampler = Sampler(sampling, [1], vocab_size=1000, num_ctx=64)
    assert (chain_key(sampling, sampler) is not None) == is_possible
    sampler.close()


def test_constrained_answers_need_the_host(device_engine):
    inference = Inference(Prompt(), GREEDY, format="json")
    constraint = ConstraintFactory(device_engine).constrain(inference, "", Delimiters(), {})
    device_engine.begin(0, GREEDY, [1], constraint)
    assert device_engine._chain_keys[0] is None


def test_the_host_samples_where_there_is_no_device(engine):
    say_all(engine, [GREEDY] * SLOTS)
    assert engine._device is None
