"""Conversations that lost their slots: what is kept of them, who finds them, what comes back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from ollama_async.workers.child.engines.engine import SpanShape
from ollama_async.workers.child.host_prompt_cache import MIN_TOKENS
from ollama_async.workers.child.media import Media, add_media
from ollama_async.workers.child.prefix_query import PrefixQuery
from ollama_async.workers.child.state_memory import DATA_OFFSET, PAGE_BYTES
from tests.unit.child.state_harness import StateEngine, keep, memfd, prompt_cache

LONG = list(range(200))


@pytest.fixture
def cache():
    with memfd(64) as fd, prompt_cache(fd) as made:
        yield made


def find(cache, prompt, owner="", public_tokens=0, **more):
    match = cache.find(PrefixQuery(list(prompt), owner, public_tokens, **more))
    return match.length if match else 0


def restored(cache, prompt, owner="", slot=1):
    """What the slot holds then."""
    match = cache.find(PrefixQuery(list(prompt), owner))
    assert match
    assert cache.restore(match, slot)
    assert match.size == len(cache._engine.cache[slot])
    return cache._engine.cache[slot]


def test_a_conversation_comes_back_into_any_slot(cache):
    keep(cache, LONG)

    assert restored(cache, [*LONG, 7], slot=3) == LONG
    assert restored(cache, [*LONG[:100], 7], slot=2) == LONG  # the caller trims it
    assert find(cache, [*LONG[:100], 7]) == 100


def test_the_last_token_of_a_prompt_is_left_to_compute(cache):
    keep(cache, LONG)

    assert find(cache, LONG) == len(LONG) - 1


def test_a_few_tokens_are_not_worth_it(cache):
    keep(cache, LONG[: MIN_TOKENS - 1])

    assert cache.count == 0


def test_a_conversation_that_went_on_replaces_its_beginning(cache):
    keep(cache, LONG[:100])
    keep(cache, LONG)

    assert cache.count == 1
    assert find(cache, LONG) == 199


def test_what_is_there_already_is_not_saved_again(cache):
    keep(cache, LONG)
    keep(cache, LONG)
    keep(cache, LONG[:150])
    keep(cache, [*LONG[:190], 5, 5])

    assert cache._engine.saves == 1


def test_two_answers_to_the_same_beginning_are_both_kept(cache):
    keep(cache, LONG[:100] + [1] * 50)
    keep(cache, LONG[:100] + [2] * 50)

    assert find(cache, LONG[:100] + [1] * 60) == 150
    assert find(cache, LONG[:100] + [2] * 60) == 150


def test_a_sequence_with_an_image_is_not_saved(cache):
    keep(cache, [*LONG, -5, *LONG])

    assert cache.count == 0
    assert not cache._engine.saves


def test_a_state_that_cannot_be_saved_leaves_no_trace(cache):
    cache._engine.refuses_to_save = True
    keep(cache, LONG)
    assert find(cache, LONG) == 0

    cache._engine.refuses_to_save = False
    keep(cache, LONG)
    assert find(cache, LONG) == 199


def test_the_text_before_an_image_is_found(cache):
    keep(cache, LONG)
    prompt, spans = LONG[:100], {}
    add_media(prompt, spans, Media(b"", b"\xff" * 32, (SpanShape(16, 16), (7, 8))))

    assert find(cache, prompt, spans=[(at, span.length) for at, span in spans.items()]) == 100


def test_nothing_is_found_without_permission(cache):
    keep(cache, LONG)

    assert find(cache, LONG, reuses=False) == 0


def test_owners_share_only_what_the_model_brings(cache):
    keep(cache, LONG, owner="ann")

    assert find(cache, LONG, owner="ann") == 199
    assert find(cache, LONG, owner="bob") == 0
    assert find(cache, LONG, owner="bob", public_tokens=40) == 40


def test_an_owners_copy_of_the_same_text_is_its_own(cache):
    keep(cache, LONG, owner="ann")
    keep(cache, LONG, owner="bob")

    assert cache.count == 2
    assert find(cache, LONG, owner="bob") == 199


def test_where_restored_states_cannot_be_trimmed_they_are_found_whole_only():
    with memfd(64) as fd, prompt_cache(fd, StateEngine(can_trim_restored=False)) as cache:
        keep(cache, LONG)

        assert find(cache, [*LONG, 7]) == 200
        assert find(cache, LONG) == 0
        assert find(cache, LONG[:150]) == 0


def test_the_least_recently_used_gives_way():
    with memfd(24) as fd, prompt_cache(fd) as cache:
        chats = [[number] * 200 for number in range(7)]  # five pages each
        for chat in chats[:4]:
            keep(cache, chat)
        assert find(cache, chats[0]) == 199
        keep(cache, chats[4])

        assert [bool(find(cache, chat)) for chat in chats[:5]] == [True, False, True, True, True]


def test_what_was_restored_whole_gives_way_first():
    """Its slot holds it, and will be saved when that is given up."""
    with memfd(24) as fd, prompt_cache(fd) as cache:
        chats = [[number] * 200 for number in range(7)]
        for chat in chats[:4]:
            keep(cache, chat)
        restored(cache, [*chats[3], 1])
        keep(cache, chats[4])

        assert [bool(find(cache, chat)) for chat in chats[:5]] == [True, True, True, False, True]


def test_what_was_just_found_does_not_give_way():
    with memfd(24) as fd, prompt_cache(fd) as cache:
        chats = [[number] * 200 for number in range(7)]
        for chat in chats[:4]:
            keep(cache, chat)
        match = cache.find(PrefixQuery([*chats[0], 9]))
        keep(cache, chats[4], slot=2)

        assert cache.restore(match, 2)
        assert cache._engine.cache[2] == chats[0]


def test_a_match_that_gave_way_is_not_restored():
    with memfd(12) as fd, prompt_cache(fd) as cache:
        keep(cache, [1] * 500)
        match = cache.find(PrefixQuery([1] * 500))
        keep(cache, [2] * 600)

        assert not cache.restore(match, 1)
        assert find(cache, [2] * 600) == 599


def test_a_conversation_that_has_become_too_long_keeps_its_beginning():
    with memfd(4) as fd, prompt_cache(fd) as cache:
        keep(cache, LONG[:60])
        keep(cache, [*LONG[:60], *[5] * 500])

        assert find(cache, LONG[:60]) == 59


def test_more_than_there_is_space_for_is_not_kept():
    with memfd(4) as fd, prompt_cache(fd) as cache:
        keep(cache, LONG[:60])
        keep(cache, [5] * 500)

        assert find(cache, LONG[:60]) == 59


def test_a_smaller_limit_drops_what_lies_beyond(cache):
    for number in range(4):
        keep(cache, [number] * 200)
    cache.request_limit(DATA_OFFSET + 8 * PAGE_BYTES)
    cache.apply_limit()

    assert cache.count == 1
    assert cache.used_bytes <= 8 * PAGE_BYTES
    for number in range(4):
        keep(cache, [number] * 200)
    assert cache.count == 1

    cache.request_limit(1 << 40)
    cache.apply_limit()
    for number in range(4):
        keep(cache, [number] * 200)
    assert cache.count == 4


def test_the_next_worker_of_the_model_goes_on():
    with memfd(64) as fd:
        with prompt_cache(fd) as cache:
            keep(cache, LONG, owner="ann")
            keep(cache, [5] * 100)
        with prompt_cache(fd) as cache:
            assert cache.count == 2
            assert restored(cache, [*LONG, 1], owner="ann") == LONG
            assert find(cache, LONG) == 0
            keep(cache, [6] * 100)
            assert cache.count == 3


def test_a_state_with_other_bytes_than_were_saved_is_a_miss():
    with memfd(64) as fd:
        with prompt_cache(fd) as cache:
            keep(cache, LONG)
            state = next(iter(cache._states.values()))
        with prompt_cache(fd) as cache:
            cache._memory._memory[state.state_offset + 900] ^= 1
            match = cache.find(PrefixQuery([*LONG, 1]))

            assert not cache.restore(match, 2)
            assert cache._engine.cache[2] == []
            assert cache.count == 0


def test_a_state_of_another_worker_in_a_wrong_form_is_not_restored(monkeypatch):
    with memfd(64) as fd:
        with prompt_cache(fd) as cache:
            keep(cache, LONG)
        with prompt_cache(fd) as cache:
            monkeypatch.setattr(cache._engine, "is_acceptable", lambda *_: False)

            assert not cache.restore(cache.find(PrefixQuery([*LONG, 1])), 2)


def test_a_state_that_the_engine_refuses_is_a_miss(cache):
    keep(cache, LONG)
    cache._engine.bytes_per_token += 1
    match = cache.find(PrefixQuery([*LONG, 1]))

    assert not cache.restore(match, 1)
    assert cache.count == 0


def test_a_state_that_kills_the_worker_is_gone_for_the_next(monkeypatch):
    with memfd(64) as fd:
        with prompt_cache(fd) as cache:
            keep(cache, LONG)
            monkeypatch.setattr(cache._engine, "restore", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                cache.restore(cache.find(PrefixQuery([*LONG, 1])), 1)
        with prompt_cache(fd) as cache:
            assert cache.count == 0


chats = st.lists(st.lists(st.integers(0, 2), max_size=3), max_size=4).map(
    lambda parts: [token * 9 + place for part in parts for token in part for place in range(20)]
)
owners = st.sampled_from(["", "ann", "bob"])


class Histories(RuleBasedStateMachine):
    """Against a list of all that was kept: nothing else is found, what comes back is what was
    kept, and with enough memory everything is found.
    """

    prompts = Bundle("prompts")
    pages = 2000

    def __init__(self):
        super().__init__()
        self.made = memfd(self.pages)
        self.fd = self.made.__enter__()
        self.open()
        self.kept = []

    def open(self):
        self.opened = prompt_cache(self.fd)
        self.cache = self.opened.__enter__()

    def teardown(self):
        self.opened.__exit__(None, None, None)
        self.made.__exit__(None, None, None)

    @rule(target=prompts, chat=chats)
    def begin(self, chat):
        return chat

    @rule(target=prompts, chat=prompts, more=chats)
    def go_on(self, chat, more):
        return (chat + more)[:400]

    @rule(chat=prompts, owner=owners)
    def keep(self, chat, owner):
        keep(self.cache, chat, owner)
        if len(chat) >= MIN_TOKENS:
            self.kept.append((chat, owner))

    @rule()
    def reload(self):
        self.opened.__exit__(None, None, None)
        self.open()

    @rule(chat=prompts, owner=owners, public=st.integers(0, 60))
    def find(self, chat, owner, public):
        query = PrefixQuery([*chat, 99], owner, public)
        match = self.cache.find(query)
        possible = max((query.shared_with(*each) for each in self.kept), default=0)
        found = match.length if match else 0
        assert found <= possible
        if self.pages >= 2000:
            assert found > possible - MIN_TOKENS
        if match:
            assert self.cache.restore(match, 1)
            assert self.cache._engine.cache[1][: match.length] == chat[: match.length]

    @invariant()
    def no_state_is_the_beginning_of_another(self):
        states = [(each.owner, each.tokens) for each in self.cache._states.values()]
        assert not any(
            one is not other and one[0] == other[0] and other[1].startswith(one[1])
            for one in states
            for other in states
        )


class TightHistories(Histories):
    pages = 12


TestHistories = Histories.TestCase
TestTightHistories = TightHistories.TestCase
TestHistories.settings = settings(max_examples=30, stateful_step_count=20)
TestTightHistories.settings = TestHistories.settings


@given(st.lists(st.tuples(chats, owners), max_size=8))
def test_states_are_counted(entries):
    with memfd(400) as fd, prompt_cache(fd) as cache:
        for chat, owner in entries:
            keep(cache, chat, owner)
        assert cache.used_bytes == sum(state.size for state in cache._states.values())
        assert len(cache._free) + cache.count == 1024
