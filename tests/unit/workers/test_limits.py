"""A worker may say what was asked for, and no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.conversation import Thought, ToolCall, ToolFunction
from ollama_async.workers.handshake import ProtocolViolation
from ollama_async.workers.limits import (
    CHARACTERS_PER_TOKEN,
    SPARE_CHARACTERS,
    Allowances,
    Chatter,
)
from ollama_async.workers.messages import ToolCallDelta

CONTEXT = 16


@pytest.fixture
def allowances():
    return Allowances(CONTEXT)


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        (3, 3),
        (0, 0),
        (-1, 10 * CONTEXT),
        (1 << 30, 10 * CONTEXT),
    ],
)
def test_text_is_bounded_by_the_tokens_that_were_asked_for(allowances, asked, tokens):
    allowances.begin(1, asked)
    most = tokens * CHARACTERS_PER_TOKEN + SPARE_CHARACTERS
    allowances.spend([(1, "x" * (most - 1))])
    with pytest.raises(ProtocolViolation, match="more of request 1 than was asked for"):
        allowances.spend([(1, "x")])


@pytest.mark.parametrize(
    "piece",
    [
        "",
        "x" * 1000,
        Thought(""),
        Thought("x" * 1000),
        ToolCallDelta(ToolCall(ToolFunction("", {}))),
        ToolCallDelta(ToolCall(ToolFunction("f", {"a": ["x"] * 100}))),
    ],
)
def test_every_kind_of_piece_is_counted(allowances, piece):
    allowances.begin(1, 0)
    flood = [(1, piece)] * (SPARE_CHARACTERS + 1)
    with pytest.raises(ProtocolViolation):
        allowances.spend(flood)


def test_what_json_cannot_say_is_no_call(allowances):
    allowances.begin(1, -1)
    with pytest.raises(ProtocolViolation, match="called a tool"):
        allowances.spend([(1, ToolCallDelta(ToolCall(ToolFunction("f", {"a": object()}))))])


def test_requests_do_not_share_what_they_may_have(allowances):
    allowances.begin(1, 0)
    allowances.begin(2, 0)
    allowances.spend([(1, "x" * (SPARE_CHARACTERS - 1)), (2, "x" * (SPARE_CHARACTERS - 1))])
    with pytest.raises(ProtocolViolation):
        allowances.spend([(2, "x")])


@given(st.lists(st.tuples(st.sampled_from(["begin", "start", "spend", "end"]), st.integers(1, 3))))
def test_a_request_begins_starts_once_and_ends_once(history):
    allowances, living, started = Allowances(CONTEXT), set(), set()
    for act, number in history:
        if act == "begin":
            if number not in living:
                allowances.begin(number, -1)
                living.add(number)
            continue
        is_right = number in living and not (act == "start" and number in started)
        try:
            if act == "start":
                allowances.start(number)
                started.add(number)
            elif act == "spend":
                allowances.spend([(number, "x")])
            else:
                allowances.end(number)
                living.discard(number)
                started.discard(number)
        except ProtocolViolation:
            assert not is_right
        else:
            assert is_right
        assert bool(allowances) == bool(living)
        assert all((number in allowances) == (number in living) for number in (1, 2, 3))


def test_chatter_is_bounded_and_recovers():
    chatter = Chatter(0.0)
    for _ in range(200):
        chatter.hear(1.0)
    with pytest.raises(ProtocolViolation):
        chatter.hear(1.0)
    chatter = Chatter(0.0)
    for second in range(10_000):  # ten times a second, as progress comes
        chatter.hear(second / 10)
