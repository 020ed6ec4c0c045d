"""How requests come to be prepared: who waits for whom, and what a cancel finds."""

import threading
from collections import Counter, defaultdict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.bounded_cache import BoundedCache
from ollama_async.core.conversation import (
    ChatFormatSpec,
    Inference,
    Message,
    Prompt,
    Sampling,
    Tokenize,
    Usage,
)
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.output_format import Delimiters
from ollama_async.workers.child.mailbox import LIMIT, Mailbox, PreparedRequest
from ollama_async.workers.child.preprocessor import Preprocessor, RequestPreparer, RequestQueue
from ollama_async.workers.child.prompt_encoder import BoundChatFormat, ChatFormatCache
from ollama_async.workers.messages import Cancel, Done, Failed, Submit
from tests.unit.child.loop_harness import hand_over

LONG_WAIT_S = 30


def submit(number, text="x", client="a", *, chat_format=None, **more):
    prompt = Prompt([Message("user", text)], chat_format=chat_format or ChatFormatSpec(), **more)
    return Submit(number, Inference(prompt, Sampling()), client)


class Words:
    """A chat format that renders contents; as a :class:`ChatFormatCache`, it has that one."""

    special_tokens = ()

    def __init__(self, render=lambda text: text):
        self._render = render

    def get(self, _spec, *_rest):
        return BoundChatFormat(self, {})

    get_or_make = get

    def render(self, prompt):
        return self._render("".join(message.content for message in prompt.messages))

    def start(self, _prompt, _rendered):
        return None

    def delimiters(self, _prompt, _rendered):
        return Delimiters()


class Limits:
    """Makes runners; ``is_slow``: whatever they run takes a second. ``seconds``: what they had."""

    def __init__(self, *, is_slow=False):
        self.seconds = []
        self._is_slow = is_slow

    def __call__(self, cpu_limit_s, error):
        self.seconds.append(cpu_limit_s)

        def run(action):
            if self._is_slow and cpu_limit_s < 1:
                raise error("too long")
            return action()

        return run


class Harness:
    def __init__(self, engine, chat_formats=None, limits=None, mailbox=None):
        self.mailbox = mailbox or Mailbox()
        self.limits = limits or Limits()
        preparer = RequestPreparer(engine, chat_formats or Words(), self.limits)
        self.preprocessor = Preprocessor(preparer, self.mailbox)

    def run_quick(self):
        self.preprocessor.close()
        self.preprocessor.run(is_quick=True)
        return self.mailbox.take()

    def run_heavy(self):
        self.preprocessor.run(is_quick=False)
        return self.mailbox.take()


@pytest.fixture
def harness(fake_engine):
    return Harness(fake_engine())


def ids(entries):
    return [entry.id for entry in entries]


# ----------------------------------------------------------------- turns


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=40))
def test_a_queue_serves_clients_in_turns_and_each_in_order(moves):
    """Against the plain model: lists in a list. A move puts, takes, or removes the last put."""
    queue, model, number = RequestQueue(100), [], 0
    for client, move in moves:
        if move == 0 or not model:
            number += 1
            assert queue.put(submit(number, client=client))
            items = next((items for name, items in model if name == client), None)
            if items is None:
                model.append((client, [number]))
            else:
                items.append(number)
        elif move == 1:
            name, items = model.pop(0)
            assert queue.take().id == items.pop(0)
            model += [(name, items)] if items else []
        else:
            queue.remove(number)
            model = [(name, [item for item in items if item != number]) for name, items in model]
            model = [(name, items) for name, items in model if items]
    queue.close()
    while model:
        name, items = model.pop(0)
        assert queue.take().id == items.pop(0)
        model += [(name, items)] if items else []
    assert queue.take() is None


def test_a_thousand_requests_of_one_client_delay_another_by_one(harness):
    for number in range(1, 1000):
        harness.preprocessor.put(submit(number))
    harness.preprocessor.put(submit(1000, client="b"))

    assert ids(harness.run_quick())[:3] == [1, 1000, 2]


def test_a_full_line_refuses_and_never_blocks(harness):
    for number in range(1, LIMIT + 1):
        harness.preprocessor.put(submit(number))
    harness.preprocessor.put(submit(LIMIT + 1, client="b"))

    (refused,) = harness.mailbox.take()
    assert (refused.id, refused.code) == (LIMIT + 1, "busy")
    harness.preprocessor.cancel(Cancel(LIMIT + 1))
    assert harness.mailbox.take() == [Cancel(LIMIT + 1)]  # nobody is told a second time


# ----------------------------------------------------------------- light and heavy


@pytest.mark.parametrize(
    "heavy",
    [
        submit(1, "x" * 100_000),
        submit(1, context=[1] * 100_000),
        Submit(1, Inference(Prompt([Message("user", "x")] * 5000), Sampling()), "a"),
        Submit(1, Inference(Prompt(raw="x" * 100_000), Sampling()), "a"),
        Submit(1, Tokenize("x" * 100_000), "a"),
    ],
)
def test_a_plain_request_passes_a_heavy_one(harness, heavy):
    harness.preprocessor.put(heavy)
    harness.preprocessor.put(submit(2, client="b"))

    assert ids(harness.run_quick()) == [2]
    assert set(ids(harness.run_heavy())) == {1}


