"""The engine loop: answers, limits, cancellations, errors, heartbeats."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.core.conversation import Usage
from ollama_async.workers.child.batching import MIN_CHUNK
from ollama_async.workers.messages import Cancel, Deltas, Done, Failed, Heartbeat, Started
from tests.unit.child.loop_harness import LoopHarness, prepared


@pytest.fixture
def harness(fake_engine):
    return LoopHarness(fake_engine())


def test_an_answer_follows_from_its_prompt(harness, answer_to):
    harness.put(prepared(1, [1, 2, 3], 6))
    harness.finish(1)

    assert harness.texts()[1] == answer_to([1, 2, 3], 6)
    done = harness.ends()[1]
    assert (done.reason, done.usage.prompt, done.usage.cached, done.usage.answer) == (
        "length", 3, 0, 6
    )  # fmt: skip
    assert done.usage.prompt_ns > 0
    assert done.usage.answer_ns > 0
    assert harness.engine.begun == [False] * 4


def test_what_a_step_produced_leaves_in_one_message(harness):
    harness.put(*(prepared(number, [number] * 3) for number in (1, 2, 3)))
    harness.iterate()

    (flush,) = [flush for flush in harness.flushes if any(isinstance(m, Deltas) for m in flush)]
    assert [type(message) for message in flush[:4]] == [Started] * 3 + [Deltas]
    assert [number for number, _ in flush[3].items] == [1, 2, 3]


def test_the_model_ends_its_answer(fake_engine):
    engine = fake_engine()
    engine.length = lambda slot: len(engine.cache[slot]) >= 6
    harness = LoopHarness(engine)
    harness.put(prepared(1, [1, 2, 3], 50, returns_context=True))
    done = harness.finish(1).ends()[1]

    assert (done.reason, done.usage.answer) == ("stop", 4)  # the token that ends it counts
    assert done.context == engine.cache[0]
    assert len(done.context) == 6


def test_an_answer_of_nothing_but_its_end_has_a_count_and_a_duration(fake_engine):
    engine = fake_engine()
    engine.length = lambda _slot: True
    harness = LoopHarness(engine)
    harness.put(prepared(1, [1, 2, 3], 50))
    usage = harness.finish(1).ends()[1].usage

    assert usage.answer == 1
    assert usage.answer_ns > 0


def repeating(engine, passage):
    """The engine generates ``passage`` for ever."""
    counts = [0] * engine.facts.slots

    def next_one(slot):
        counts[slot] += 1
        return passage[(counts[slot] - 1) % len(passage)]

    engine._next = next_one
    return engine


@pytest.mark.parametrize("passage", [[3], [1, 2, 3, 4, 5], [*range(40), 7, 7, 7, 7, 7]])
@pytest.mark.parametrize("num_ctx", [64, 4096])
def test_an_answer_that_repeats_itself_without_end_is_ended(fake_engine, capsys, passage, num_ctx):
    harness = LoopHarness(repeating(fake_engine(num_ctx=num_ctx), passage), repetition_limit=256)
    harness.put(prepared(1, [1, 2, 3], 100_000, num_ctx=num_ctx))
    done = harness.finish(1, limit=5000).ends()[1]

    assert (done.reason, done.is_repetition) == ("length", True)
    assert max(256, 16 * len(passage)) <= done.usage.answer < 256 + 32 * len(passage) + 200
    assert harness.texts()[1].count("<3>") > 10
    assert f"by repeating {len(passage)} of them" in capsys.readouterr().err


@pytest.mark.slow
def test_an_answer_may_repeat_itself_without_a_limit(fake_engine):
    harness = LoopHarness(repeating(fake_engine(), [3]))
    harness.put(prepared(1, [1, 2, 3], 3000))
    done = harness.finish(1, limit=5000).ends()[1]

    assert (done.reason, done.is_repetition, done.usage.answer) == ("length", False, 3000)


def test_the_end_of_what_was_asked_for_is_no_repetition(fake_engine):
    harness = LoopHarness(repeating(fake_engine(), [3]), repetition_limit=256)
    harness.put(prepared(1, [1, 2, 3], 200))
    done = harness.finish(1).ends()[1]

    assert (done.reason, done.is_repetition, done.usage.answer) == ("length", False, 200)


def test_num_predict_0_computes_nothing(harness):
    harness.put(prepared(1, [1, 2, 3], 0))
    harness.iterate()

    done = harness.ends()[1]
    assert (done.reason, done.usage.prompt, done.usage.answer) == ("length", 3, 0)
    assert harness.engine.steps == []


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(harness, answer_to):
    whole = answer_to([1, 2, 3], 6)
    words = whole.replace("><", "> <").split()
    stop = words[2][1:] + words[3][:2]  # over the edge of two tokens
    harness.put(prepared(1, [1, 2, 3], 50, stop=["nothing", stop], returns_context=True))
    done = harness.finish(1).ends()[1]

    assert (done.reason, done.stop_string) == ("stop", stop)
    assert harness.texts()[1] == whole[: whole.index(stop)]
    assert done.context[:3] == [1, 2, 3]
    assert len(done.context) == 6  # the third token of the answer was delivered in part


@pytest.mark.parametrize("stops", [[], ["never"], ["never", "ever"]])
def test_an_answer_that_no_stop_string_ended_names_none(harness, stops):
    harness.put(prepared(1, [1, 2, 3], 6, stop=stops))

    assert harness.finish(1).ends()[1].stop_string == ""


def test_a_stop_string_in_what_was_held_back_of_a_character_ends_the_answer(fake_engine):
    engine = fake_engine()
    engine.piece = lambda _token: b"\xc3"
    harness = LoopHarness(engine)
    harness.put(prepared(1, [1, 2, 3], 2, stop=["\ufffd\ufffd"]))
    done = harness.finish(1).ends()[1]

    assert (done.reason, done.stop_string) == ("stop", "\ufffd\ufffd")
    assert harness.texts()[1] == ""


def test_text_held_back_for_a_stop_string_comes_at_the_end(harness, answer_to):
    whole = answer_to([1, 2, 3], 3)
    harness.put(prepared(1, [1, 2, 3], 3, stop=[whole[-4:] + "never"]))

    assert harness.finish(1).texts()[1] == whole


def test_a_full_context_is_shifted_and_the_answer_goes_on(harness):
    harness.put(prepared(1, range(10), 100, num_ctx=16, keep=4, returns_context=True))
    done = harness.finish(1).ends()[1]

    assert (done.reason, done.usage.answer) == ("length", 100)
    assert done.context[:4] == [0, 1, 2, 3]
    assert len(done.context) <= 16


def test_without_a_shift_a_full_context_ends_the_answer(harness, answer_to):
    harness.put(prepared(1, range(10), 100, num_ctx=16, shift=False))
    done = harness.finish(1).ends()[1]

    assert (done.reason, done.usage.answer) == ("length", 7)
    assert harness.texts()[1] == answer_to(range(10), 7)


def test_a_model_that_cannot_shift_ends_with_length(fake_engine):
    harness = LoopHarness(fake_engine(can_trim=False))
    harness.put(prepared(1, range(10), 100, num_ctx=16))

    assert harness.finish(1).ends()[1].reason == "length"


def test_a_cancel_frees_the_slot_before_the_next_step(fake_engine):
    engine = fake_engine(slots=1, num_ctx=1000, batch_size=64)
    harness = LoopHarness(engine)
    harness.put(
        prepared(1, [1] * 900, 5, num_ctx=1000), prepared(2, [2] * 3, 5), prepared(3, [3] * 3, 5)
    )
    harness.iterate(3)
    assert harness.ends() == {}
    harness.put(Cancel(1), Cancel(3), Cancel(99))
    engine.steps.clear()
    harness.iterate()

    assert {number: end.reason for number, end in harness.ends().items()} == {
        1: "cancel",
        3: "cancel",
    }
    assert engine.steps == [[(0, 3, True)]]
    harness.finish(2)
    assert 3 not in [message.id for message in harness.sent() if isinstance(message, Started)]


def test_an_engine_error_fails_only_the_requests_of_its_step(fake_engine, answer_to):
    engine = fake_engine()
    harness = LoopHarness(engine)
    harness.put(prepared(1, [1, 2], 50))
    harness.iterate(2)
    engine.failing = {0}
    harness.iterate()
    engine.failing = set()
    harness.put(prepared(2, [1, 2], 5))
    harness.finish(1, 2)

    assert harness.ends()[1] == Failed(1, "engine_failed", "out of order")
    assert harness.texts()[2] == answer_to([1, 2], 5)
    assert harness.ends()[2].usage.cached == 0


def test_messages_of_the_preprocessor_are_passed_on(harness):
    answer = [Started(3), Deltas([(3, "x")]), Done(3, "stop", Usage())]
    harness.mailbox.expect(3)
    harness.mailbox.hand_over(3, answer)
    harness.iterate()

    assert [message for message in harness.sent() if message in answer] == answer


def test_heartbeats_come_once_a_second_also_when_idle(harness):
    for _ in range(3):
        harness.now_ns += 1_000_000_000
        harness.iterate()

    heartbeats = [message for message in harness.sent() if isinstance(message, Heartbeat)]
    assert len(heartbeats) == 3
    harness.put(prepared(1, range(32), 5))
    harness.iterate()
    harness.now_ns += 1_000_000_000
    harness.iterate()
    latest = [message for message in harness.sent() if isinstance(message, Heartbeat)][-1]
    assert latest.busy_slots == 1
    assert latest.cache_used == (32 + len(harness.engine.steps) - 1) / (4 * 64)


def test_fast_steps_share_a_publication(fake_engine):
    engine = fake_engine(num_ctx=1000)
    harness = LoopHarness(engine)
    harness.tick = lambda: 10_000_000_000
    harness.put(prepared(1, [1], 500, num_ctx=1000))
    harness.iterate(100)
    busy = len(harness.flushes)
    harness.finish(1)

    assert busy <= 2
    assert len(harness.flushes) <= 4


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
    harness = LoopHarness(engine)
    prompts = {}
    for event in history:
        match event:
            case ("new", beginning, length, count, seeded):
                number = len(prompts) + 1
                prompts[number] = ([beginning] * (length - 1) + [number], count)
                harness.put(
                    prepared(number, *prompts[number], num_ctx=80, seed=1 if seeded else -1)
                )
            case ("cancel", number):
                harness.put(Cancel(number))
            case ("fail", slot):
                engine.failing = {slot}
                harness.iterate()
                engine.failing = set()
            case ("turn", times):
                harness.iterate(times)
    harness.finish(*prompts)
    harness.iterate()

    sent = harness.sent()
    for number, (prompt, count) in prompts.items():
        own = [message for message in sent if getattr(message, "id", None) == number]
        (end,) = [message for message in own if isinstance(message, Done | Failed)]
        assert own[-1] is end
        text, whole = harness.texts()[number], answer_to(prompt, count)
        assert whole.startswith(text)
        if isinstance(end, Done) and end.reason == "length":
            assert text == whole
            assert end.usage.prompt == len(prompt)
    assert engine.begun == [False] * 3
    for slot, cached in zip(harness.engine_loop.pool.all, engine.cache, strict=True):
        assert slot.tokens == cached
