"""The slots of the real engine: apart from each other, trimmed, copied, shifted, full."""

import numpy as np
import pytest

from ollama_async.workers.child.engines.engine import EngineError, Row
from ollama_async.workers.child.engines.llama_cpp import load
from tests.integration.llama_engine.harness import (
    GREEDY,
    SLOTS,
    generate,
    go_on,
    logits_after,
    spec_of,
    start,
    tokens_of,
)

pytestmark = pytest.mark.engine


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