def test_what_takes_long_to_render_is_given_up_and_has_its_time_later(fake_engine):
    harness = Harness(fake_engine(), limits=Limits(is_slow=True))
    harness.preprocessor.put(submit(1))

    assert harness.run_quick() == []
    assert isinstance(harness.run_heavy()[0], PreparedRequest)
    assert harness.limits.seconds[0] < 0.1 < max(harness.limits.seconds)


def test_a_history_that_is_rendered_many_times_is_heavy(fake_engine):
    turns = [Message(("user", "assistant")[at % 2], "x" * 10) for at in range(1001)]
    harness = Harness(fake_engine(num_ctx=15_000), Words(lambda text: "y" * 14_000 + text))
    harness.preprocessor.put(Submit(1, Inference(Prompt(turns), Sampling()), "a"))

    assert harness.run_quick() == []
    assert isinstance(harness.run_heavy()[0], PreparedRequest)


def test_a_new_chat_format_is_made_by_the_heavy_queue_and_found_by_the_quick_one(fake_engine):
    made = []

    def choose(spec, **_more):
        made.append(spec)
        return Words()

    harness = Harness(fake_engine(), ChatFormatCache(fake_engine(), choose))
    harness.preprocessor.put(submit(1))
    harness.preprocessor.put(submit(2, client="b"))

    assert harness.run_quick() == []
    assert ids(harness.run_heavy()) == [1, 2]
    harness.preprocessor.put(submit(3))
    assert ids(harness.run_quick()) == [3]
    assert len(made) == 1


def test_a_form_is_compiled_by_the_heavy_queue_and_copied_by_the_quick_one(tiny_engine):
    harness = Harness(tiny_engine)
    inference = Inference(Prompt(raw="x"), Sampling(), format={"type": "integer"})
    harness.preprocessor.put(Submit(1, inference, "a"))
    assert harness.run_quick() == []
    (first,) = harness.run_heavy()

    harness.preprocessor.put(Submit(2, inference, "b"))
    (second,) = harness.run_quick()

    assert first.constraint is not second.constraint
    first.constraint.accept(ord("1"))
    assert second.constraint.allowed().tolist() != first.constraint.allowed().tolist()


def test_a_form_that_cannot_be_enforced_is_refused_at_once_the_next_time(tiny_engine):
    harness = Harness(tiny_engine)
    inference = Inference(Prompt(raw="x"), Sampling(), format={"type": "string", "pattern": "("})
    harness.preprocessor.put(Submit(1, inference, "a"))
    assert harness.run_quick() == []
    (first,) = harness.run_heavy()
    harness.preprocessor.put(Submit(2, inference, "b"))
    (second,) = harness.run_quick()

    assert first.code == second.code == "bad_request"
    assert first.message == second.message


@pytest.fixture
def tiny_engine(fake_engine):
    """A token for each byte, and an end."""

    class Bytes(fake_engine):
        def piece(self, token):
            return b"" if token == self.facts.vocab_size - 1 else bytes([token])

        def is_end(self, token):
            return token == self.facts.vocab_size - 1

        def tokenize(self, text, **_options):
            return list(text.encode())

    engine = Bytes()
    engine.facts = msgspec.structs.replace(engine.facts, vocab_size=257)
    return engine


# ----------------------------------------------------------------- templates that requests bring


def test_a_template_that_a_request_brings_has_little_time_and_costs_it_once(fake_engine):
    made = []

    def choose(spec, **_more):
        made.append(spec)
        return Words()

    harness = Harness(fake_engine(), ChatFormatCache(fake_engine(), choose), Limits(is_slow=True))
    brought = ChatFormatSpec(request_template="slow")
    for number in (1, 2):
        harness.preprocessor.put(submit(number, chat_format=brought))
        harness.run_quick()
    failed = harness.run_heavy()

    assert [type(each) for each in failed] == [Failed, Failed]
    assert {each.code for each in failed} == {"template_failed"}
    assert max(harness.limits.seconds) < 0.1
    asked = len(harness.limits.seconds)
    harness.preprocessor.put(submit(3, chat_format=brought))
    assert ids(harness.run_quick()) == [3]
    assert len(harness.limits.seconds) == asked
    assert made == []


def test_templates_of_requests_evict_only_one_another(fake_engine):
    made = []

    def choose(spec, **_more):
        made.append(spec)
        return Words()

    chat_formats = ChatFormatCache(fake_engine(), choose)

    def is_cached(spec):
        before = len(made)
        chat_formats.get_or_make(spec, lambda action: action(), lambda: None)
        return len(made) == before

    is_cached(ChatFormatSpec(template="own"))
    for number in range(100):
        is_cached(ChatFormatSpec(template="own", request_template=str(number)))

    assert is_cached(ChatFormatSpec(template="own"))
    assert is_cached(ChatFormatSpec(template="own", request_template="99"))
    assert not is_cached(ChatFormatSpec(template="own", request_template="0"))


