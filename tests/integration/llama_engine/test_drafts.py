"""Drafts change no token: of any sampler, at any place, right or wrong.

The model is one of random F32 weights, so sums do not depend on how many rows are computed at once
by more than what decides between two tokens.
"""

import itertools

import msgspec
import pytest

from ollama_async.core.conversation import Inference, Prompt, Sampling
from ollama_async.prompts.output_format import Delimiters
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.engine_loop import EngineLoop
from ollama_async.workers.child.engines.engine import EngineError, Row
from ollama_async.workers.child.grammar.constraints import ConstraintFactory
from ollama_async.workers.child.mailbox import Mailbox, PreparedRequest
from ollama_async.workers.messages import Deltas, Done, Failed
from tests.integration.llama_engine.harness import (
    GREEDY,
    generate,
    start,
    tokens_of,
)
from tests.unit.child.loop_harness import EagerLookup

pytestmark = pytest.mark.engine

COUNT = 40
SAMPLINGS = {
    "greedy": GREEDY,
    "seeded": Sampling(seed=7),
    "whole": Sampling(seed=7, top_k=0, top_p=1.0, temperature=1.5),
    "penalties": Sampling(seed=7, repeat_penalty=1.4, presence_penalty=0.5, repeat_last_n=-1),
    "greedy penalties": Sampling(temperature=0, frequency_penalty=0.8, repeat_last_n=8),
    "mirostat": Sampling(seed=7, mirostat=1),
    "mirostat 2": Sampling(seed=7, mirostat=2),
    "bias": Sampling(seed=7, logit_bias={5: 8.0, 70: -3.0}),
}


def draft(answer, at, count, wrong):
    """``count`` tokens of ``answer`` from ``at`` on, of which the one at ``wrong`` is not so."""
    drafts = answer[at : at + count]
    if 0 <= wrong < len(drafts):
        drafts[wrong] = (drafts[wrong] + 1) % 64
    return drafts


def generate_with_drafts(engine, slot, text, answer, sampling, constraint=None, size=5):
    """As ``generate``, with drafts that are right up to a place that changes."""
    prompt = tokens_of(engine, text)
    assert engine.trim(slot, 0)
    engine.begin(slot, sampling, prompt, constraint)
    said = engine.step([Row(slot, prompt, 0, samples=True)])
    for wrong in itertools.cycle(range(size + 1)):
        drafts = draft(answer, len(said), min(size, len(answer) - len(said) - 1), wrong)
        if len(said) == len(answer):
            engine.end(slot)
            return said
        position = len(prompt) + len(said) - 1
        row = Row(slot, [said[-1], *drafts], position, samples=True, drafts=len(drafts))
        (tokens,) = engine.verify([row])
        tokens = list(tokens)
        assert len(tokens) == 1 + min(wrong, len(drafts))
        said += tokens
        assert engine.trim(slot, len(prompt) + len(said) - 1)
    raise AssertionError


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_the_answer_is_the_same_with_drafts(engine, sampling):
    answer = generate(engine, 0, "they said", COUNT, sampling)
    assert generate_with_drafts(engine, 1, "they said", answer, sampling) == answer


def test_constrained_answers_are_the_same_with_drafts(engine):
    def constrain():
        inference = Inference(Prompt(), GREEDY, format={"type": "array"})
        return ConstraintFactory(engine).constrain(inference, "", Delimiters(), {})

    sampling = Sampling(seed=3, temperature=2)
    prompt, answer = tokens_of(engine, "they said"), []
    engine.begin(0, sampling, prompt, constraint := constrain())
    answer += engine.step([Row(0, prompt, 0, samples=True)])
    while len(answer) < COUNT and not constraint.is_over:
        position = len(prompt) + len(answer) - 1
        answer += engine.step([Row(0, answer[-1:], position, samples=True)])
    engine.end(0)
    drafted = generate_with_drafts(engine, 1, "they said", answer, sampling, constrain())
    assert drafted == answer


def test_streams_with_and_without_drafts_share_a_step(engine):
    texts = ["they said", "people and water", "a long first day"]
    answers = [generate(engine, 3, text, COUNT) for text in texts]
    prompts = [tokens_of(engine, text) for text in texts]
    said = [start(engine, slot, prompt) for slot, prompt in enumerate(prompts)]
    for counts in itertools.cycle([(3, 0, 9), (0, 5, 0), (15, 0, 0)]):
        rows = []
        for slot, count in enumerate(counts):
            drafts = draft(answers[slot], len(said[slot]), count, count - 1)
            tokens = [said[slot][-1], *drafts]
            position = len(prompts[slot]) + len(said[slot]) - 1
            rows.append(Row(slot, tokens, position, samples=True, drafts=len(drafts)))
        rows.reverse()
        for row, tokens in zip(rows, engine.verify(rows), strict=True):
            said[row.slot] += tokens
            assert engine.trim(row.slot, len(prompts[row.slot]) + len(said[row.slot]) - 1)
        if min(map(len, said)) >= 20:
            break
    assert [tokens[:COUNT] for tokens in said] == [
        answer[: len(tokens)] for answer, tokens in zip(answers, said, strict=True)
    ]


