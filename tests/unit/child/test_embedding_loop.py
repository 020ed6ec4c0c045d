"""The step thread of an embedding model, with an engine that shows what it was given."""

import struct
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.conversation import Vector
from ollama_async.workers.child.embedding_loop import EmbeddingLoop
from ollama_async.workers.child.engines.embedding import EmbeddingFacts
from ollama_async.workers.child.engines.engine import EngineError
from ollama_async.workers.child.mailbox import Mailbox, PreparedEmbedding
from ollama_async.workers.messages import Cancel, Deltas, Done, Failed, Heartbeat, Started

BATCH_TOKENS = 20
BATCH_INPUTS = 6
POISON = 13
LONG = range(17, 21)


class FakeEngine:
    """The vector of an input is the sum of its tokens. A batch with :data:`POISON` fails, one of a
    token in :data:`LONG` lets the loop attend first.
    """

    def __init__(self, size=1):
        self.facts = EmbeddingFacts(
            slots=8,
            num_ctx=30,
            vocab_size=1000,
            batch_tokens=BATCH_TOKENS,
            batch_inputs=BATCH_INPUTS,
            weights_bytes=1,
        )
        self.size = size
        self.batches = []
        self.during = lambda: None

    def embed(self, inputs, is_abandoned):
        assert all(inputs)
        assert 0 < len(inputs) <= BATCH_INPUTS
        assert len(inputs) == 1 or sum(map(len, inputs)) <= BATCH_TOKENS
        self.batches.append([list(tokens) for tokens in inputs])
        if any(POISON in tokens for tokens in inputs):
            raise EngineError("out of order")
        if any(token in LONG for tokens in inputs for token in tokens):
            self.during()
            if is_abandoned():
                raise EngineError("abandoned")
        return [struct.pack("<f", sum(tokens)) * self.size for tokens in inputs]


class Harness:
    def __init__(self, engine=None):
        self.engine = engine or FakeEngine()
        self.mailbox = Mailbox()
        self.flushes = []
        self.now_ns = 0
        self.loop = EmbeddingLoop(
            self.engine, self.mailbox, self.flushes.append, clock_ns=self.clock_ns
        )

    def clock_ns(self):
        self.now_ns += 100_000_000
        return self.now_ns

    def put(self, number, inputs, client="ann"):
        self.mailbox.expect(number)
        self.mailbox.hand_over(number, [PreparedEmbedding(number, inputs, client)])

    def cancel(self, number):
        self.mailbox.cancel(Cancel(number))

    def iterate(self, times=1):
        for _ in range(times):
            self.loop.iterate(idle_s=0)
        return self

    def sent(self):
        return [message for flush in self.flushes for message in flush]

    def of(self, number):
        """What was sent for one request, in order."""
        found = []
        for message in self.sent():
            if isinstance(message, Deltas):
                found += [part for request_id, part in message.items if request_id == number]
            elif not isinstance(message, Heartbeat) and message.id == number:
                found.append(message)
        return found


def vectors(messages):
    return {part.index: part for part in messages if isinstance(part, Vector)}


def test_inputs_of_many_requests_are_one_batch():
    harness = Harness()
    harness.put(1, [[1, 2], [3]])
    harness.put(2, [[4]], "bob")
    harness.iterate()

    assert sorted(harness.engine.batches[0]) == [[1, 2], [3], [4]]
    started, first, second, done = harness.of(1)
    assert started == Started(1, 3)
    assert vectors([first, second]) == {
        0: Vector(0, struct.pack("<f", 3), 2),
        1: Vector(1, struct.pack("<f", 3), 1),
    }
    assert (done.id, done.reason, done.usage.prompt) == (1, "stop", 3)
    assert done.usage.prompt_ns > 0


def test_a_client_with_many_inputs_delays_another_by_one_batch():
    harness = Harness()
    harness.put(1, [[1] * 10] * 100, "ann")
    harness.iterate()
    harness.put(2, [[7]], "bob")
    harness.put(3, [[8]], "cid")
    harness.iterate()

    assert [type(each) for each in harness.of(2)] == [Started, Vector, Done]
    assert [type(each) for each in harness.of(3)] == [Started, Vector, Done]
    assert Done not in map(type, harness.of(1))


def test_the_longest_input_is_a_batch_of_its_own():
    harness = Harness()
    harness.put(1, [[1] * 5, [2] * 30, [3] * 5])
    harness.iterate(3)
    assert [len(batch) for batch in harness.engine.batches] == [1, 1, 1]


def test_an_input_that_fails_fails_only_its_request():
    harness = Harness()
    harness.put(1, [[1], [POISON], [2]])
    harness.put(2, [[3], [4]], "bob")
    harness.iterate(3)

    failed = harness.of(1)[-1]
    assert isinstance(failed, Failed)
    assert failed.message == "out of order"
    assert [type(each) for each in harness.of(2)] == [Started, Vector, Vector, Done]