def test_an_invalid_template_is_not_parsed_again(fake_engine):
    tries = []

    def choose(spec, **_more):
        tries.append(spec)
        raise TemplateFailed("no template")

    chat_formats = ChatFormatCache(fake_engine(), choose)
    for _ in range(3):
        with pytest.raises(TemplateFailed, match="no template"):
            chat_formats.get_or_make(
                ChatFormatSpec(template="{{"), lambda action: action(), lambda: None
            )

    assert len(tries) == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=50))
def test_the_cache_is_bounded_by_number_and_size(puts):
    kept, last = BoundedCache(5, 100), {}
    for key, size in puts:
        kept.put(key, (key, size), size)
        last[key] = size
    found = {key: kept.get(key) for key in last}
    there = [value for value in found.values() if value is not None]

    assert len(there) <= 5
    assert sum(size for _, size in there) <= 100
    assert all(value == (value[0], last[value[0]]) for value in there)
    if puts:
        assert found[puts[-1][0]] is not None


# ----------------------------------------------------------------- cancellations


def test_a_cancel_ends_what_has_not_been_prepared(harness):
    harness.preprocessor.put(submit(1))
    harness.preprocessor.cancel(Cancel(1))

    assert harness.run_quick() == [Done(1, "cancel", Usage())]


def test_a_cancel_ends_what_waits_for_the_heavy_queue(harness):
    harness.preprocessor.put(submit(1, "x" * 100_000))
    assert harness.run_quick() == []
    harness.preprocessor.cancel(Cancel(1))

    assert harness.run_heavy() == [Done(1, "cancel", Usage())]


def test_a_cancel_during_the_rendering_ends_the_request_at_once(fake_engine):
    def render(text):
        harness.preprocessor.cancel(Cancel(1))
        return text

    harness = Harness(fake_engine(), Words(render))
    harness.preprocessor.put(submit(1))

    assert harness.run_quick() == [Done(1, "cancel", Usage())]


def test_a_cancel_after_that_is_for_the_step_thread(harness):
    harness.preprocessor.put(submit(1))
    (request,) = harness.run_quick()
    harness.preprocessor.cancel(Cancel(1))

    assert isinstance(request, PreparedRequest)
    assert harness.mailbox.take() == [Cancel(1)]


def test_a_cancel_that_comes_while_a_request_is_handed_over_is_not_lost(fake_engine):
    """The hand-over waits for space in the mailbox; the cancel does not."""

    class Watched(Mailbox):
        def _wait_for_space(self):
            arrived.set()
            super()._wait_for_space()

    arrived = threading.Event()
    harness = Harness(fake_engine(), mailbox=Watched(limit=1))
    harness.preprocessor.put(submit(1))
    harness.mailbox.cancel(Cancel(9))  # fills it
    harness.preprocessor.close()
    preparing = threading.Thread(target=harness.preprocessor.run, kwargs={"is_quick": True})
    preparing.start()
    assert arrived.wait(LONG_WAIT_S)
    harness.preprocessor.cancel(Cancel(1))
    taken = harness.mailbox.take()
    preparing.join(LONG_WAIT_S)

    assert taken + harness.mailbox.take() == [Cancel(9), Done(1, "cancel", Usage())]


def test_no_cancel_overtakes_its_request(harness):
    """Three threads as in a worker: each request is ended here, or cancelled behind itself."""
    received = defaultdict(list)
    is_over = threading.Event()

    def step():
        is_last = False
        while not is_last:
            is_last = is_over.is_set()
            harness.mailbox.wait(0.01)
            for entry in harness.mailbox.take():
                received[entry.id].append(type(entry))

    threads = [
        threading.Thread(target=harness.preprocessor.run, kwargs={"is_quick": True}),
        threading.Thread(target=step),
    ]
    for thread in threads:
        thread.start()
    for number in range(1, 1001):
        harness.preprocessor.put(submit(number))
        harness.preprocessor.cancel(Cancel(number))
    harness.preprocessor.close()
    threads[0].join(LONG_WAIT_S)
    is_over.set()
    threads[1].join(LONG_WAIT_S)

    kinds = Counter(map(tuple, received.values()))
    assert sum(kinds.values()) == 1000
    assert set(kinds) <= {(Done,), (PreparedRequest, Cancel)}


def test_a_full_mailbox_blocks_its_writers():
    mailbox = Mailbox(limit=2)
    for number in (1, 2):
        hand_over(mailbox, Cancel(number))
    writer = threading.Thread(target=hand_over, args=(mailbox, Cancel(3)))
    writer.start()
    taken = []
    while len(taken) < 3:
        mailbox.wait(5)
        taken += mailbox.take()
    writer.join()

    assert taken == [Cancel(1), Cancel(2), Cancel(3)]


def test_wait_returns_at_once_after_wake():
    mailbox = Mailbox()
    mailbox.wake()
    mailbox.wait(60)

    assert mailbox.take() == []
