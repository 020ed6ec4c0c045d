"""What every engine owes the batcher (``workers/child/engines/port.py``), whatever it computes.

A new engine is one more row of ``ENGINES``. Its model must be the same each time it is loaded, and
answer any text greedily with at least 20 tokens. So it is not the one in the package, which ends
its answers, and is unsure of what to say to text that it was not taught.
"""

import json
import math
from collections import defaultdict
from unittest.mock import Mock

import numpy as np
import pytest

from ollama_async.core.conversation import Inference, Prompt, Sampling
from ollama_async.native.tiny_model import write_tiny_model
from ollama_async.prompts.output_format import Delimiters
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.engine_loop import EngineLoop
from ollama_async.workers.child.engines import scripted
from ollama_async.workers.child.engines.engine import EngineError, Row
from ollama_async.workers.child.grammar.constraints import ConstraintFactory
from ollama_async.workers.child.mailbox import Mailbox, PreparedRequest
from ollama_async.workers.load_spec import LoadSpec
from ollama_async.workers.messages import Cancel, Deltas, Done

SLOTS = 4
NUM_CTX = 256
POOL_CELLS = 512
BATCH = 128
GREEDY = Sampling(temperature=0)
PENALIZING = Sampling(temperature=1.5, repeat_penalty=1.3, seed=3)
TEXT = "the people and the water of that long first day"


def load_scripted(folder, cells=0):
    path = folder / "scripts.json"
    script = {"tokens": "one two three", "repeat": True, "cells": cells}
    path.write_text(json.dumps({"m": script}))
    spec = LoadSpec(engine="scripted", model="m", num_ctx=NUM_CTX, slots=SLOTS)
    return scripted.load(spec, str(path), lambda _fraction: None)


def load_scripted_pool(folder):
    return load_scripted(folder, POOL_CELLS)


def load_llama_cpp(folder, kernels=None, **options):
    from ollama_async.workers.child.engines import llama_cpp  # the library may be missing

    spec = LoadSpec(
        engine="llama_cpp",
        model=str(write_tiny_model(folder / "tiny.gguf", quantization="Q8_0")),
        num_ctx=NUM_CTX,
        slots=SLOTS,
        batch_size=BATCH,
        threads=1,
        # else the sums of stock depend on how a prompt is cut
        **{"flash_attention": "off", **options},
    )
    options = {"kernels": kernels} if kernels else {}
    return llama_cpp.load(spec, lambda _fraction: None, **options)


def load_llama_cpp_pool(folder):
    """With the attention of stock, which is slow in a pool: kernels cannot be unregistered again,
    and other tests would get them.
    """
    from ollama_async.workers.child.engines import llama_context
    from ollama_async.workers.child.engines.llama_kernels import KernelChoice, KernelUse

    with pytest.MonkeyPatch.context() as patch:
        use = KernelUse("stock", has_attention=True)
        patch.setattr(llama_context, "try_kernels", lambda *_arguments: use)
        pool = {"pool_slots": SLOTS, "pool_cells": POOL_CELLS, "flash_attention": "auto"}
        return load_llama_cpp(folder, KernelChoice(Mock()), **pool)


ENGINES = [
    pytest.param(load_scripted, id="scripted"),
    pytest.param(load_scripted_pool, id="scripted, pool"),
    pytest.param(load_llama_cpp, id="llama_cpp", marks=pytest.mark.engine),
    pytest.param(load_llama_cpp_pool, id="llama_cpp, pool", marks=pytest.mark.engine),
]


@pytest.fixture(scope="module", params=ENGINES)
def loaded(request, tmp_path_factory):
    engine = request.param(tmp_path_factory.mktemp("engine"))
    yield engine
    engine.close()


@pytest.fixture
def engine(loaded):
    """Its slots are empty."""
    for slot in range(loaded.facts.sequences):
        loaded.end(slot)
        loaded.trim(slot, 0)
    return loaded


def tokens_of(engine, text):
    return list(engine.tokenize(text, add_special=True, parse_special=True))


def constrain(engine, schema):
    inference = Inference(Prompt(), GREEDY, format=schema)
    return ConstraintFactory(engine).constrain(inference, "", Delimiters(), {})


class Nothing:
    """A constraint that no token satisfies."""

    is_over, failure, mask_s = False, "", 0.0

    def allows(self, _token):
        return False

    def allowed(self):
        return np.empty(0, np.intp)

    def forced(self, _most):
        return []

    def accept(self, _token):
        self.is_over, self.failure = True, "nothing is allowed"


