"""What is too long for one frame is sent in parts, or fails its request alone."""

import pytest

from ollama_async.core.conversation import Thought, ToolCall, ToolFunction, Usage
from ollama_async.workers import frames
from ollama_async.workers.child.message_batch import MessageBatch
from ollama_async.workers.messages import (
    MAX_DELTAS,
    Deltas,
    Done,
    Failed,
    Heartbeat,
    Started,
    ToolCallDelta,
)


@pytest.fixture
def sent():
    return []


@pytest.fixture
def buffer(sent):
    """Its messages go through the frames that a pipe would use, on both sides."""
    reader = frames.FrameReader(
        Started | Deltas | Done | Failed | Heartbeat, limit_bytes=frames.TO_PARENT_LIMIT_BYTES
    )

    def send(messages):
        data = frames.encode(messages, limit_bytes=frames.TO_PARENT_LIMIT_BYTES)
        sent.extend(reader.feed(bytes(data)))

    return MessageBatch(send)


def pieces_of(sent, number):
    return [
        piece
        for message in sent
        if isinstance(message, Deltas)
        for id_, piece in message.items
        if id_ == number
    ]


def test_long_texts_come_in_parts_and_in_order(buffer, sent):
    text = "".join(f"\N{GRINNING FACE}{number}" for number in range(200_000))
    buffer.add(Started(1))
    buffer.deltas += [(1, text), (1, Thought(text)), (2, "short")]
    buffer.add(Done(1, "stop", Usage()))
    buffer.flush(0.0)
    parts = pieces_of(sent, 1)
    assert "".join(part for part in parts if isinstance(part, str)) == text
    assert "".join(part.text for part in parts if isinstance(part, Thought)) == text
    assert pieces_of(sent, 2) == ["short"]
    assert (sent[0], sent[-1]) == (Started(1), Done(1, "stop", Usage()))


def test_very_many_pieces_come_in_several_messages(buffer, sent):
    buffer.deltas += [(number, "x") for number in range(3 * MAX_DELTAS)]
    buffer.flush(0.0)
    assert sum(len(message.items) for message in sent) == 3 * MAX_DELTAS


def test_an_answer_that_was_ready_before_is_sent_in_parts_too(buffer, sent):
    buffer.add(Deltas([(1, "x" * 1_000_000)]))
    buffer.flush(0.0)
    assert "".join(pieces_of(sent, 1)) == "x" * 1_000_000


def test_a_tool_call_that_is_too_long_fails_its_request_and_no_other(buffer, sent):
    call = ToolCallDelta(ToolCall(ToolFunction("f", {"a": "x" * 300_000})))
    buffer.deltas += [(1, "before"), (1, call), (1, "after"), (2, "other")]
    buffer.flush(0.0)
    buffer.deltas += [(1, "more"), (2, "more")]
    buffer.add(Done(1, "stop", Usage()))
    buffer.add(Done(2, "stop", Usage()))
    buffer.flush(1.0)
    assert pieces_of(sent, 1) == ["before"]
    assert pieces_of(sent, 2) == ["other", "more"]
    (failed,) = [message for message in sent if isinstance(message, Failed)]
    assert (failed.id, "answer is too long" in failed.message) == (1, True)
    assert [message.id for message in sent if isinstance(message, Done)] == [2]
    sent.clear()
    buffer.deltas.append((3, "x"))
    buffer.flush(2.0)
    assert sent == [Deltas([(3, "x")])], "it is over with the end"