def test_a_batch_that_failed_goes_on_reading_and_sending_between_its_inputs():
    """Each of them may take seconds, and a silent worker is killed."""
    harness = Harness()
    for number, token in ((1, LONG[0]), (2, POISON), (3, 3)):
        harness.put(number, [[token]], str(number))
    harness.engine.during = lambda: harness.cancel(3)
    harness.iterate()

    assert harness.engine.batches == [[[LONG[0]], [POISON], [3]], [[LONG[0]]], [[POISON]]]
    assert harness.of(3)[-1].reason == "cancel"
    first_sent = [type(message) for message in harness.flushes[0]]
    assert first_sent == [Started] * 3 + [Heartbeat]


def test_large_vectors_are_sent_in_several_messages():
    harness = Harness(FakeEngine(size=4096))
    harness.put(1, [[1]] * BATCH_INPUTS)
    harness.iterate()
    sizes = [len(each.items) for each in harness.sent() if isinstance(each, Deltas)]
    assert sizes == [4, 2]


def test_a_long_batch_goes_on_reading_and_sending():
    harness = Harness()
    harness.put(1, [[LONG.start]], "ann")
    harness.put(2, [[1]], "bob")
    seen = []

    def during():
        harness.cancel(2)
        harness.put(3, [[2]], "cid")
        harness.now_ns += 2_000_000_000
        seen.append(len(harness.flushes))

    harness.engine.during = during
    harness.iterate(2)

    assert [type(each) for each in harness.flushes[0]] == [Started, Started, Done, Heartbeat]
    assert seen == [0]
    assert [type(each) for each in harness.of(1)] == [Started, Vector, Done]
    assert [type(each) for each in harness.of(2)] == [Started, Done]
    assert harness.of(2)[-1].reason == "cancel"
    assert [type(each) for each in harness.of(3)] == [Started, Vector, Done]


def test_a_batch_that_nobody_waits_for_ends():
    harness = Harness()
    harness.put(1, [[LONG.start], [3]], "ann")
    harness.engine.during = lambda: harness.cancel(1)
    harness.iterate(3)

    assert len(harness.engine.batches) == 1
    assert [type(each) for each in harness.of(1)] == [Started, Done]


def test_a_stop_ends_a_long_batch():
    harness = Harness()
    harness.put(1, [[LONG.start], [3]], "ann")
    harness.engine.during = harness.loop.stop
    harness.loop.run()
    assert [type(each) for each in harness.of(1)] == [Started]


def test_a_heartbeat_counts_requests():
    harness = Harness()
    harness.put(1, [[1] * 10] * 10)
    harness.iterate()
    [heartbeat] = [each for each in harness.sent() if isinstance(each, Heartbeat)]
    assert heartbeat == Heartbeat(1, 0.0)


INPUT = st.lists(st.integers(1, 20), min_size=1, max_size=30)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.sampled_from("abc"),
            st.lists(
                st.lists(st.integers(1, 20), min_size=1, max_size=30), min_size=1, max_size=12
            ),
        ),
        st.tuples(st.just("cancel"), st.integers(1, 8)),
        st.tuples(st.just("cancel within"), st.integers(1, 8)),
        st.tuples(st.just("iterate")),
    ),
    max_size=30,
)


@given(ACTIONS)
def test_every_request_ends_once_with_all_its_vectors(actions):
    harness = Harness()
    inputs_of = {}
    cancelled = set()
    for action in actions:
        match action:
            case ("put", client, inputs):
                number = len(inputs_of) + 1
                inputs_of[number] = inputs
                harness.put(number, inputs, client)
            case ("cancel", number) if number in inputs_of:
                cancelled.add(number)
                harness.cancel(number)
            case ("cancel within", number) if number in inputs_of:
                cancelled.add(number)
                harness.engine.during = partial(harness.cancel, number)
                harness.iterate()
                harness.engine.during = lambda: None
            case ("iterate",):
                harness.iterate()
    harness.iterate(sum(map(len, inputs_of.values())) + 1)

    for number, inputs in inputs_of.items():
        messages = harness.of(number)
        end = messages[-1]
        assert [type(each) for each in messages].count(Started) <= 1
        assert sum(isinstance(each, Done | Failed) for each in messages) == 1
        got = vectors(messages)
        assert len(got) == sum(isinstance(each, Vector) for each in messages)  # each index once
        for index, part in got.items():
            assert part == Vector(index, struct.pack("<f", sum(inputs[index])), len(inputs[index]))
        if isinstance(end, Failed):
            assert any(POISON in tokens for tokens in inputs)
        elif end.reason == "cancel":
            assert number in cancelled
        else:
            assert set(got) == set(range(len(inputs)))
            assert isinstance(messages[0], Started)
            assert end.usage.prompt == messages[0].prompt == sum(map(len, inputs))
