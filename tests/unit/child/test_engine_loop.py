"""The step thread's loop, without the thread: requests in, messages out."""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.core.conversation import Sampling
from ollama_async.workers.child.batching import FIXED_CHUNK, MIN_CHUNK, BatchPlanner
from ollama_async.workers.child.engine_loop import EngineLoop
from ollama_async.workers.child.mailbox import Mailbox, PreparedRequest
from ollama_async.workers.messages import Cancel, Deltas, Done, Failed, Heartbeat, Started, Text


class Bench:
    """A loop with a fake engine, and what it has said, by request."""

    def __init__(self, engine, repetition_limit=0):
        self.engine = engine
        self.mailbox = Mailbox()
        self.now_ns = 0
        self.flushes = []
        self.planner = BatchPlanner(engine.batch_size)
        self.loop = EngineLoop(
            engine,
            self.mailbox,
            self.flushes.append,
            self.planner,
            repetition_limit=repetition_limit,
            clock_ns=self.tick,
        )

    def tick(self):
        self.now_ns += 1_000_000
        return self.now_ns

    def put(self, *entries):
        for entry in entries:
            self.mailbox.put(entry)

    def turn(self, times=1):
        for _ in range(times):
            self.loop.iterate(idle_s=0)

    def finish(self, *ids, limit=2000):
        for _ in range(limit):
            if set(ids) <= set(self.ends()):
                return self
            self.turn()
        pytest.fail("the requests do not end")

    def said(self):
        return [message for flush in self.flushes for message in flush]

    def ends(self):
        return {m.id: m for m in self.said() if isinstance(m, Done | Failed)}

    def texts(self):
        texts = defaultdict(str)
        for message in self.said():
            if isinstance(message, Deltas):
                for request_id, text in message.items:
                    assert text
                    texts[request_id] += text
        return texts


def work(number, prompt, count=5, *, num_ctx=64, **more):
    options = {"keep": 0, "shift": True, "wants_context": False, **more}
    sampling = Sampling(seed=options.pop("seed", -1), stop=options.pop("stop", []))
    return PreparedRequest(number, list(prompt), sampling, num_ctx, max_tokens=count, **options)


@pytest.fixture
def bench(fake_engine):
    return Bench(fake_engine())


def test_an_answer_follows_from_its_prompt(bench, answer_to):
    bench.put(work(1, [1, 2, 3], 6))
    bench.finish(1)

    assert bench.texts()[1] == answer_to([1, 2, 3], 6)
    done = bench.ends()[1]
    assert (done.reason, done.usage.prompt, done.usage.cached, done.usage.answer) == (
        "length", 3, 0, 6
    )  # fmt: skip
    assert done.usage.prompt_ns > 0
    assert done.usage.answer_ns > 0
    assert bench.engine.begun == [False] * 4


def test_what_a_step_produced_leaves_in_one_message(bench):
    bench.put(*(work(number, [number] * 3) for number in (1, 2, 3)))
    bench.turn()

    (flush,) = [flush for flush in bench.flushes if any(isinstance(m, Deltas) for m in flush)]
    assert [type(message) for message in flush[:4]] == [Started] * 3 + [Deltas]
    assert [number for number, _ in flush[3].items] == [1, 2, 3]


def test_the_model_ends_its_answer(fake_engine):
    engine = fake_engine()
    engine.length = lambda slot: len(engine.cache[slot]) >= 6
    bench = Bench(engine)
    bench.put(work(1, [1, 2, 3], 50, wants_context=True))
    done = bench.finish(1).ends()[1]

    assert (done.reason, done.usage.answer) == ("stop", 4)  # the token that ends it counts
    assert done.context == engine.cache[0]
    assert len(done.context) == 6


def test_an_answer_of_nothing_but_its_end_has_a_count_and_a_duration(fake_engine):
    engine = fake_engine()
    engine.length = lambda _slot: True
    bench = Bench(engine)
    bench.put(work(1, [1, 2, 3], 50))
    usage = bench.finish(1).ends()[1].usage

    assert usage.answer == 1
    assert usage.answer_ns > 0


def repeating(engine, passage):
    """The engine says ``passage`` for ever, from what it has said so far."""
    said = [0] * engine.facts.slots

    def next_one(slot):
        said[slot] += 1
        return passage[(said[slot] - 1) % len(passage)]

    engine._next = next_one
    return engine


