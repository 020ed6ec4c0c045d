"""A response stream under every order of deltas, turns of the loop, and slow clients."""

from __future__ import annotations

import asyncio
import json

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
)
from ollama_async.core.errors import WorkerDied
from ollama_async.gateway import response_stream
from ollama_async.gateway.client_budgets import FREE_BYTES, Reservation, SendBudget
from ollama_async.gateway.response_formats.ollama import OllamaGenerateFormat
from ollama_async.gateway.response_stream import JOIN_ABOVE, Flusher, ResponseStream
from ollama_async.queue.backend import Finish
from tests.unit.gateway.conftest import FakeRequest

END = Finish("stop", Usage(), [])


class Wire:
    """A request, its protocol and its transport in one; ``writing_paused`` is the test's to set."""

    class version:  # noqa: N801  # plays aiohttp's attribute
        minor = 0

    def __init__(self) -> None:
        self.transport = self.protocol = self
        self.writing_paused = False
        self.is_gone = False
        self.written = b""

    def write(self, data: bytes) -> None:
        assert not self.writing_paused, "written to a client that does not read"
        self.written += data

    def is_closing(self) -> bool:
        return self.is_gone

    def abort(self) -> None:
        self.is_gone = True

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """What the objects say, each its kind and its text; each object has one kind."""
        sent = []
        for line in map(json.loads, self.written.splitlines()):
            found = [
                ("text", line["response"]),
                ("thought", line.get("thinking", "")),
                ("call", "".join(each["function"]["name"] for each in line.get("tool_calls", []))),
            ]
            sent += [(kind, text) for kind, text in found if text]
        return sent

    @property
    def texts(self) -> list[str]:
        return [json.loads(line)["response"] for line in self.written.splitlines()]


def make_stream(
    *, is_streamed: bool = True, gaps: list[float] | None = None, budget: SendBudget | None = None
) -> ResponseStream:
    reservation = Reservation(budget or SendBudget(), FakeRequest())
    observe_gap = ([] if gaps is None else gaps).append
    return ResponseStream(
        OllamaGenerateFormat("m"), observe_gap, Flusher(), reservation, is_streamed=is_streamed
    )


async def turn() -> None:
    await asyncio.sleep(0)


OPERATIONS = st.lists(
    st.one_of(
        st.text("abcü\n", min_size=1, max_size=3),
        st.sampled_from(["<turn>", "<slow>", "<reads>"]),
    ),
    max_size=60,
)


@given(OPERATIONS)
def test_no_text_is_lost_doubled_or_reordered(operations):
    async def play() -> tuple[str, str]:
        wire, stream, sent = Wire(), make_stream(), ""
        stream.attach(wire)
        for operation in operations:
            if operation == "<turn>":
                await turn()
            elif operation == "<slow>":
                wire.writing_paused = True
            elif operation == "<reads>":
                wire.writing_paused = False
                stream.attach(wire)
            else:
                sent += operation
                stream.text(operation)
        await turn()
        return sent, "".join(wire.texts) + stream.take().text

    sent, got = asyncio.run(play())
    assert got == sent


KINDS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["text", "thought", "call"]), st.text("ab", min_size=1)),
        st.sampled_from(["<turn>", "<slow>", "<reads>"]),
    ),
    max_size=40,
)


@given(KINDS)
def test_thinking_and_tool_calls_keep_their_places(operations):
    async def play() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        wire, stream, sent = Wire(), make_stream(), []
        stream.attach(wire)
        for operation in operations:
            match operation:
                case "<turn>":
                    await turn()
                case "<slow>":
                    wire.writing_paused = True
                case "<reads>":
                    wire.writing_paused = False
                    stream.attach(wire)
                case (kind, text):
                    sent.append((kind, text))
                    tell(stream, kind, text)
        await turn()
        wire.writing_paused = False
        stream.attach(wire)
        return sent, wire.kinds

    sent, got = asyncio.run(play())
    assert spelled(got) == spelled(sent)


def tell(stream: ResponseStream, kind: str, text: str) -> None:
    if kind == "text":
        stream.text(text)
    elif kind == "thought":
        stream.part(Thought(text))
    else:
        stream.part(ToolCall(ToolFunction(text)))