def say(engine, slot, prompt, count=8, *, begin=0, cut=None):
    """``count`` tokens after ``prompt``, of which ``begin`` are in the slot, in two chunks."""
    engine.begin(slot, GREEDY, prompt)
    cut = len(prompt) - 1 if cut is None else cut
    if cut > begin:
        assert engine.step([Row(slot, prompt[begin:cut], begin, samples=False)]) == []
        begin = cut
    said = list(engine.step([Row(slot, prompt[begin:], begin, samples=True)]))
    while len(said) < count:
        said += engine.step([Row(slot, said[-1:], len(prompt) + len(said) - 1, samples=True)])
    engine.end(slot)
    return said


def test_the_facts_are_what_was_asked_for(engine):
    facts = engine.facts

    assert (facts.slots, facts.num_ctx) == (SLOTS, NUM_CTX)
    assert facts.vocab_size > 0
    assert min(facts.weights_bytes, facts.cache_bytes, facts.compute_bytes) >= 0


@pytest.mark.parametrize("text", ["", "a", TEXT, "grüße 世界 👩‍👩‍👧\n", "\x00", "a" * 10_000])
def test_text_becomes_tokens_of_the_vocabulary_and_text_again(engine, text):
    tokens = engine.tokenize(text, add_special=False, parse_special=False)

    assert all(0 <= token < engine.facts.vocab_size for token in tokens)
    assert b"".join(map(engine.piece, tokens)).decode().removeprefix(" ") == text


def test_tokens_are_written_as_they_were_read(engine):
    tokens = engine.tokenize(TEXT, add_special=False, parse_special=True)

    assert b"".join(map(engine.piece_with_control, tokens)).decode().removeprefix(" ") == TEXT


def test_an_answer_holds_tokens_with_text(engine):
    said = say(engine, 0, tokens_of(engine, TEXT))

    assert not any(map(engine.is_end, said))
    assert b"".join(map(engine.piece, said))


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.5, seed=3), PENALIZING])
def test_an_answer_holds_to_its_constraint(engine, sampling):
    prompt = tokens_of(engine, TEXT)
    schema = {"type": "array", "items": {"enum": ["the", 12]}, "minItems": 1, "maxItems": 3}
    constraint = constrain(engine, schema)
    engine.begin(0, sampling, prompt, constraint)

    said = list(engine.step([Row(0, prompt, 0, samples=True)]))
    while not constraint.is_over:
        said += engine.step([Row(0, said[-1:], len(prompt) + len(said) - 1, samples=True)])

    assert not constraint.failure
    items = json.loads(b"".join(map(engine.piece, said)))
    assert 1 <= len(items) <= 3
    assert all(item in ("the", 12) for item in items)


def test_a_sampled_token_has_a_logprob_among_the_best(engine):
    prompts = [tokens_of(engine, TEXT[at:]) for at in range(3)]
    for slot in range(3):
        engine.begin(slot, GREEDY, prompts[slot])
    order = [2, 0, 1]
    said = engine.step([Row(slot, prompts[slot], 0, samples=slot != 0) for slot in order])

    for slot, token in zip([2, 1], said, strict=True):
        logprob, best = engine.logprobs(slot, token, 5)
        values = [value for _, value in best]
        assert best[0] == (token, logprob), "greedy"
        assert len(best) == 5
        assert values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) <= 1 + 1e-6
        assert engine.logprobs(slot, token, 0) == (logprob, [])


def test_a_constraint_is_the_matter_of_one_slot_only(engine):
    prompt = tokens_of(engine, TEXT)
    free = say(engine, 1, prompt, 4)
    engine.trim(1, 0)
    constraint = constrain(engine, {"const": "the"})
    engine.begin(0, GREEDY, prompt, constraint)
    engine.begin(1, GREEDY, prompt)
    rows = [Row(slot, prompt, 0, samples=True) for slot in (0, 1)]
    said = [engine.step(rows)]
    for at in range(3):
        rows = [Row(slot, [said[-1][slot]], len(prompt) + at, samples=True) for slot in (0, 1)]
        said.append(engine.step(rows if not constraint.is_over else rows[1:]))

    assert [tokens[-1] for tokens in said] == free


def test_an_answer_that_no_token_can_continue_says_so(engine):
    prompt = tokens_of(engine, TEXT)
    constraint = Nothing()
    engine.begin(0, GREEDY, prompt, constraint)

    assert len(engine.step([Row(0, prompt, 0, samples=True)])) == 1
    assert constraint.failure


def test_an_answer_depends_neither_on_the_slot_nor_on_how_the_prompt_is_cut(engine):
    prompt = tokens_of(engine, TEXT)
    whole = say(engine, 0, prompt, cut=0)

    assert say(engine, 3, prompt, cut=5) == whole
    assert say(engine, 1, prompt) == whole


