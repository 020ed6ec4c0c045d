"""The engine loop: prefixes that are reused, copied, or not."""

import pytest

from ollama_async.workers.child.batching import FIXED_CHUNK
from ollama_async.workers.messages import Cancel, Started
from tests.unit.child.loop_harness import LoopHarness, prepared


@pytest.fixture
def harness(fake_engine):
    return LoopHarness(fake_engine())


def test_a_conversation_goes_on_in_its_slot(harness, answer_to):
    harness.put(prepared(1, range(20), 4, returns_context=True))
    history = harness.finish(1).ends()[1].context
    harness.put(prepared(2, [9] * 20, 4))
    harness.finish(2)
    prompt = [*history, 5, 6]
    harness.put(prepared(3, prompt, 4))
    harness.finish(3)

    assert harness.texts()[3] == answer_to(prompt, 4)
    assert harness.ends()[3].usage.cached == len(history) - 1  # the last token was never evaluated
    assert harness.engine.copies == []


def test_the_same_prompt_again_is_evaluated_from_its_last_token_on(harness, answer_to):
    harness.put(prepared(1, range(20), 1))
    harness.finish(1)
    harness.put(prepared(2, range(20), 4))
    harness.finish(2)

    assert harness.ends()[2].usage.cached == 19
    assert harness.texts()[2] == answer_to(range(20), 4)


def test_a_shared_beginning_is_copied_into_other_slots(fake_engine, answer_to):
    engine = fake_engine(slots=3, num_ctx=200, batch_size=128)
    harness = LoopHarness(engine)
    shared = [3] * 60
    prompts = {number: [*shared, number, number] for number in (1, 2, 3)}
    harness.put(*(prepared(number, prompt, 8, num_ctx=200) for number, prompt in prompts.items()))
    harness.finish(1, 2, 3)

    assert {number: harness.texts()[number] for number in prompts} == {
        number: answer_to(prompt, 8) for number, prompt in prompts.items()
    }
    evaluated = sum(end.usage.prompt - end.usage.cached for end in harness.ends().values())
    assert evaluated == 62 + 2 + 2
    assert len(engine.copies) == 2


@pytest.mark.parametrize("kind", [{"can_copy": False}, {"can_trim": False}])
def test_models_that_cannot_copy_compute_again(fake_engine, answer_to, kind):
    harness = LoopHarness(fake_engine(num_ctx=200, batch_size=128, **kind))
    prompts = {number: [*[3] * 60, number] for number in (1, 2, 3)}
    harness.put(*(prepared(number, prompt, 8, num_ctx=200) for number, prompt in prompts.items()))
    harness.finish(1, 2, 3)

    for number, prompt in prompts.items():
        assert harness.texts()[number] == answer_to(prompt, 8)


def test_a_model_that_cannot_trim_still_continues_what_a_slot_holds(fake_engine, answer_to):
    harness = LoopHarness(fake_engine(can_trim=False))
    harness.put(prepared(1, range(20), 1))
    harness.finish(1)
    harness.put(prepared(2, range(30), 4))
    harness.finish(2)

    assert harness.ends()[2].usage.cached == 20
    assert harness.texts()[2] == answer_to(range(30), 4)


def test_a_seed_means_that_nothing_is_reused_and_chunks_are_the_same(fake_engine):
    engine = fake_engine(num_ctx=1000, batch_size=512)
    harness = LoopHarness(engine)
    prompt = [5] * 300
    steps = []
    for number in (1, 2, 3):
        engine.steps.clear()
        harness.put(prepared(number, prompt, 3, num_ctx=1000, seed=7))
        harness.finish(number)
        steps.append([[tokens for _, tokens, _ in rows] for rows in engine.steps])

    assert steps[0] == steps[1] == steps[2]
    assert steps[0][0] == [FIXED_CHUNK]
    assert harness.ends()[3].usage.cached == 0


def starts(harness):
    """The tokens of the prompt and the cached ones, by request, as they were told at the start."""
    return {m.id: (m.prompt, m.cached) for m in harness.sent() if isinstance(m, Started)}


@pytest.mark.parametrize("kind", [{}, {"can_copy": False}, {"can_trim": False}])
def test_an_answer_begins_with_the_numbers_that_it_ends_with(fake_engine, kind):
    harness = LoopHarness(fake_engine(slots=3, num_ctx=200, batch_size=128, **kind))
    shared = [3] * 60
    harness.put(
        prepared(1, [*shared, 1], 8, num_ctx=200),  # afresh
        prepared(2, [*shared, 2], 8, num_ctx=200),  # copied, if that can be
    )
    harness.finish(1, 2)
    harness.put(prepared(3, [*shared, 1, 4], 8, num_ctx=200))  # continued
    harness.finish(3)
    harness.put(prepared(4, [*shared, 1], 8, num_ctx=200, seed=7))  # never reused
    harness.put(prepared(5, shared, 0))  # not computed
    harness.finish(4, 5)

    ends = {number: end.usage for number, end in harness.ends().items()}
    assert starts(harness) == {number: (end.prompt, end.cached) for number, end in ends.items()}
    assert starts(harness)[1] == (61, 0)
    assert starts(harness)[4] == (61, 0)
    assert starts(harness)[5] == (60, 0)
    if not kind:
        assert starts(harness)[2] == (61, 60)
        assert starts(harness)[3] == (62, 61)


def test_an_answer_that_is_cancelled_in_its_prompt_has_begun(fake_engine):
    harness = LoopHarness(fake_engine(slots=1, num_ctx=1000, batch_size=64))
    harness.put(prepared(1, [1] * 900, 5, num_ctx=1000), prepared(2, [1] * 900, 5, num_ctx=1000))
    harness.iterate(2)
    harness.put(Cancel(1), Cancel(2))
    harness.finish(1, 2)

    assert starts(harness) == {1: (900, 0)}
    assert harness.ends()[1].usage.cached == 0
