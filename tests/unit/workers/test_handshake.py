"""Every order in which a child may begin, and the one that is right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.workers import messages
from ollama_async.workers.handshake import Handshake, ProtocolViolation
from ollama_async.workers.load_spec import ResourceLimits

HELLO = messages.Hello(messages.PROTOCOL, 42, 7, "x")
LOADING = messages.Loading(0.5)
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
    handshake = Handshake(generation=7, pid=42, bounds=ResourceLimits())
    for index, message in enumerate(sequence):
        right = (HELLO,) if index == 0 else (LOADING, READY, REFUSED)
        if message not in right:
            with pytest.raises(ProtocolViolation, match=type(message).__name__):
                handshake.hear(message)
            return
        outcome = handshake.hear(message)
        assert outcome == (message if message in (READY, REFUSED) else None)
        if outcome:
            return


@pytest.mark.parametrize(
    ("hello", "text"),
    [
        (messages.Hello(messages.PROTOCOL + 1, 42, 7, "x"), "speaks protocol 6, this server 5"),
        (messages.Hello(messages.PROTOCOL, 43, 7, "x"), "generation 7, pid 43"),
        (messages.Hello(messages.PROTOCOL, 42, 6, "x"), "generation 6, pid 42"),
    ],
)
def test_another_protocol_process_or_generation_is_refused(hello, text):
    with pytest.raises(ProtocolViolation, match=text):
        Handshake(generation=7, pid=42, bounds=ResourceLimits()).hear(hello)