def test_rows_answer_in_the_order_in_which_they_stand(engine):
    prompts = [tokens_of(engine, TEXT[at:]) for at in range(3)]
    alone = [say(engine, slot, prompts[slot], count=1)[0] for slot in range(3)]
    for slot in range(3):
        engine.trim(slot, 0)
        engine.begin(slot, GREEDY, prompts[slot])
    order = [2, 0, 1]

    said = engine.step([Row(slot, prompts[slot], 0, samples=slot != 0) for slot in order])

    assert list(said) == [alone[2], alone[1]]


def test_a_slot_keeps_what_it_holds_between_requests(engine):
    prompt = tokens_of(engine, TEXT)
    whole = say(engine, 0, prompt)
    if not engine.trim(0, len(prompt) - 3):
        assert not engine.facts.can_trim
        pytest.skip("cannot forget a part")

    assert say(engine, 0, prompt, begin=len(prompt) - 3) == whole


def test_a_copy_answers_as_its_original_does(engine):
    prompt = tokens_of(engine, TEXT)
    whole = say(engine, 0, prompt)
    say(engine, 2, tokens_of(engine, "other"))
    if not engine.copy(0, 2, len(prompt) - 2):
        pytest.skip("cannot copy a part")

    assert say(engine, 2, prompt, begin=len(prompt) - 2) == whole
    assert engine.trim(0, len(prompt) - 1)
    assert say(engine, 0, prompt, begin=len(prompt) - 1) == whole


def test_slots_that_share_cells_answer_as_if_they_did_not(engine):
    """Whatever happens to one of them, shifts included."""
    if not engine.facts.is_pooled:
        pytest.skip("has no pool")
    prompt = tokens_of(engine, TEXT)
    whole = say(engine, 0, prompt)
    length = len(prompt) - 1
    assert engine.trim(0, length)
    assert engine.copy(0, 1, length)
    assert engine.copy(1, 2, length - 3)
    assert say(engine, 3, prompt) == whole
    engine.share(0, 3, length)
    engine.shift(0, 2, 5)
    engine.shift(2, 1, 4)  # before the moves of the first are made

    for slot in (1, 3):
        engine.trim(slot, length)
        assert say(engine, slot, prompt, begin=length) == whole
        engine.trim(slot, 0)
    for slot, at in ((0, length - 5), (2, length - 7)):
        engine.begin(slot, GREEDY, prompt)
        assert len(engine.step([Row(slot, prompt[:1], at, samples=True)])) == 1