def spelled(sent: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Letter by letter, so that it does not matter how neighbours of one kind were joined."""
    return [(kind, letter) for kind, text in sent for letter in text]


async def test_neighbours_of_one_kind_become_one_object():
    wire, stream = Wire(), make_stream()
    stream.attach(wire)
    for kind, text in zip(("thought", "thought", "text", "call", "call"), "abcfg", strict=True):
        tell(stream, kind, text)
    await turn()
    assert wire.kinds == [("thought", "ab"), ("text", "c"), ("call", "fg")]


async def test_a_restart_drops_thinking_and_tool_calls():
    stream = make_stream(is_streamed=False)
    stream.part(Thought("a"))
    stream.part(ToolCall(ToolFunction("f")))
    assert stream.try_restart()
    stream.text("b")
    assert stream.take().text == "b"


async def test_deltas_of_different_turns_are_separate_objects():
    wire, stream = Wire(), make_stream()
    stream.attach(wire)
    for piece in "abc":
        stream.text(piece)
        await turn()
    assert wire.texts == ["a", "b", "c"]


async def test_few_deltas_of_one_turn_stay_objects_and_many_are_joined():
    wire, stream = Wire(), make_stream()
    stream.attach(wire)
    for _ in range(JOIN_ABOVE):
        stream.text("a")
    await turn()
    for _ in range(JOIN_ABOVE + 1):
        stream.text("b")
    await turn()
    assert wire.texts == ["a"] * JOIN_ABOVE + ["b" * (JOIN_ABOVE + 1)]


async def test_a_slow_client_wakes_the_handler_and_gets_buffered_text_as_one_object():
    wire, stream = Wire(), make_stream()
    stream.attach(wire)
    waiting = asyncio.ensure_future(stream.wait())
    await turn()
    wire.writing_paused = True
    stream.text("a")
    await asyncio.wait_for(waiting, 10)
    stream.text("b")
    assert wire.texts == []

    wire.writing_paused = False
    stream.attach(wire)
    assert wire.texts == ["ab"]


async def test_a_disconnected_client_cannot_be_attached():
    wire, stream = Wire(), make_stream()
    wire.is_gone = True
    with pytest.raises(ConnectionResetError):
        stream.attach(wire)


async def test_an_unstreamed_answer_wakes_only_at_the_end():
    stream = make_stream(is_streamed=False)
    waiting = asyncio.ensure_future(stream.wait())
    stream.text("a")
    stream.text("b")
    await turn()
    assert not waiting.done()
    stream.finished(END)
    await asyncio.wait_for(waiting, 10)
    assert stream.take().text == "ab"


async def test_a_cancelled_wait_can_be_waited_for_again():
    stream = make_stream()
    waiting = asyncio.ensure_future(stream.wait())
    await turn()
    waiting.cancel()
    await asyncio.wait({waiting})
    stream.failed(WorkerDied("x"))
    await asyncio.wait_for(stream.wait(), 10)
    assert stream.has_ended


async def test_gaps_are_measured_anew_after_a_restart():
    gaps: list[float] = []
    stream = make_stream(is_streamed=False, gaps=gaps)
    stream.text("a")
    stream.text("b")
    assert stream.try_restart()
    assert stream.first_at is None
    stream.text("c")
    assert len(gaps) == 1
    assert stream.take().text == "c"


async def test_a_fault_in_one_answer_is_not_one_of_another_of_the_same_turn():
    class Broken(OllamaGenerateFormat):
        def content(self, content):
            raise ValueError(content)

    flusher, reservation = Flusher(), Reservation(SendBudget(), FakeRequest())
    broken, whole = (
        ResponseStream(kind("m"), lambda _: None, flusher, reservation, is_streamed=True)
        for kind in (Broken, OllamaGenerateFormat)
    )
    wires = [Wire(), Wire()]
    for stream, wire in zip((broken, whole), wires, strict=True):
        stream.attach(wire)
        stream.part(ToolCall(ToolFunction("f")))
    await turn()

    assert wires[0].is_gone
    assert broken.has_ended
    assert wires[1].kinds == [("call", "f")]
    assert not whole.has_ended


async def test_an_answer_that_buffers_too_much_fails():
    budget = SendBudget()
    budget.client_limit_bytes = 1 << 20
    stream = make_stream(is_streamed=False, budget=budget)
    while not stream.has_ended:
        stream.text("x" * 1000)
    buffered_bytes = stream.buffered_bytes
    stream.text("more")
    stream.finished(END)

    assert not stream.finishes
    assert stream.error is not None
    assert stream.error.status == 400
    assert "over the limit of 1048576 bytes: stream it" in stream.error.message
    assert stream.buffered_bytes == buffered_bytes < (1 << 20) + 2000
    assert (1 << 20) - 2 * FREE_BYTES < budget.reserved_bytes <= 1 << 20


@pytest.mark.parametrize("part", [Thought("x" * 1000), ToolCall(ToolFunction("f" * 1000))])
async def test_unread_bytes_have_a_limit(monkeypatch, part):
    monkeypatch.setattr(response_stream, "UNREAD_LIMIT_BYTES", 1 << 20)
    wire, stream = Wire(), make_stream()
    stream.attach(wire)
    stream.text("read")
    await turn()
    wire.writing_paused = True
    parts = 0
    while not wire.is_gone:
        stream.part(part)
        parts += 1
    assert 500 < parts < 1100
    assert stream.has_ended


async def test_bytes_read_in_time_have_no_limit(monkeypatch):
    monkeypatch.setattr(response_stream, "UNREAD_LIMIT_BYTES", 1 << 20)
    wire, stream = Wire(), make_stream()
    stream.attach(wire)
    for _ in range(30):
        for _ in range(100):
            stream.text("x" * 1000)
        await turn()
    assert not stream.has_ended
    assert len(wire.written) > 3_000_000


async def test_text_after_its_logprobs_is_not_another_token():
    gaps: list[float] = []
    stream = make_stream(is_streamed=False, gaps=gaps)
    for _ in range(3):
        stream.part(Logprobs([TokenLogprob(b"a", -1.0)]))
        stream.text("a")

    assert len(gaps) == 2