def test_the_caller_may_stop_anywhere(engine):
    answer = generate(engine, 0, "they said", COUNT)
    prompt = tokens_of(engine, "they said")
    first = start(engine, 1, prompt)
    drafts = answer[1:6]
    (tokens,) = engine.verify(
        [Row(1, [*first, *drafts], len(prompt), samples=True, drafts=len(drafts))]
    )
    said = [*first, *itertools.islice(tokens, 2)]
    assert engine.trim(1, len(prompt) + 2)
    said += engine.step([Row(1, said[-1:], len(prompt) + 2, samples=True)])
    assert said == answer[:4]


def test_an_end_is_the_last_token(engine, monkeypatch):
    answer = generate(engine, 0, "they said", COUNT)
    monkeypatch.setattr(engine, "is_end", lambda token: token == answer[3])
    assert answer[3] not in answer[:3]
    prompt = tokens_of(engine, "they said")
    first = start(engine, 1, prompt)
    row = Row(1, [*first, *answer[1:8]], len(prompt), samples=True, drafts=7)
    (tokens,) = engine.verify([row])
    assert list(tokens) == answer[1:4]


def test_logprobs_of_a_row_without_drafts_are_its_own(engine):
    prompt = tokens_of(engine, "they said")
    first = start(engine, 2, prompt)
    alone = engine.step([Row(2, first, len(prompt), samples=True)])
    expected = engine.logprobs(2, *alone, 3)
    assert engine.trim(2, len(prompt))
    start(engine, 0, prompt)
    rows = [Row(0, [1] * 4, len(prompt), samples=True, drafts=3)]
    rows.append(Row(2, first, len(prompt), samples=True))
    tokens = [list(each) for each in engine.verify(rows)]
    assert tokens[1] == alone
    logprob, top = engine.logprobs(2, *alone, 3)
    assert logprob == pytest.approx(expected[0], abs=1e-4)
    assert [token for token, _ in top] == [token for token, _ in expected[1]]


def test_a_slot_that_has_not_begun_fails_the_step(engine):
    with pytest.raises(EngineError):
        engine.verify([Row(0, [1, 2], 0, samples=True, drafts=1)])


def answer_all(engine, requests, lookup=None):
    """What the loop says to all of ``requests``, and how many steps it takes."""
    said, ends, mailbox = {}, [], Mailbox()

    def hear(messages):
        for message in messages:
            if isinstance(message, Deltas):
                for number, text in message.items:
                    said[number] = said.get(number, "") + text
            elif isinstance(message, Done | Failed):
                assert isinstance(message, Done), message
                ends.append((message.id, message.reason, message.usage.answer))

    loop = EngineLoop(engine, mailbox, hear, BatchPlanner(64), lookup=lookup)
    for request in requests:
        mailbox.expect(request.id)
        mailbox.hand_over(request.id, [request])
    steps = 0
    while len(ends) < len(requests):
        loop.iterate(idle_s=0)
        steps += 1
    for request in requests:
        assert engine.trim(request.id - 1, 0)
    return said, sorted(ends), steps


@pytest.mark.parametrize("streams", [1, 3])
def test_a_loop_says_the_same_with_drafts(engine, streams):
    text = "the people and the water of that long first day said the people and the water"
    settings = [GREEDY, SAMPLINGS["greedy penalties"], Sampling(seed=5, temperature=0.3)]

    def requests():
        return [
            PreparedRequest(
                *(number, tokens_of(engine, text), msgspec.structs.replace(settings[number - 1])),
                num_ctx=256,
                keep=0,
                max_tokens=150,
                shift=False,
                returns_context=False,
            )
            for number in range(1, streams + 1)
        ]

    plain = answer_all(engine, requests())
    drafted = answer_all(engine, requests(), EagerLookup(is_invariant=True))
    assert drafted[:2] == plain[:2]
    assert drafted[2] < plain[2]


def test_drafting_needs_a_model_that_forgets_nothing_else(engine):
    assert engine.facts.can_draft