def test_a_pool_holds_so_many_cells_and_no_more(engine):
    if not engine.facts.is_pooled:
        pytest.skip("has no pool")
    prompt = (tokens_of(engine, TEXT) * NUM_CTX)[: NUM_CTX - BATCH]
    say(engine, 0, prompt, count=1, cut=BATCH // 2)
    for slot in (1, 2, 3):
        assert engine.copy(0, slot, len(prompt))
    free = POOL_CELLS - len(prompt)
    for slot, size in ((1, BATCH), (2, BATCH), (3, free - 2 * BATCH)):
        engine.begin(slot, GREEDY, prompt)
        engine.step([Row(slot, prompt[:size], len(prompt), samples=True)])
    with pytest.raises(EngineError):
        engine.step([Row(0, prompt[:1], len(prompt), samples=False)])
    engine.trim(1, 0)

    assert engine.step([Row(0, prompt[:1], len(prompt), samples=False)]) == []


def test_a_saved_state_is_as_good_as_its_original_in_any_slot(engine):
    prompt = tokens_of(engine, TEXT)
    whole = say(engine, 0, prompt)
    assert engine.trim(0, len(prompt) - 1)
    state = np.zeros(engine.state_bytes(0), np.uint8)
    assert engine.save(0, state)
    assert engine.trim(0, 0)
    say(engine, 2, tokens_of(engine, "other"))

    assert engine.is_acceptable(state, len(prompt) - 1)
    assert engine.restore(2, state, len(prompt) - 1)
    assert say(engine, 2, prompt, begin=len(prompt) - 1) == whole


def test_a_state_of_another_length_is_neither_acceptable_nor_restored(engine):
    prompt = tokens_of(engine, TEXT)
    say(engine, 0, prompt)
    state = np.zeros(engine.state_bytes(0), np.uint8)
    assert engine.save(0, state)

    for bytes_, length in ((state, 3), (state[: len(state) // 2], len(prompt))):
        assert not engine.is_acceptable(bytes_, length)
        assert not engine.restore(2, bytes_, length)
        say(engine, 2, prompt)  # from its first token
        assert engine.trim(2, 0)


def test_after_a_shift_positions_go_on_lower_down(engine):
    if not engine.facts.can_shift:
        pytest.skip("cannot shift")
    prompt = tokens_of(engine, TEXT)
    say(engine, 0, prompt, count=1)
    engine.shift(0, 2, 5)
    position = len(prompt) - 5
    engine.begin(0, GREEDY, prompt)

    assert len(engine.step([Row(0, prompt[:1], position, samples=True)])) == 1
    assert engine.trim(0, position)


def test_a_slot_takes_a_whole_context(engine):
    prompt = (tokens_of(engine, TEXT) * NUM_CTX)[: NUM_CTX - 1]
    engine.begin(0, GREEDY, prompt)
    for at in range(0, len(prompt), BATCH):
        chunk = prompt[at : at + BATCH]
        said = engine.step([Row(0, chunk, at, samples=at + len(chunk) == len(prompt))])

    assert len(engine.step([Row(0, said, NUM_CTX - 1, samples=True)])) == 1


def test_a_row_behind_a_gap_is_an_error_that_the_engine_survives(engine):
    prompt = tokens_of(engine, TEXT)
    whole = say(engine, 0, prompt)
    engine.begin(1, GREEDY, prompt)
    engine.step([Row(1, prompt[:3], 0, samples=False)])
    with pytest.raises(EngineError):
        engine.step([Row(1, prompt, 7, samples=True)])
    engine.end(1)
    for slot in (0, 1):
        engine.trim(slot, 0)

    assert say(engine, 1, prompt) == whole
    assert say(engine, 0, prompt) == whole


# Under the batcher


class Batcher:
    """The loop without its thread: answers by request, one turn at a time."""

    def __init__(self, engine):
        self.mailbox = Mailbox()
        self.texts = defaultdict(str)
        self.ends = {}
        self.engine = engine
        self.loop = EngineLoop(engine, self.mailbox, self.hear, BatchPlanner(BATCH))

    def hear(self, messages):
        for message in messages:
            if isinstance(message, Deltas):
                for number, text in message.items:
                    self.texts[number] += text
            elif isinstance(message, Done):
                self.ends[message.id] = message

    def ask(self, number, text, *, seed=-1, count=20, num_ctx=NUM_CTX):
        sampling = Sampling(temperature=0, seed=seed)
        tokens = tokens_of(self.engine, text)[: num_ctx - 1]
        request = PreparedRequest(number, tokens, sampling, num_ctx, 4, count, True, False)
        self.mailbox.expect(number)
        self.mailbox.hand_over(number, [request])

    def turn(self):
        self.loop.iterate(idle_s=0)

    def finish(self, *numbers):
        for _ in range(1000):
            if set(numbers) <= set(self.ends):
                return [self.texts[number] for number in numbers]
            self.turn()
        pytest.fail("the requests do not end")


@pytest.fixture
def batcher(engine):
    return Batcher(engine)


def test_what_is_reused_changes_no_answer(batcher):
    turns = [TEXT]
    for number in range(4):
        batcher.ask(2 * number, turns[-1])
        (reused,) = batcher.finish(2 * number)
        batcher.ask(2 * number + 1, turns[-1], seed=1)
        (afresh,) = batcher.finish(2 * number + 1)
        assert reused == afresh
        turns.append(turns[-1] + afresh + " and then")

    assert batcher.ends[6].usage.cached > 0
    if not batcher.engine.facts.is_invariant:
        assert batcher.ends[7].usage.cached == 0


def test_a_prompt_cancelled_half_way_leaves_nothing_wrong_behind(batcher):
    batcher.ask(0, TEXT * 20, seed=1, count=5)
    (whole,) = batcher.finish(0)
    for number, turns in enumerate((1, 2, 3), start=1):
        batcher.ask(number, TEXT * 20, count=100)
        for _ in range(turns):
            batcher.turn()
        batcher.mailbox.cancel(Cancel(number))
        batcher.finish(number)
    batcher.ask(9, TEXT * 20, count=5)

    assert batcher.finish(9) == [whole]


def test_many_at_once_answer_as_each_alone(batcher):
    if batcher.engine.facts.is_pooled and not batcher.engine.facts.is_invariant:
        pytest.skip("its sums depend on the other rows")
    texts = [f"{TEXT} {number}" for number in range(2 * SLOTS)]
    for number, text in enumerate(texts):
        batcher.ask(number, text, seed=1)
        batcher.finish(number)
    alone = [batcher.texts[number] for number in range(len(texts))]
    for number, text in enumerate(texts, start=100):
        batcher.ask(number, text)

    assert batcher.finish(*range(100, 100 + len(texts))) == alone


def test_an_answer_goes_on_beyond_its_context(batcher):
    if not batcher.engine.facts.can_shift:
        pytest.skip("cannot shift")
    batcher.ask(0, TEXT, num_ctx=16, count=100)
    batcher.finish(0)

    assert batcher.ends[0].usage.answer == 100
