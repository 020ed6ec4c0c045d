"""The engine loop with one pool of cells: admission, preemption, and the order of requests."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.workers.child import admission_queue, kv_pool
from ollama_async.workers.messages import Cancel, Done, Failed, Started
from tests.unit.child.conftest import next_token
from tests.unit.child.loop_harness import LoopHarness, prepared
from tests.unit.child.pooled_engine import FakePromptCache, PooledEngine


def answer_of(prompt, count, num_ctx, keep=0):
    """What the fake engine says, with context shifts."""
    cache, generated = list(prompt), []
    while len(generated) < count:
        generated.append(next_token(cache))
        if len(cache) == num_ctx:
            del cache[keep : keep + max(1, (num_ctx - keep) // 2)]
        cache.append(generated[-1])
    return "".join(f"<{token}>" for token in generated)


class Pool(LoopHarness):
    """``answers``: cells that are reserved for an answer."""

    def __init__(self, slots=8, num_ctx=200, cells=200, *, cached=False, **options):
        super().__init__(PooledEngine(slots, num_ctx, cells, batch_size=64, **options))
        self.num_ctx = num_ctx
        self.pool = self.engine_loop.pool
        if cached:
            self.pool._cache = FakePromptCache(self.engine)

    def ask(self, number, prompt, count, **more):
        self.put(prepared(number, prompt, count, num_ctx=self.num_ctx, **more))

    def started(self):
        return [message.id for message in self.sent() if isinstance(message, Started)]

    def check(self):
        """What the loop believes of the engine is so."""
        for slot, cached in zip(self.pool.all, self.engine.cache, strict=True):
            assert slot.tokens == cached
        assert self.pool.used_cells == self.engine.used <= self.engine.facts.cells


@pytest.fixture
def few_reserved(monkeypatch):
    """Of answers, hardly anything is reserved, so that cells run out."""
    monkeypatch.setattr(kv_pool, "RESERVED_ANSWER", 2)
    monkeypatch.setattr(kv_pool, "RESERVED_AHEAD", 1)


def test_more_requests_run_than_have_room_for_a_whole_context():
    harness = Pool(slots=8, num_ctx=200, cells=200)
    for number in range(8):
        harness.ask(number, [number] * 10, 10)
    harness.iterate(3)

    assert len(harness.started()) == 8


def test_a_request_waits_until_its_cells_are_free():
    harness = Pool(slots=8, num_ctx=200, cells=200)
    harness.ask(1, [1] * 100, 20)
    harness.ask(2, [2] * 100, 20)
    harness.iterate(5)

    assert harness.started() == [1]
    harness.finish(1, 2)
    assert harness.texts()[2] == answer_of([2] * 100, 20, 200)
    assert harness.engine.most_used <= 200


@pytest.mark.usefixtures("few_reserved")
def test_a_context_shift_frees_cells_for_a_request_that_waits():
    harness = Pool(slots=2, num_ctx=150, cells=200)
    harness.ask(1, [1] * 10, 1000)
    harness.iterate(130)
    harness.ask(2, [2] * 60, 20)
    harness.iterate(5)
    assert harness.started() == [1]
    harness.iterate(20)
    assert harness.started() == [1, 2]


def test_idle_conversations_give_way_the_oldest_first():
    harness = Pool(slots=8, num_ctx=200, cells=200)
    for number in range(4):
        harness.ask(number, [number] * 40, 1)
        harness.finish(number)
    harness.ask(9, [9] * 60, 5)
    harness.finish(9)

    assert {slot.tokens[0] for slot in harness.pool.all if slot.tokens} == {1, 2, 3, 9}
    harness.check()


def test_a_shared_prefix_is_computed_once_and_stored_once():
    """32 clients with a system prompt of 1,000 tokens."""
    shared, tail, clients = [7] * 1000, 12, 32
    harness = Pool(slots=clients, num_ctx=2000, cells=4000, sequences=64)
    for number in range(clients):
        harness.ask(number, [*shared, *range(number, number + tail)], 6)
    harness.finish(*range(clients))

    computed = sum(end.usage.prompt - end.usage.cached for end in harness.ends().values())
    assert computed == len(shared) + clients * tail
    assert harness.engine.most_used <= len(shared) + clients * (tail + 6)
    harness.check()


def test_a_seeded_request_reuses_what_was_computed_where_sums_do_not_depend_on_it():
    harness = Pool()
    for number in (1, 2):
        harness.ask(number, [1] * 80, 5, seed=7)
        harness.finish(number)

    assert harness.texts()[1] == harness.texts()[2]
    assert [harness.ends()[number].usage.cached for number in (1, 2)] == [0, 79]


def test_a_large_request_is_overtaken_by_so_many_and_no_more(monkeypatch):
    monkeypatch.setattr(admission_queue, "OVERTAKEN", 3)
    harness = Pool(slots=20, num_ctx=200, cells=200, sequences=40)
    harness.ask(0, [1] * 50, 50)
    harness.iterate(3)
    harness.ask(1, [2] * 150, 10)
    for number in range(2, 10):
        harness.ask(number, [number] * 5, 3)
    harness.finish(*range(10))

    order = harness.started()
    assert order[:4] == [0, 2, 3, 4]
    assert order[4] == 1


@pytest.mark.usefixtures("few_reserved")
def test_when_cells_run_out_the_youngest_gives_way_and_goes_on_later():
    harness = Pool(slots=4, num_ctx=150, cells=150)
    for number in range(4):
        harness.ask(number, [number] * 20, 60)
    harness.finish(*range(4))

    for number in range(4):
        end = harness.ends()[number]
        assert harness.texts()[number] == answer_of([number] * 20, 60, 150)
        assert (end.usage.prompt, end.usage.cached, end.usage.answer) == (20, 0, 60)
    assert sorted(harness.started()) == [0, 1, 2, 3], "each once"
    assert next(iter(harness.ends())) == 0, "the oldest never stops"
    harness.check()


@pytest.mark.usefixtures("few_reserved")
def test_what_gave_way_comes_back_from_the_prompt_cache():
    harness = Pool(slots=4, num_ctx=150, cells=150, cached=True)
    for number in range(4):
        harness.ask(number, [number] * 20, 60)
    harness.finish(*range(4))

    evaluated = sum(tokens for rows in harness.engine.steps for _, tokens, _ in rows)
    assert evaluated == 4 * (20 + 60 - 1)
    for number in range(4):
        assert harness.texts()[number] == answer_of([number] * 20, 60, 150)


def test_what_comes_back_shares_the_cells_of_its_prefix_again():
    harness = Pool(slots=4, num_ctx=400, cells=400, cached=True)
    shared = [5] * 100
    for number in range(3):
        harness.ask(number, [*shared, *[number] * 40], 2)
    harness.finish(0, 1, 2)
    harness.ask(9, [9] * 390, 2)  # all others give way
    harness.finish(9)
    for number in range(3):
        harness.ask(10 + number, [*shared, *[number] * 40, 8], 2)
    harness.finish(10, 11, 12)

    assert [harness.ends()[10 + number].usage.cached for number in range(3)] == [140] * 3
    assert harness.engine.used <= 100 + 3 * 44
    harness.check()


@pytest.mark.usefixtures("few_reserved")
def test_a_cancelled_request_that_waits_for_cells_is_gone():
    harness = Pool(slots=4, num_ctx=150, cells=150)
    for number in range(4):
        harness.ask(number, [number] * 30, 100)
    while not harness.engine_loop.running.preempted:
        harness.iterate()
    number = harness.engine_loop.running.preempted[0].id
    harness.put(Cancel(number))
    harness.finish(*range(4))

    assert harness.ends()[number].reason == "cancel"
    assert answer_of([number] * 30, 100, 150).startswith(harness.texts()[number])
    assert harness.engine.begun == [False] * len(harness.engine.begun)


CALLS = ("begin", "copy", "share", "shift", "save", "restore")

events = st.lists(
    st.one_of(
        st.tuples(
            st.just("new"),
            st.integers(0, 2),  # which shared beginning
            st.integers(1, 60),  # prompt length
            st.integers(0, 90),  # answer length
            st.sampled_from(["", "a"]),  # whose
            st.booleans(),  # shifts
            st.sampled_from([0, 7]),  # keeps
        ),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("fail"), st.integers(0, 6)),
        st.tuples(st.just("refuse"), st.sampled_from(CALLS), st.integers(1, 9)),
        st.tuples(st.just("turn"), st.integers(1, 30)),
    ),
    max_size=40,
)


def play(harness, event, asked):
    match event:
        case ("new", beginning, length, count, owner, shift, keep):
            number = len(asked) + 1
            prompt = [beginning] * (length - 1) + [number % 64]
            asked[number] = prompt, count, shift, keep
            own = {"owner": owner, "public_tokens": 40, "shift": shift, "keep": keep}
            harness.ask(number, prompt, count, **own)
        case ("cancel", number):
            harness.put(Cancel(number))
        case ("fail", slot):
            harness.engine.failing = {slot}
            harness.iterate()
            harness.engine.failing = set()
        case ("refuse", call, times):
            harness.engine.refusing = call
            harness.iterate(times)
            harness.engine.refusing = ""
        case ("turn", times):
            harness.iterate(times)


@settings(deadline=None)
@given(events, st.sampled_from([80, 100, 160]), st.booleans(), st.booleans())
def test_whatever_happens_each_request_ends_once_and_no_cell_is_lost(
    history, cells, cached, drafts
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_pool, "RESERVED_ANSWER", 3)
        patch.setattr(kv_pool, "RESERVED_AHEAD", 1)
        harness = Pool(5, 80, cells, cached=cached, can_draft=drafts)
        asked = {}
        for event in history:
            play(harness, event, asked)
            harness.check()
        harness.finish(*asked)
        harness.iterate()

    sent = harness.sent()
    for number, (prompt, count, shift, keep) in asked.items():
        own = [message for message in sent if getattr(message, "id", None) == number]
        (end,) = [message for message in own if isinstance(message, Done | Failed)]
        assert own[-1] is end
        most = count if shift else min(count, 80 - len(prompt) + 1)
        text, whole = harness.texts()[number], answer_of(prompt, most, 80, keep)
        # what a shift has left of a context cannot be computed again if it was not saved
        if not shift or not any(event[:2] == ("refuse", "save") for event in history):
            assert whole.startswith(text)
            assert text == whole or isinstance(end, Failed) or end.reason != "length"
        if isinstance(end, Failed):
            assert end.message in {"out of order", "the contents of a slot cannot be restored"}
        else:
            assert end.usage.prompt == len(prompt)
    harness.check()
    assert harness.engine.begun == [False] * len(harness.engine.begun)
    assert not any(slot.is_running or slot.reserved for slot in harness.pool.all)