@pytest.mark.parametrize("passage", [[3], [1, 2, 3, 4, 5], [*range(40), 7, 7, 7, 7, 7]])
@pytest.mark.parametrize("num_ctx", [64, 4096])
def test_an_answer_that_repeats_itself_without_end_is_ended(fake_engine, capsys, passage, num_ctx):
    bench = Bench(repeating(fake_engine(num_ctx=num_ctx), passage), repetition_limit=256)
    bench.put(work(1, [1, 2, 3], 100_000, num_ctx=num_ctx))
    done = bench.finish(1, limit=5000).ends()[1]

    assert (done.reason, done.is_repetition) == ("length", True)
    assert max(256, 16 * len(passage)) <= done.usage.answer < 256 + 32 * len(passage) + 200
    assert bench.texts()[1].count("<3>") > 10
    assert f"by repeating {len(passage)} of them" in capsys.readouterr().err


def test_an_answer_may_repeat_itself_where_nobody_forbids_it(fake_engine):
    bench = Bench(repeating(fake_engine(), [3]))
    bench.put(work(1, [1, 2, 3], 3000))
    done = bench.finish(1, limit=5000).ends()[1]

    assert (done.reason, done.is_repetition, done.usage.answer) == ("length", False, 3000)


def test_the_end_of_what_was_asked_for_is_no_repetition(fake_engine):
    bench = Bench(repeating(fake_engine(), [3]), repetition_limit=256)
    bench.put(work(1, [1, 2, 3], 200))
    done = bench.finish(1).ends()[1]

    assert (done.reason, done.is_repetition, done.usage.answer) == ("length", False, 200)


def test_nothing_is_wanted_and_nothing_is_computed(bench):
    bench.put(work(1, [1, 2, 3], 0))
    bench.turn()

    done = bench.ends()[1]
    assert (done.reason, done.usage.prompt, done.usage.answer) == ("length", 3, 0)
    assert bench.engine.steps == []


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(bench, answer_to):
    whole = answer_to([1, 2, 3], 6)
    words = whole.replace("><", "> <").split()
    stop = words[2][1:] + words[3][:2]  # over the edge of two tokens
    bench.put(work(1, [1, 2, 3], 50, stop=["nothing", stop], wants_context=True))
    done = bench.finish(1).ends()[1]

    assert done.reason == "stop"
    assert bench.texts()[1] == whole[: whole.index(stop)]
    assert done.context[:3] == [1, 2, 3]
    assert len(done.context) == 6  # the third token of the answer was delivered in part


def test_text_held_back_for_a_stop_string_comes_at_the_end(bench, answer_to):
    whole = answer_to([1, 2, 3], 3)
    bench.put(work(1, [1, 2, 3], 3, stop=[whole[-4:] + "never"]))

    assert bench.finish(1).texts()[1] == whole


def test_a_full_context_is_shifted_and_the_answer_goes_on(bench):
    bench.put(work(1, range(10), 100, num_ctx=16, keep=4, wants_context=True))
    done = bench.finish(1).ends()[1]

    assert (done.reason, done.usage.answer) == ("length", 100)
    assert done.context[:4] == [0, 1, 2, 3]
    assert len(done.context) <= 16


def test_without_a_shift_a_full_context_ends_the_answer(bench, answer_to):
    bench.put(work(1, range(10), 100, num_ctx=16, shift=False))
    done = bench.finish(1).ends()[1]

    assert (done.reason, done.usage.answer) == ("length", 7)
    assert bench.texts()[1] == answer_to(range(10), 7)


def test_a_model_that_cannot_shift_ends_with_length(fake_engine):
    bench = Bench(fake_engine(can_trim=False))
    bench.put(work(1, range(10), 100, num_ctx=16))

    assert bench.finish(1).ends()[1].reason == "length"


def test_a_conversation_goes_on_in_its_slot(bench, answer_to):
    bench.put(work(1, range(20), 4, wants_context=True))
    history = bench.finish(1).ends()[1].context
    bench.put(work(2, [9] * 20, 4))
    bench.finish(2)
    prompt = [*history, 5, 6]
    bench.put(work(3, prompt, 4))
    bench.finish(3)

    assert bench.texts()[3] == answer_to(prompt, 4)
    assert bench.ends()[3].usage.cached == len(history) - 1  # the last token was never evaluated
    assert bench.engine.copies == []


def test_the_same_prompt_again_is_evaluated_from_its_last_token_on(bench, answer_to):
    bench.put(work(1, range(20), 1))
    bench.finish(1)
    bench.put(work(2, range(20), 4))
    bench.finish(2)

    assert bench.ends()[2].usage.cached == 19
    assert bench.texts()[2] == answer_to(range(20), 4)


def test_a_shared_beginning_is_copied_into_other_slots(fake_engine, answer_to):
    engine = fake_engine(slots=3, num_ctx=200, batch_size=128)
    bench = Bench(engine)
    shared = [3] * 60
    prompts = {number: [*shared, number, number] for number in (1, 2, 3)}
    bench.put(*(work(number, prompt, 8, num_ctx=200) for number, prompt in prompts.items()))
    bench.finish(1, 2, 3)

    assert {number: bench.texts()[number] for number in prompts} == {
        number: answer_to(prompt, 8) for number, prompt in prompts.items()
    }
    evaluated = sum(end.usage.prompt - end.usage.cached for end in bench.ends().values())
    assert evaluated == 62 + 2 + 2
    assert len(engine.copies) == 2


