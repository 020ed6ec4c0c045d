"""Limits: a worker sends what was requested, in order, and no more."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.conversation import (
    Logprobs,
    Thought,
    TokenLogprob,
    ToolCall,
    ToolFunction,
    Usage,
    Vector,
)
from ollama_async.workers import messages
from ollama_async.workers.limits import (
    CHARACTERS_PER_TOKEN,
    SPARE_CHARACTERS,
    Handshake,
    MessageRate,
    OutputLimits,
    ProtocolViolation,
    check_done,
)
from ollama_async.workers.load_spec import ResourceLimits
from ollama_async.workers.messages import ToolCallDelta

CONTEXT = 16


@pytest.fixture
def limits():
    return OutputLimits(CONTEXT)


def start(limits, request_id, *asked, **more):
    limits.begin(request_id, *asked, **more)
    limits.start(messages.Started(request_id))


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        (3, 3),
        (0, 0),
        (-1, 10 * CONTEXT),
        (1 << 30, 10 * CONTEXT),
    ],
)
def test_text_is_bounded_by_the_requested_tokens(limits, asked, tokens):
    start(limits, 1, asked)
    most = tokens * CHARACTERS_PER_TOKEN + SPARE_CHARACTERS
    limits.spend([(1, "x" * (most - 1))])
    with pytest.raises(ProtocolViolation, match="more for request 1 than was requested"):
        limits.spend([(1, "x")])


@pytest.mark.parametrize(
    "delta",
    [
        "",
        "x" * 1000,
        Thought(""),
        Thought("x" * 1000),
        ToolCallDelta(ToolCall(ToolFunction("", {}))),
        ToolCallDelta(ToolCall(ToolFunction("f", {"a": ["x"] * 100}))),
        Logprobs([]),
        Logprobs([TokenLogprob(b"", 0.0)] * 100),
        Logprobs([TokenLogprob(b"x" * 1000, 0.0)]),
        Logprobs([TokenLogprob(b"", 0.0, [(b"x" * 50, 0.0)] * 20)]),
    ],
)
def test_every_kind_of_delta_is_counted(limits, delta):
    start(limits, 1, 0)
    elements = len(delta.tokens) if isinstance(delta, Logprobs) else 1
    flood = [(1, delta)] * (SPARE_CHARACTERS // max(1, elements) + 1)
    with pytest.raises(ProtocolViolation):
        limits.spend(flood)


def test_a_call_that_json_cannot_represent_is_a_violation(limits):
    start(limits, 1, -1)
    with pytest.raises(ProtocolViolation, match="invalid tool call"):
        limits.spend([(1, ToolCallDelta(ToolCall(ToolFunction("f", {"a": object()}))))])


def test_output_limits_are_per_request(limits):
    start(limits, 1, 0)
    start(limits, 2, 0)
    limits.spend([(1, "x" * (SPARE_CHARACTERS - 1)), (2, "x" * (SPARE_CHARACTERS - 1))])
    with pytest.raises(ProtocolViolation):
        limits.spend([(2, "x")])


def test_logprobs_of_whole_vocabularies_are_counted(limits):
    start(limits, 1, 0)
    limits.spend([(1, Logprobs([TokenLogprob(b"", 0.0, [(b"", 0.0)] * 8000)]))])
    with pytest.raises(ProtocolViolation):
        limits.spend([(1, Logprobs([TokenLogprob(b"", 0.0, [(b"", 0.0)] * 8000)]))])


def test_logprobs_of_the_longest_tokens_are_no_violation(limits):
    """A client can make a model see nothing but blanks, whose tokens are the longest."""
    start(limits, 1, 1000, logprobs=21)
    blanks = Logprobs([TokenLogprob(b" " * 256, -1.0, [(b" " * 256, -1.0)] * 20)])
    for _ in range(10 * CONTEXT):
        limits.spend([(1, blanks), (1, " " * 256)])
    with pytest.raises(ProtocolViolation, match="more for request 1 than was requested"):
        limits.spend([(1, blanks)] * 1000)


def test_a_request_gets_as_many_vectors_as_it_has_inputs(limits):
    start(limits, 1, 0, vectors=2)
    start(limits, 2, 0)
    limits.spend([(1, Vector(0, b"x" * 100_000, 1)), (1, Vector(1, b"", 1))])
    for number in (1, 2):
        with pytest.raises(ProtocolViolation, match=f"a vector too many for request {number}"):
            limits.spend([(number, Vector(0, b"", 1))])
    limits.end(1)
    start(limits, 1, 0)
    with pytest.raises(ProtocolViolation, match="a vector too many"):
        limits.spend([(1, Vector(0, b"", 1))])


@pytest.mark.parametrize("logprob", [math.nan, math.inf, -math.inf, 1e-9])
def test_a_logprob_of_no_probability_is_a_violation(limits, logprob):
    start(limits, 1, -1)
    for named in (TokenLogprob(b"a", logprob), TokenLogprob(b"a", 0.0, [(b"a", logprob)])):
        with pytest.raises(ProtocolViolation, match="a logprob of"):
            limits.spend([(1, Logprobs([named]))])


@pytest.mark.parametrize(("index", "tokens"), [(-1, 1), (0, -1), (0, CONTEXT + 1), (1 << 63, 1)])
def test_a_vector_with_impossible_numbers_is_a_violation(limits, index, tokens):
    start(limits, 1, 0, vectors=1)
    with pytest.raises(ProtocolViolation, match="the worker reports"):
        limits.spend([(1, Vector(index, b"", tokens))])


@pytest.mark.parametrize(
    ("done", "text"),
    [
        (messages.Done(1, "stop", Usage(prompt=-1)), "impossible numbers"),
        (messages.Done(1, "stop", Usage(answer=1 << 54)), "impossible numbers"),
        (messages.Done(1, "stop", Usage(prompt=3, cached=4)), "larger than the whole"),
        (messages.Done(1, "stop", Usage(answer=3, thinking=4)), "larger than the whole"),
        (messages.Done(1, "stop", Usage(), stop_string="x" * 100_000), "stop string"),
    ],
)
def test_an_end_that_cannot_be_is_a_violation(done, text):
    check_done(messages.Done(1, "stop", Usage(4, 4, 1, 3, 1, 3), stop_string="x" * 1000))
    with pytest.raises(ProtocolViolation, match=text):
        check_done(done)


@pytest.mark.parametrize("delta", ["x", "", Thought("x"), Vector(0, b"", 1)])
def test_output_before_the_start_is_a_violation(limits, delta):
    """Formats write the beginning of an answer when it starts."""
    limits.begin(1, 5, vectors=1)
    with pytest.raises(ProtocolViolation, match=r"before it started 1|a vector too many"):
        limits.spend([(1, delta)])


@pytest.mark.parametrize("numbers", [(-1, 0), (0, -1), (1 << 63, 0)])
def test_a_start_with_impossible_numbers_is_a_violation(limits, numbers):
    limits.begin(1, 0)
    with pytest.raises(ProtocolViolation, match="impossible numbers"):
        limits.start(messages.Started(1, *numbers))


def test_a_start_with_more_cached_tokens_than_there_are_is_a_violation(limits):
    """Some clients are told the difference."""
    limits.begin(1, 0)
    limits.begin(2, 0)
    limits.start(messages.Started(1, 7, 7))
    with pytest.raises(ProtocolViolation, match="larger than the whole"):
        limits.start(messages.Started(2, 7, 8))


@given(st.lists(st.tuples(st.sampled_from(["begin", "start", "spend", "end"]), st.integers(1, 3))))
def test_a_request_begins_starts_once_and_ends_once(history):
    limits, living, started = OutputLimits(CONTEXT), set(), set()
    for act, number in history:
        if act == "begin":
            if number not in living:
                limits.begin(number, -1)
                living.add(number)
            continue
        is_right = number in living
        if act == "start":
            is_right = is_right and number not in started
        elif act == "spend":
            is_right = number in started
        try:
            if act == "start":
                limits.start(messages.Started(number))
                started.add(number)
            elif act == "spend":
                limits.spend([(number, "x")])
            else:
                limits.end(number)
                living.discard(number)
                started.discard(number)
        except ProtocolViolation:
            assert not is_right
        else:
            assert is_right
        assert bool(limits) == bool(living)
        assert all((number in limits) == (number in living) for number in (1, 2, 3))


def test_messages_without_a_request_are_rate_limited():
    rate = MessageRate(0.0)
    for _ in range(200):
        rate.count(1.0)
    with pytest.raises(ProtocolViolation):
        rate.count(1.0)
    rate = MessageRate(0.0)
    for second in range(10_000):  # ten times a second, as progress comes
        rate.count(second / 10)


# The handshake

HELLO = messages.Hello(messages.PROTOCOL, 42, 7)
LOADING = messages.Loading()
READY = messages.Ready(1, 64, 0, 0, 0, 0)
REFUSED = messages.Refused("load_failed", "no")
OTHERS = [
    messages.Started(1),
    messages.Deltas([(1, "x")]),
    messages.Failed(1, "x", "y"),
    messages.Heartbeat(0, 0.0),
]


@given(st.lists(st.sampled_from([HELLO, LOADING, READY, REFUSED, *OTHERS]), max_size=6))
def test_only_hello_then_loading_then_an_outcome_is_accepted(sequence):
    handshake = Handshake(generation=7, pid=42, limits=ResourceLimits())
    for index, message in enumerate(sequence):
        right = (HELLO,) if index == 0 else (LOADING, READY, REFUSED)
        if message not in right:
            with pytest.raises(ProtocolViolation, match=type(message).__name__):
                handshake.receive(message)
            return
        outcome = handshake.receive(message)
        assert outcome == (message if message in (READY, REFUSED) else None)
        if outcome:
            return


@pytest.mark.parametrize(
    ("hello", "text"),
    [
        (messages.Hello(messages.PROTOCOL + 1, 42, 7), "uses protocol 9, this server 8"),
        (messages.Hello(messages.PROTOCOL, 43, 7), "generation 7, pid 43"),
        (messages.Hello(messages.PROTOCOL, 42, 6), "generation 6, pid 42"),
    ],
)
def test_another_protocol_process_or_generation_is_refused(hello, text):
    with pytest.raises(ProtocolViolation, match=text):
        Handshake(generation=7, pid=42, limits=ResourceLimits()).receive(hello)