@pytest.mark.parametrize("kind", [{"can_copy": False}, {"can_trim": False}])
def test_models_that_cannot_copy_compute_again(fake_engine, answer_to, kind):
    bench = Bench(fake_engine(num_ctx=200, batch_size=128, **kind))
    prompts = {number: [*[3] * 60, number] for number in (1, 2, 3)}
    bench.put(*(work(number, prompt, 8, num_ctx=200) for number, prompt in prompts.items()))
    bench.finish(1, 2, 3)

    for number, prompt in prompts.items():
        assert bench.texts()[number] == answer_to(prompt, 8)


def test_a_model_that_cannot_trim_still_continues_what_a_slot_holds(fake_engine, answer_to):
    bench = Bench(fake_engine(can_trim=False))
    bench.put(work(1, range(20), 1))
    bench.finish(1)
    bench.put(work(2, range(30), 4))
    bench.finish(2)

    assert bench.ends()[2].usage.cached == 20
    assert bench.texts()[2] == answer_to(range(30), 4)


def test_a_seed_means_that_nothing_is_reused_and_chunks_are_the_same(fake_engine):
    engine = fake_engine(num_ctx=1000, batch_size=512)
    bench = Bench(engine)
    prompt = [5] * 300
    steps = []
    for number in (1, 2, 3):
        engine.steps.clear()
        bench.put(work(number, prompt, 3, num_ctx=1000, seed=7))
        bench.finish(number)
        steps.append([[tokens for _, tokens, _ in rows] for rows in engine.steps])

    assert steps[0] == steps[1] == steps[2]
    assert steps[0][0] == [FIXED_CHUNK]
    assert bench.ends()[3].usage.cached == 0


def test_a_cancel_frees_the_slot_before_the_next_step(fake_engine):
    engine = fake_engine(slots=1, num_ctx=1000, batch_size=64)
    bench = Bench(engine)
    bench.put(work(1, [1] * 900, 5, num_ctx=1000), work(2, [2] * 3, 5), work(3, [3] * 3, 5))
    bench.turn(3)
    assert bench.ends() == {}
    bench.put(Cancel(1), Cancel(3), Cancel(99))
    engine.steps.clear()
    bench.turn()

    assert {number: end.reason for number, end in bench.ends().items()} == {
        1: "cancel",
        3: "cancel",
    }
    assert engine.steps == [[(0, 3, True)]]
    bench.finish(2)
    assert Started(3) not in bench.said()


def test_an_engine_error_fails_only_the_requests_of_its_step(fake_engine, answer_to):
    engine = fake_engine()
    bench = Bench(engine)
    bench.put(work(1, [1, 2], 50))
    bench.turn(2)
    engine.failing = {0}
    bench.turn()
    engine.failing = set()
    bench.put(work(2, [1, 2], 5))
    bench.finish(1, 2)

    assert bench.ends()[1] == Failed(1, "engine_failed", "out of order")
    assert bench.texts()[2] == answer_to([1, 2], 5)
    assert bench.ends()[2].usage.cached == 0


def test_what_intake_has_to_say_is_passed_on(bench):
    bench.put(Text(-3, "x"))
    bench.turn()

    assert Text(-3, "x") in bench.said()


def test_vitals_come_once_a_second_also_when_idle(bench):
    for _ in range(3):
        bench.now_ns += 1_000_000_000
        bench.turn()

    vitals = [message for message in bench.said() if isinstance(message, Heartbeat)]
    assert len(vitals) == 3
    bench.put(work(1, range(32), 5))
    bench.turn()
    bench.now_ns += 1_000_000_000
    bench.turn()
    latest = [message for message in bench.said() if isinstance(message, Heartbeat)][-1]
    assert latest.busy_slots == 1
    assert latest.cache_used == (32 + len(bench.engine.steps) - 1) / (4 * 64)


def test_fast_steps_share_a_publication(fake_engine):
    engine = fake_engine(num_ctx=1000)
    bench = Bench(engine)
    bench.tick = lambda: 10_000_000_000
    bench.loop._clock_ns = bench.tick
    bench.put(work(1, [1], 500, num_ctx=1000))
    bench.turn(100)
    busy = len(bench.flushes)
    bench.finish(1)

    assert busy <= 2
    assert len(bench.flushes) <= 4


events = st.lists(
    st.one_of(
        st.tuples(
            st.just("new"),
            st.integers(0, 3),  # which shared beginning
            st.integers(1, 40),  # prompt length
            st.integers(0, 30),  # answer length
            st.booleans(),  # seeded
        ),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("fail"), st.integers(0, 2)),
        st.tuples(st.just("turn"), st.integers(1, 8)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(events, st.sampled_from([{}, {"can_copy": False}, {"can_trim": False}]))
def test_whatever_happens_each_request_ends_once_with_its_own_text(
    fake_engine, answer_to, history, kind
):
    engine = fake_engine(slots=3, num_ctx=80, batch_size=3 + MIN_CHUNK, **kind)
    bench = Bench(engine)
    prompts = {}
    for event in history:
        match event:
            case ("new", beginning, length, count, seeded):
                number = len(prompts) + 1
                prompts[number] = ([beginning] * (length - 1) + [number], count)
                bench.put(work(number, *prompts[number], num_ctx=80, seed=1 if seeded else -1))
            case ("cancel", number):
                bench.put(Cancel(number))
            case ("fail", slot):
                engine.failing = {slot}
                bench.turn()
                engine.failing = set()
            case ("turn", times):
                bench.turn(times)
    bench.finish(*prompts)
    bench.turn()

    said = bench.said()
    for number, (prompt, count) in prompts.items():
        own = [message for message in said if getattr(message, "id", None) == number]
        (end,) = [message for message in own if isinstance(message, Done | Failed)]
        assert own[-1] is end
        text, whole = bench.texts()[number], answer_to(prompt, count)
        assert whole.startswith(text)
        if isinstance(end, Done) and end.reason == "length":
            assert text == whole
            assert end.usage.prompt == len(prompt)
    assert engine.begun == [False] * 3
    for slot, cached in zip(bench.loop.slots.all, engine.cache, strict=True):
        assert slot.tokens == cached


# ----------------------------------------------------------------- clients beside one another


def test_a_short_prompt_does_not_wait_for_the_long_ones_of_another_client(fake_engine):
    bench = Bench(fake_engine(slots=8, num_ctx=2000))
    bench.put(
        *(work(number, [number] * 1500, 1, num_ctx=2000, client="a") for number in range(1, 8))
    )
    bench.turn(2)
    bench.put(work(8, [8] * 20, 1, client="b"))
    bench.turn(2)

    assert set(bench.ends()) == {8}


def test_clients_take_turns_in_reading_prompts(fake_engine):
    bench = Bench(fake_engine(slots=4, num_ctx=2000))
    for number, client in enumerate("aabc"):
        bench.put(work(number, [number] * 400, 1, num_ctx=2000, client=client))
    bench.turn(9)

    first = [rows[0][0] for rows in bench.engine.steps]
    assert first == [0, 2, 3] * 3


class Dear:
    """A constraint that allows everything, and takes its time."""

    is_over, failure = False, ""

    def __init__(self, mask_s):
        self.mask_s = mask_s


@pytest.fixture
def constrained(fake_engine):
    class Constrained(fake_engine):
        def begin(self, slot, sampling, prompt, constraint=None):
            assert constraint is None or constraint.mask_s
            super().begin(slot, sampling, prompt)

    return Bench(Constrained(slots=8, num_ctx=200))


def test_streams_with_dear_masks_take_turns_and_hold_up_nobody(constrained):
    dear = [work(number, [number], 40, constraint=Dear(0.011)) for number in range(6)]
    constrained.put(*dear, work(6, [6], 40, constraint=Dear(0.0005)), work(7, [7], 40))
    constrained.turn(2)
    constrained.engine.steps.clear()
    constrained.turn(9)

    slots = [[slot for slot, *_ in rows] for rows in constrained.engine.steps]
    assert all({6, 7} < set(step) and len(step) == 4 for step in slots)
    assert [sum(slot in step for step in slots) for slot in range(6)] == [3] * 6
    constrained.finish(*range(8))


def test_a_stream_whose_mask_takes_more_than_a_step_may_goes_on(constrained):
    constrained.put(*(work(number, [number], 5, constraint=Dear(1.0)) for number in range(3)))

    constrained.finish(0, 1, 2)


def test_many_prompts_of_one_client_count_as_one_beside_anothers_stream(fake_engine):
    def longest_chunk(client):
        bench = Bench(fake_engine(slots=8, num_ctx=3000, batch_size=512))
        for _ in range(50):
            bench.planner.costs.observe(1, 0, 0.01)
            bench.planner.costs.observe(1, 256, 0.5)
        bench.put(work(0, [0], 50, client="b"))
        bench.turn(2)
        bench.engine.steps.clear()
        for number in range(1, 8):
            bench.put(work(number, [number] * 2000, 1, num_ctx=3000, client=client))
        bench.turn()
        return sum(tokens for _, tokens, _ in bench.engine.steps[0])

    assert longest_chunk("a") < longest_chunk("b")
